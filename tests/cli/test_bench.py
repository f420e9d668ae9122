"""What `bench` prints of a report, and with which exit code it ends."""

from dataclasses import replace

import numpy as np
import pytest

from ttl_deploy.errors import InconclusiveError, TargetUnavailableError, UsageError
from ttl_deploy.records.benchmarks import (
    BenchFailure,
    BenchReport,
    BenchRow,
    ColdStart,
    Contention,
    ImportedTimes,
    Machine,
    Memory,
    Timing,
)
from ttl_deploy.runtime.bench_rows import make_row, make_stretch
from ttl_deploy.runtime.comparison import compare_with_first
from ttl_deploy_cli import bench as command
from ttl_deploy_cli.tables import print_bench

QUIET = Contention(
    elapsed_s=1.0,
    cpu_s=1.0,
    waited_s=0.0,
    involuntary_switches=0,
    steal_share=0.0,
    others_share=0.0,
    kernel_s=0.001,
)
MACHINE = Machine(
    host="ward-pc",
    system="Linux",
    processor="Neoverse-V1",
    cores=2,
    memory_bytes=8_000_000_000,
    governor="performance",
    load_before=0.0,
    load_after=0.0,
)
FAILURE = BenchFailure(
    artifact="c",
    artifact_sha256="0" * 64,
    target="onnxruntime-cpu",
    batch=1,
    threads=1,
    mode="latency",
    boundary="call: x",
    reason="the process was killed by signal 6 (SIGABRT)",
)


def make(name: str, latency_s: float, contention: Contention = QUIET) -> BenchRow:
    generator = np.random.default_rng(len(name))
    timings = []
    for number in range(5):
        samples = tuple(map(float, latency_s * generator.normal(1.0, 0.005, 50)))
        timings.append(
            Timing(
                round=number,
                load_s=0.02,
                warmup_s=(0.1,),
                samples_s=samples,
                cpu_samples_s=samples,
                start=ColdStart(interpreter_s=1.0, import_s=0.1, open_s=0.02, first_run_s=0.003),
                memory=Memory(before_bytes=30_000_000, peak_bytes=83_000_000),
                contention=contention,
            )
        )
    return make_row(
        timings,
        artifact=name,
        artifact_sha256="0" * 64,
        target="onnxruntime-cpu",
        runtime="onnxruntime 1.0",
        precision="fp32",
        batch=1,
        threads=1,
        streams=1,
        mode="latency",
        boundary="call: from here to there",
        cores=(0,),
        runs=300,
        kernels_s=[0.001],
        idle_w={},
    )


def make_report(*rows: BenchRow) -> BenchReport:
    return BenchReport(
        machine=MACHINE,
        rows=rows,
        calibration_before_s=0.001,
        calibration_after_s=0.001,
        comparisons=compare_with_first(rows),
        energy_note="no energy: no counter here",
    )


def test_latency_costs_and_comparisons_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_bench(make_report(make("first", 0.010), make("second one", 0.008)))
    text = capsys.readouterr().out
    for words in ("p50 ms", "n too small", "123", "83", "row 2 / row 1", "0.80", "faster", "wall time"):
        assert words in text
    assert "row 1: stable; 250 runs, fewer than the 300 asked for" in text
    assert "timed call: from here to there" in text
    assert "no energy: no counter here" in text


def test_stretches_of_the_calls_and_another_tools_times_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    ours = make_stretch("GPU: the network alone", [[0.003] * 700])
    theirs = make_stretch("GPU: the network alone, by trtexec", [[0.002] * 50])
    told = ImportedTimes(told_by="trtexec 10.3.0", source="t", source_sha256="0" * 64, batch=1, stretches=(theirs,))
    row = replace(make("first", 0.010), stretches=(ours,))
    print_bench(replace(make_report(row), imported=(told,)))
    text = " ".join(capsys.readouterr().out.split())
    assert "1 GPU 700 3.000 3.000 3.000 one process" in text
    beside = (
        "1 GPU onnxruntime-cpu 700 3.000 / 3.000 / 3.000 trtexec 10.3.0 50 2.000 / n too small / n too small 1.500 x"
    )
    assert beside in text
    assert "timed GPU: the network alone, by trtexec" in text
    print_bench(replace(make_report(), failures=(FAILURE,), imported=(told,)))
    assert "1 GPU not measured trtexec 10.3.0 50 2.000" in " ".join(capsys.readouterr().out.split())


def test_a_failure_is_printed_after_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    print_bench(replace(make_report(make("first", 0.010)), failures=(FAILURE,)))
    text = capsys.readouterr().out
    assert text.index("first") < text.index("c on onnxruntime-cpu, batch 1: FAILED, the process was killed by signal 6")


def test_a_report_of_failures_only_is_printed_too(capsys: pytest.CaptureFixture[str]) -> None:
    print_bench(replace(make_report(), failures=(FAILURE,)))
    assert "FAILED" in capsys.readouterr().out


def test_steady_rows_end_well() -> None:
    command._refuse_doubtful(make_report(make("first", 0.010)))


def test_a_disturbed_row_ends_with_7_and_a_failure_with_6() -> None:
    disturbed = make_report(make("first", 0.010, replace(QUIET, waited_s=0.5)))
    with pytest.raises(InconclusiveError, match="1 of 1 rows") as inconclusive:
        command._refuse_doubtful(disturbed)
    with pytest.raises(TargetUnavailableError, match="killed by signal 6") as failed:
        command._refuse_doubtful(replace(disturbed, failures=(FAILURE,)))
    assert (inconclusive.value.exit_code, failed.value.exit_code) == (7, 6)


def test_batches_are_a_list_of_whole_numbers() -> None:
    assert command._batches("1,8,32") == (1, 8, 32)
    with pytest.raises(UsageError, match="1,8,32"):
        command._batches("1;8")
