"""Benchmarks: fresh processes, every raw sample kept, failures contained."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest

from ttl_deploy.errors import ArtifactError, UsageError
from ttl_deploy.processes import Crashed, Finished, TimedOut
from ttl_deploy.records import codec
from ttl_deploy.records.benchmarks import BenchReport
from ttl_deploy.runtime import bench as bench_module
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.bench import (
    BenchPlan,
    ModelTime,
    ModelToTime,
    bench,
    inconclusive_rows,
    profile_models,
    shuffled_rounds,
    write_report,
)
from ttl_deploy.runtime.measurement import Measurement

FAST = BenchPlan(seconds=0.05, runs=10, rounds=2, extra_rounds=0, limit_s=2.0, seed=5)


@pytest.fixture(scope="module")
def report(tmp_path_factory, tiny):
    steps = []
    artifact = open_artifact(tiny.write(tmp_path_factory.mktemp("bench") / "artifact"))
    plan = replace(FAST, batches=(1, 7), compare=True)
    report = bench([artifact], plan, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    return report


def test_a_report_names_everything_a_number_rests_on(report):
    assert [row.batch for row in report.rows] == [1, 7]
    for row in report.rows:
        assert len(row.artifact_sha256) == 64
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
    assert list(inconclusive_rows(report)) == [row for row in report.rows if row.verdict.startswith("inconclusive")]


def test_every_process_says_how_it_started_and_who_disturbed_it(report):
    for row in report.rows:
        assert row.start.total_s > 0
        assert row.memory.peak_bytes > row.memory.before_bytes > 1e6
        assert row.median_low_s <= row.median_high_s
        for timing in row.timings:
            assert timing.start.interpreter_s > 0
            assert timing.settled in (True, False)
            assert timing.load_s == timing.start.open_s
            assert timing.contention.kernel_s > 0
            assert timing.contention.elapsed_s >= sum(timing.samples_s)
            assert len(timing.samples_s) >= 5
    assert sorted(timing.position for row in report.rows for timing in row.timings) == [0, 1, 2, 3]
    assert (report.settings.seed, report.settings.rounds, report.settings.pinned) == (5, 2, True)
    assert report.settings.environment["OMP_NUM_THREADS"] == "1"
    if hasattr(os, "sched_getaffinity"):
        assert {len(row.cores) for row in report.rows} == {1}


def test_rows_of_different_batch_sizes_are_not_compared(report):
    assert report.comparisons == ()


def test_a_report_is_written_whole_and_never_over_another(report, tmp_path):
    first, second = write_report(report, tmp_path / "bench"), write_report(report, tmp_path / "bench")
    assert first != second
    assert codec.load(BenchReport, first) == codec.load(BenchReport, second) == report


def test_a_report_of_an_older_version_is_still_read(report, tmp_path):
    """Only the fields that the first version had, as files in run folders have them."""
    content = codec.to_builtins(report)
    for name in ("settings", "failures", "comparisons", "energy_note"):
        del content[name]
    old_row = "artifact artifact_sha256 target runtime precision batch threads boundary percentiles minimum_s variation"
    old_row += " noise_s throughput verdict timings"
    old_timing = "round load_s warmup_s samples_s cpu_samples_s"
    content["rows"] = [{name: row[name] for name in old_row.split()} for row in content["rows"]]
    for row in content["rows"]:
        row["timings"] = [{name: timing[name] for name in old_timing.split()} for timing in row["timings"]]
    found = codec.from_builtins(BenchReport, content)
    assert (found.rows[0].mode, found.rows[0].memory, found.failures) == ("latency", None, ())
    assert found.rows[0].timings[0].samples_s == report.rows[0].timings[0].samples_s


def test_every_round_measures_all_in_an_order_of_its_own():
    steps = list(shuffled_rounds(6, 20, 1))
    orders = [tuple(index for number, index in steps if number == wanted) for wanted in range(20)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len(set(orders)) > 10
    assert steps == list(shuffled_rounds(6, 20, 1)) != list(shuffled_rounds(6, 20, 2))


def test_files_without_a_manifest_are_profiled(tiny, tmp_path):
    models = []
    for name in ("first", "second"):
        onnx.save(tiny.model(), tmp_path / f"{name}.onnx")
        models.append(ModelToTime(name=name, path=tmp_path / f"{name}.onnx", height=tiny.side, width=tiny.side))
    times = profile_models(models, FAST)
    assert len(times) == 2
    for measured in times:
        assert isinstance(measured, ModelTime)
        assert measured.median_s > 0
        assert measured.noise_s >= 0
        assert measured.runtime.startswith("onnxruntime ")


def replace_measuring(monkeypatch, outcome_of):
    """Let `outcome_of` answer for the processes of some candidates: None means a real one."""
    real = bench_module.run_isolated

    def run(function, *arguments, **options):
        wanted = outcome_of(arguments[0]) if function is bench_module.measure else None
        return real(function, *arguments, **options) if wanted is None else wanted

    monkeypatch.setattr(bench_module, "run_isolated", run)


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (
            Crashed(signal_number=6, exit_code=None, log_tail="last words"),
            "signal 6 (SIGABRT); its last words: last words",
        ),
        (TimedOut(after_s=9.0), "gave no answer within 9 s"),
    ],
)
def test_a_runtime_that_crashes_or_hangs_is_reported_and_the_others_go_on(artifact_folder, monkeypatch, outcome, told):
    asked = []

    def break_down(process):
        asked.append(len(process.images))
        return outcome if len(process.images) == 2 else None

    replace_measuring(monkeypatch, break_down)
    report = bench([open_artifact(artifact_folder)], replace(FAST, batches=(2, 1)))
    assert [row.batch for row in report.rows] == [1]
    assert [(one.artifact, one.batch) for one in report.failures] == [("tiny", 2)]
    assert told in report.failures[0].reason
    assert sorted(asked) == [1, 1, 2]  # what failed once is not tried again
    assert codec.from_builtins(BenchReport, codec.to_builtins(report)) == report


def test_a_failure_after_good_processes_says_so(artifact_folder, monkeypatch):
    crash = Crashed(signal_number=None, exit_code=3, log_tail="")
    replace_measuring(monkeypatch, lambda process: crash if process.round_number == 1 else None)
    report = bench([open_artifact(artifact_folder)], FAST)
    assert report.rows == ()
    assert report.failures[0].reason == "the process exited with code 3, after 1 good processes"


def test_a_file_that_the_runtime_refuses_is_a_failure(artifact_folder, monkeypatch):
    def refuse(function, *arguments, **options):
        if function is bench_module.measure:
            raise ArtifactError("cannot open")
        return bench_module.Finished(value=0.001)

    monkeypatch.setattr(bench_module, "run_isolated", refuse)
    assert bench([open_artifact(artifact_folder)], FAST).failures[0].reason == "cannot open"


def test_targets_are_measured_side_by_side_each_in_the_precision_asked_for(artifact_folder, monkeypatch):
    asked = []

    def refuse(process):
        asked.append((process.target, process.precision))
        return Crashed(signal_number=None, exit_code=1, log_tail="")

    replace_measuring(monkeypatch, refuse)
    plan = replace(FAST, targets=("onnxruntime-cpu", "openvino-cpu:bf16"))
    report = bench([open_artifact(artifact_folder)], plan)
    assert sorted(asked, key=str) == [("onnxruntime-cpu", None), ("openvino-cpu", "bf16")]
    assert [one.target for one in report.failures] == ["onnxruntime-cpu", "openvino-cpu:bf16"]


def test_a_precision_that_the_target_does_not_know_is_a_failure(artifact_folder):
    (failure,) = bench([open_artifact(artifact_folder)], replace(FAST, targets=("onnxruntime-cpu:fp8",))).failures
    assert "fp8" in failure.reason


def test_an_unknown_target_is_a_failure_that_names_the_known_ones(artifact_folder):
    (failure,) = bench([open_artifact(artifact_folder)], replace(FAST, targets=("abacus",))).failures
    assert "onnxruntime-cpu" in failure.reason


def test_a_file_and_its_copy_are_compared_with_an_interval(tiny, tmp_path):
    artifacts = [open_artifact(tiny.write(tmp_path / name)) for name in ("first", "copy")]
    report = bench(artifacts, replace(FAST, compare=True))
    (comparison,) = report.comparisons
    assert (comparison.first, comparison.second) == (0, 1)
    assert 0 < comparison.low <= comparison.ratio <= comparison.high
    assert comparison.floor >= 0


def call_inconclusive_while(monkeypatch, condition):
    """Let every comparison be inconclusive while `condition` holds for the rows' rounds; else a tie."""
    real = bench_module.compare_with_first

    def compare(rows):
        verdict = "inconclusive: as told" if condition([len(row.timings) for row in rows]) else "tie"
        return tuple(replace(one, verdict=verdict) for one in real(rows))

    monkeypatch.setattr(bench_module, "compare_with_first", compare)


