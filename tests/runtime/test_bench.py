"""Benchmarks: fresh processes, every raw sample kept, failures contained."""

import numpy as np
import onnx
import pytest

from ttl_deploy.errors import TargetUnavailableError, UsageError
from ttl_deploy.processes import Crashed
from ttl_deploy.records import codec
from ttl_deploy.records.benchmarks import BenchReport
from ttl_deploy.runtime import bench as bench_module
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.bench import ModelTime, ModelToTime, bench, inconclusive_rows, profile_models, write_report


@pytest.fixture
def report(artifact_folder):
    steps = []
    artifact = open_artifact(artifact_folder)
    report = bench(
        [artifact], batches=(1, 7), seconds=0.1, rounds=2, progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    return report


def test_a_report_names_everything_a_number_rests_on(report, artifact_folder):
    assert [row.batch for row in report.rows] == [1, 7]
    for row in report.rows:
        assert row.artifact_sha256 == open_artifact(artifact_folder).model_sha256
        assert row.runtime.startswith("onnxruntime ")
        assert (row.precision, row.threads, row.target) == ("fp32", 1, "onnxruntime-cpu")
        samples = [sample for timing in row.timings for sample in timing.samples_s]
        assert [timing.round for timing in row.timings] == [0, 1]
        assert row.minimum_s == min(samples) > 0
        medians = [np.median(timing.samples_s) for timing in row.timings]
        assert row.throughput == pytest.approx(row.batch / np.median(medians))
        assert row.noise_s == pytest.approx(max(medians) - min(medians))
        p50 = row.percentiles[0]
        assert p50.value_s == np.quantile(samples, 0.5, method="inverted_cdf")
    assert report.machine.cores >= 1
    assert report.calibration_before_s > 0
    assert {"python", "onnxruntime", "ttl-deploy"} <= set(report.versions)
    assert set(inconclusive_rows(report)) == {row for row in report.rows if row.verdict.startswith("inconclusive")}


def test_a_report_is_written_whole_and_never_over_another(report, tmp_path):
    first, second = write_report(report, tmp_path / "bench"), write_report(report, tmp_path / "bench")
    assert first != second
    assert codec.load(BenchReport, first) == codec.load(BenchReport, second) == report


def test_rounds_go_through_the_candidates_forwards_then_backwards(monkeypatch, tmp_path):
    order = []

    def run(function, target, path, images, threads, plan, number, *, timeout_s):
        order.append((number, path.name))
        return Crashed(signal_number=None, exit_code=1, log_tail="") if path.name == "b" else finished(number)

    def finished(number):
        timing = bench_module.time_calls(lambda: None, plan=fast, round_number=number, load_s=0)
        return bench_module.Finished(value=bench_module.Measurement(timing=timing, runtime="r 1", precision="fp32"))

    fast = bench_module.TimingPlan(seconds=0, calls=1, warmup_seconds=0, warmup_calls=0)
    monkeypatch.setattr(bench_module, "run_isolated", run)
    models = [ModelToTime(name=name, path=tmp_path / name, height=4, width=4) for name in "abc"]
    times = profile_models(models, rounds=3)
    assert order == [(0, "a"), (0, "b"), (0, "c"), (1, "c"), (1, "a"), (2, "a"), (2, "c")]  # b crashed at once
    assert isinstance(times[1], Crashed)
    assert all(isinstance(times[i], ModelTime) for i in (0, 2))


def test_files_without_a_manifest_are_profiled(tiny, tmp_path):
    models = []
    for name in ("first", "second"):
        onnx.save(tiny.model(), tmp_path / f"{name}.onnx")
        models.append(ModelToTime(name=name, path=tmp_path / f"{name}.onnx", height=tiny.side, width=tiny.side))
    times = profile_models(models, seconds=0.1, rounds=2)
    assert len(times) == 2
    for measured in times:
        assert isinstance(measured, ModelTime)
        assert measured.median_s > 0
        assert measured.noise_s >= 0
        assert measured.runtime.startswith("onnxruntime ")


def test_a_crashing_runtime_is_an_error_that_names_it(artifact_folder, monkeypatch):
    crash = Crashed(signal_number=6, exit_code=None, log_tail="last words")
    with pytest.raises(TargetUnavailableError, match=r"cannot measure tiny on onnxruntime-cpu: .*signal 6") as caught:
        bench_with(crash, artifact_folder, monkeypatch)
    assert "last words" in str(caught.value)


def bench_with(outcome, artifact_folder, monkeypatch):
    real = bench_module.run_isolated

    def run(function, *arguments, **options):
        return outcome if function is bench_module.measure else real(function, *arguments, **options)

    monkeypatch.setattr(bench_module, "run_isolated", run)
    bench([open_artifact(artifact_folder)], seconds=0.1, rounds=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": (9,)}, "batch 9 is more than tiny takes"),
        ({"batches": ()}, "batches"),
        ({"batches": (0,)}, "batches"),
        ({"threads": 0}, "threads = 0"),
        ({"rounds": 0}, "rounds = 0"),
        ({"seconds": 0.0}, "seconds = 0.0"),
    ],
)
def test_impossible_requests_are_refused(artifact_folder, options, message):
    with pytest.raises(UsageError, match=message):
        bench([open_artifact(artifact_folder)], **options)
