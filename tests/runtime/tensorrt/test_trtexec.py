"""What trtexec told, from its file of times or its printed words, and how that stands beside ours."""

import json
from dataclasses import replace

import pytest

from ttl_deploy.errors import DataError, UsageError
from ttl_deploy.files import sha256_file
from ttl_deploy.records.benchmarks import BenchReport, Machine, Timing
from ttl_deploy.runtime.bench_rows import make_row, make_stretch
from ttl_deploy.runtime.beside import set_beside
from ttl_deploy.runtime.tensorrt.session import ON_GPU
from ttl_deploy.runtime.tensorrt.trtexec import GPU_ONLY, WITH_TRANSFERS, Expected, read_trtexec

WANTED = Expected(height=64, width=64, batch=4)

# Laid out as TensorRT 8.6 to 10 print it (NVIDIA/TensorRT, samples/common/sampleReporting.cpp and sampleOptions.cpp).
PRINTED = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --loadEngine=model.engine --shapes=image:8x64x64x3
[11/21/2026-10:00:00] [I] === Inference Options ===
[11/21/2026-10:00:00] [I] Batch: Explicit
[11/21/2026-10:00:00] [I] Input inference shape : image=8x64x64x3
[11/21/2026-10:00:00] [I] Inference Streams: 1
[11/21/2026-10:00:00] [I] Data transfers: Enabled
[11/21/2026-10:00:00] [I] CUDA Graph: Disabled
[11/21/2026-10:00:01] [I] === Device Information ===
[11/21/2026-10:00:01] [I] Selected Device: Orin
[11/21/2026-10:00:01] [I] Compute Capability: 8.7
[11/21/2026-10:00:02] [I] Using random values for input image
[11/21/2026-10:00:02] [I] Input binding for image with dimensions 8x64x64x3 is created.
[11/21/2026-10:00:02] [I] Output binding for probabilities with dimensions 8x2 is created.
[11/21/2026-10:00:05] [I] Warmup completed 119 queries over 200 ms
[11/21/2026-10:00:05] [I] Timing trace has 500 queries over 3.00339 s
[11/21/2026-10:00:05] [I] === Performance summary ===
[11/21/2026-10:00:05] [I] Throughput: 609.43 qps
[11/21/2026-10:00:05] [I] Latency: min = 1.6 ms, max = 2.1 ms, mean = 1.7 ms, median = 1.65 ms, \
percentile(90%) = 1.8 ms, percentile(95%) = 1.85 ms, percentile(99%) = 1.9 ms
[11/21/2026-10:00:05] [I] H2D Latency: min = 0.1 ms, max = 0.2 ms, mean = 0.1 ms, median = 0.1 ms, \
percentile(90%) = 0.1 ms, percentile(95%) = 0.1 ms, percentile(99%) = 0.1 ms
[11/21/2026-10:00:05] [I] GPU Compute Time: min = 1.4 ms, max = 1.9 ms, mean = 1.5 ms, median = 1.45 ms, \
percentile(90%) = 1.6 ms, percentile(95%) = 1.65 ms, percentile(99%) = 1.7 ms
&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec --loadEngine=model.engine
"""


def row(**changes):
    """Return an inference as trtexec writes it (TensorRT 8.6 to 11)."""
    times = {
        "startEnqMs": 0.0,
        "endEnqMs": 0.2,
        "startH2dMs": 0.0,
        "endH2dMs": 0.1,
        "startComputeMs": 0.1,
        "endComputeMs": 1.6,
        "startD2hMs": 1.6,
        "endD2hMs": 1.65,
        "h2dMs": 0.1,
        "computeMs": 1.5,
        "d2hMs": 0.05,
        "latencyMs": 1.65,
    }
    return times | changes


def read(tmp_path, content, wanted=WANTED):
    path = tmp_path / "told"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_trtexec(path, wanted)


def test_a_file_of_times_is_read_by_the_boundaries_of_ours(tmp_path):
    told = read(tmp_path, [row(), row(startComputeMs=2.0, endComputeMs=3.0, latencyMs=1.2)] * 6)
    assert told.samples_s[GPU_ONLY][:2] == pytest.approx((1.5e-3, 1e-3))
    assert told.samples_s[WITH_TRANSFERS][:2] == pytest.approx((1.65e-3, 1.2e-3))
    assert [(one.name, one.calls) for one in told.stretches] == [("GPU", 12), ("GPU with transfers", 12)]
    assert told.stretches[0].median_s == pytest.approx(1.25e-3)
    assert [one.value_s for one in told.stretches[0].percentiles] == [pytest.approx(1e-3), None, None]
    assert (told.told_by, told.batch, told.cuda_graph) == ("trtexec", 4, None)
    assert told.source_sha256 == sha256_file(tmp_path / "told")


def test_without_copies_there_is_no_time_with_transfers(tmp_path):
    told = read(tmp_path, [row(h2dMs=0.0, latencyMs=1.5)])
    assert [one.name for one in told.stretches] == ["GPU"]
    told = read(tmp_path, PRINTED.replace("transfers: Enabled", "transfers: Disabled"))
    assert [one.name for one in told.stretches] == ["GPU"]


def test_printed_words_tell_version_device_batch_and_percentiles(tmp_path):
    told = read(tmp_path, PRINTED)
    assert (told.told_by, told.device, told.batch, told.cuda_graph) == ("trtexec 10.3.0", "Orin", 8, False)
    gpu, whole = told.stretches
    assert (gpu.boundary, gpu.calls, gpu.median_s, gpu.noise_s) == (GPU_ONLY, 500, pytest.approx(1.45e-3), None)
    assert whole.median_s == pytest.approx(1.65e-3)
    # 500 calls are too few for p99 (662), as they are for ours.
    assert [one.value_s for one in gpu.percentiles] == [pytest.approx(1.45e-3), pytest.approx(1.6e-3), None]
    assert told.samples_s == {}


def test_the_words_of_tensorrt_8_are_read_too(tmp_path):
    older = (
        PRINTED.replace("v100300", "v8502")
        .replace("Input binding for image", "Created input binding for image")
        .replace("x3 is created.", "x3")
    )
    told = read(tmp_path, older)
    assert (told.told_by, told.batch) == ("trtexec 8.5.2", 8)


def test_the_batch_is_the_one_asked_for_where_the_words_do_not_tell(tmp_path):
    silent = "\n".join(line for line in PRINTED.splitlines() if "binding" not in line)
    assert read(tmp_path, silent).batch == 4
    for content in (silent, [row()]):
        with pytest.raises(UsageError, match="does not say how many images trtexec ran at once: give one --batch"):
            read(tmp_path, content, replace(WANTED, batch=None))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no performance summaries of trtexec"),
        ("[]", "no list of inferences"),
        ("[{", "cannot read"),
        ('{"a": 1}', "no list of inferences"),
        ([row(), 1], "inference 2: 1 is no object"),
        ([row(), row(latencyMs="2")], "inference 2: latencyMs = '2' is no time"),
        ([row(endComputeMs=9)], r"8\.9 ms of computing in a latency of 1\.65 ms"),
        ([row(endComputeMs=0)], "ms of computing"),
        ([{"count": 100}, {"name": "conv1", "timeMs": 2.0, "averageMs": 0.02}], "a profile of single layers"),
        (PRINTED.partition("[11/21/2026-10:00:05] [I] === Perf")[0], "no performance summaries"),
        (PRINTED + PRINTED, "2 performance summaries"),
        (PRINTED.replace("has 500 queries", "has 0 queries"), "how many inferences"),
        (PRINTED.replace("Streams: 1", "Streams: 2"), "of 2 streams at once"),
        (PRINTED.replace("median = 1.45 ms", "median = inf ms"), "no median above 0 of GPU Compute Time"),
        (PRINTED.replace("[I] Latency", "[I] Lateness"), "no median above 0 of Latency"),
        (PRINTED.replace("dimensions 8x64x64x3", "dimensions 1x1x1x3"), "ran images 1x1x1x3.*takes Nx64x64x3"),
    ],
)
def test_another_file_is_refused_with_what_is_wrong(tmp_path, content, words):
    with pytest.raises(DataError, match=words):
        read(tmp_path, content)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    (tmp_path / "engine").write_bytes(b"\xff\xfe\x00")
    for name in ("absent", "engine", "."):
        with pytest.raises(DataError, match="cannot read"):
            read_trtexec(tmp_path / name, WANTED)


MACHINE = Machine(
    host="orin",
    system="Linux",
    processor="Cortex-A78AE",
    cores=8,
    memory_bytes=32_000_000_000,
    governor="performance",
    load_before=0.0,
    load_after=0.0,
)


def report(*rows, host="orin", imported=()):
    return BenchReport(
        machine=replace(MACHINE, host=host),
        rows=rows,
        calibration_before_s=0.0,
        calibration_after_s=0.0,
        imported=tuple(imported),
    )


def bench_row(*, target="tensorrt", batch=8, sha256="a" * 64, precision="fp16", gpu_s=0.0029, boundary="call: x"):
    stretches = {ON_GPU: (gpu_s,) * 20} if target == "tensorrt" else {}
    timing = Timing(round=0, load_s=0.0, warmup_s=(), samples_s=(0.004,) * 20, cpu_samples_s=(), stretches_s=stretches)
    return make_row(
        [timing, timing],
        artifact="a",
        artifact_sha256=sha256,
        target=target,
        runtime="tensorrt 10.3.0",
        precision=precision,
        batch=batch,
        threads=1,
        streams=1,
        mode="latency",
        boundary=boundary,
        cores=(),
        runs=0,
        kernels_s=[1.0],
        idle_w={},
    )


def test_a_row_sums_up_the_stretches_of_its_processes():
    (stretch,) = bench_row().stretches
    assert stretch == make_stretch(ON_GPU, [(0.0029,) * 20] * 2)
    assert (stretch.calls, stretch.median_s, stretch.noise_s) == (40, 0.0029, 0.0)


def test_times_stand_beside_ours_of_the_same_stretch_batch_and_model(tmp_path):
    told = read(tmp_path, PRINTED)
    gpu, whole = set_beside([report(bench_row(), bench_row(batch=1, gpu_s=9.0), imported=[told])])
    assert (gpu.theirs.name, gpu.target, gpu.told_by) == ("GPU", "tensorrt", "trtexec 10.3.0, no CUDA graph")
    assert gpu.ratio == pytest.approx(2.0)
    assert (whole.theirs.name, whole.ours, whole.ratio) == ("GPU with transfers", None, None)
    assert [one.ours for one in set_beside([report(imported=[told])])] == [None, None]


def test_a_kits_rows_by_trtexec_stand_beside_ours_of_the_same_machine_and_precision():
    ours = report(bench_row(), bench_row(precision="fp32", gpu_s=9.0), bench_row(sha256="b" * 64, gpu_s=9.0))
    kit = report(bench_row(target="tensorrt (trtexec)", boundary=GPU_ONLY))
    (pair,) = set_beside([ours, kit], ["a" * 64])
    assert pair.ratio == pytest.approx(0.0029 / 0.004)
    (alone,) = set_beside([replace(ours, machine=replace(MACHINE, host="other")), kit], ["a" * 64])
    assert alone.ours is None
    assert set_beside([ours, kit], ["c" * 64]) == ()