@pytest.fixture
def copies(tiny, tmp_path):
    return [open_artifact(tiny.write(tmp_path / name)) for name in ("first", "copy")]


@pytest.fixture
def unmeasured(report, monkeypatch):
    """Answer at once for all processes, with what one real process measured."""
    real, timing = bench_module.run_isolated, report.rows[0].timings[0]

    def answer(process):
        told = replace(timing, round=process.round_number, position=process.position)
        return Finished(value=Measurement(timing=told, runtime="none 1.0", precision="fp32"))

    def run(function, *arguments, **options):
        if function is bench_module.measure:
            return answer(arguments[0])
        return real(function, *arguments, **options)

    monkeypatch.setattr(bench_module, "run_isolated", run)


def test_rounds_are_added_while_a_comparison_is_inconclusive_and_no_longer(copies, unmeasured, monkeypatch):
    call_inconclusive_while(monkeypatch, lambda rounds: max(rounds) < 4)
    steps = []
    plan = replace(FAST, compare=True, extra_rounds=9)
    report = bench(copies, plan, progress=lambda done, total: steps.append((done, total)))
    assert [[timing.round for timing in row.timings] for row in report.rows] == [[0, 1, 2, 3]] * 2
    assert sorted(timing.position for row in report.rows for timing in row.timings) == list(range(8))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4), (5, 6), (6, 6), (7, 8), (8, 8)]
    assert "4 rounds, 2 more than asked for: its comparison was inconclusive" in report.rows[0].notes
    assert (report.settings.rounds, report.settings.extra_rounds) == (2, 9)


def test_rounds_are_not_added_for_ever(copies, unmeasured, monkeypatch):
    call_inconclusive_while(monkeypatch, lambda rounds: True)
    report = bench(copies, replace(FAST, compare=True, extra_rounds=3))
    assert [len(row.timings) for row in report.rows] == [5, 5]
    assert report.comparisons[0].verdict == "inconclusive: as told"


def test_only_what_compares_inconclusively_is_measured_again(copies, unmeasured, monkeypatch):
    """Three candidates, of which the last one alone is unclear beside the first."""
    real = bench_module.compare_with_first

    def compare(rows):
        wide = len(rows[-1].timings) < 3
        return tuple(
            replace(one, verdict="inconclusive: as told" if wide and one.second == 2 else "tie") for one in real(rows)
        )

    monkeypatch.setattr(bench_module, "compare_with_first", compare)
    report = bench([*copies, copies[0]], replace(FAST, compare=True, extra_rounds=9))
    assert [len(row.timings) for row in report.rows] == [3, 2, 3]


def test_without_a_comparison_no_round_is_added(copies, unmeasured, monkeypatch):
    call_inconclusive_while(monkeypatch, lambda rounds: True)
    report = bench(copies, replace(FAST, extra_rounds=9))
    assert [len(row.timings) for row in report.rows] == [2, 2]
    assert report.settings.extra_rounds == 0


def test_end_to_end_and_throughput_have_rows_of_their_own(artifact_folder):
    plan = replace(FAST, mode="throughput", end_to_end=True, batches=(2,))
    report = bench([open_artifact(artifact_folder)], plan)
    call, whole = report.rows
    assert call.boundary.startswith("call: ")
    assert whole.boundary.startswith("end to end: ")
    assert whole.minimum_s > call.minimum_s  # decoding a megapixel is most of it
    assert "8 PNG files drawn by code" in report.settings.images
    for row in report.rows:
        assert (row.mode, row.streams) == ("throughput", plan.streams)
        rates = [2 * len(timing.samples_s) / timing.contention.elapsed_s for timing in row.timings]
        assert row.throughput == pytest.approx(np.median(rates))


def test_a_slow_model_has_fewer_runs_and_says_so(artifact_folder):
    (row,) = bench([open_artifact(artifact_folder)], replace(FAST, runs=10**9, limit_s=0.1)).rows
    count = sum(len(timing.samples_s) for timing in row.timings)
    assert row.notes == (f"{count} runs, fewer than the 1000000000 asked for: the limit of time was reached first",)


def test_a_batch_too_large_for_the_artifact_is_refused(artifact_folder):
    with pytest.raises(UsageError, match="batch 9 is more than tiny takes: 1 to 8"):
        bench([open_artifact(artifact_folder)], replace(FAST, batches=(9,)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batches": ()}, "batches"),
        ({"batches": (0,)}, "batches"),
        ({"threads": 0}, "threads = 0"),
        ({"rounds": 0}, "rounds = 0"),
        ({"extra_rounds": -1}, "extra_rounds = -1"),
        ({"runs": 0}, "runs = 0"),
        ({"seconds": 0.0}, "seconds = 0.0"),
        ({"seconds": 90.0}, "at most the limit 60.0"),
    ],
)
def test_impossible_requests_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        BenchPlan(**options)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot pin a process")
def test_an_artificially_loaded_machine_is_flagged(artifact_folder):
    """Two busy loops on the only core we leave ourselves, as would be two on each core of a machine."""
    kept = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(kept)})
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        (row,) = bench([open_artifact(artifact_folder)], replace(FAST, seconds=0.5)).rows
    finally:
        os.sched_setaffinity(0, kept)
        for loop in loops:
            loop.kill()
            loop.wait()
    assert row.verdict.startswith("inconclusive: other programs kept us from the core")
    assert row.cores == (min(kept),)


@pytest.mark.parametrize(
    ("file_format", "precision", "expected"),
    [("onnx", "fp32", "onnxruntime-cpu"), ("openvino", "bf16", "openvino-cpu"), ("openvino", "int8", "openvino-cpu")],
)
def test_an_artifact_is_timed_in_the_precision_that_it_was_made_for(
    artifact_folder, monkeypatch, file_format, precision, expected
):
    asked = []

    def refuse(process):
        asked.append((process.target, process.precision))
        return Crashed(signal_number=None, exit_code=1, log_tail="")

    replace_measuring(monkeypatch, refuse)
    artifact = open_artifact(artifact_folder)
    manifest = replace(artifact.manifest, format=file_format, precision=precision)
    monkeypatch.setattr(type(artifact), "model_sha256", "0" * 64)
    bench([replace(artifact, manifest=manifest)], FAST)
    assert asked == [(expected, "bf16" if precision == "bf16" else None)]
