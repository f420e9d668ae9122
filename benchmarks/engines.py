"""How fast every cut of a backbone is on the GPU in each precision, by whatever runs ONNX files there.

Its functions are called by `gpu.py`; nothing is stored here. Weights and images are random: speed does not depend on
them, and what a precision does to answers is for trained models to show. What cannot be had, built or run is a row
that says why.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnx_runtime_cuda import ONNX_RUNTIME, load, measure_onnx_runtime

from ttl_deploy.errors import TargetUnavailableError, TtlDeployError
from ttl_deploy.export import quantisation
from ttl_deploy.export.half_precision import write_half
from ttl_deploy.export.onnx_writer import make_deployable, write_onnx
from ttl_deploy.models import truncation
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.records.models import FULL, IMAGENET_INPUT, ModelSpec
from ttl_deploy.runtime.measurement import CALL, Measurement, ProcessPlan, measure
from ttl_deploy.runtime.percentiles import median_of_medians
from ttl_deploy.runtime.timing import TimingPlan

Row = dict[str, object]
PRECISIONS = ("fp32", "fp16", "int8")
TARGETS = ("tensorrt", "tensorrt-cuda-graph", "tensorrt-rtx", "tensorrt-rtx-cuda-graph")
_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured: the backbone's cuts at the end of its stages, batch sizes, and each process's timing."""

    backbone: str
    side: int
    batches: tuple[int, ...]
    timing: TimingPlan
    processes: int
    targets: tuple[str, ...] = TARGETS
    most_cuts: int | None = None


def measure_engines(extent: Extent) -> Iterator[Row]:
    """Yield a row for every cut, precision, runtime and batch size."""
    found = list_cuts(extent.backbone, image_size=extent.side, classes=2)
    stages = [cut.name for cut in found if cut.stage and cut.name != FULL]
    cuts = [*stages, FULL][-(extent.most_cuts or len(found)) :]
    missing = {target: reason for target in (*extent.targets, ONNX_RUNTIME) if (reason := why_missing(target))}
    for target, reason in missing.items():
        yield {"kind": "engines", "target": target, "failed": reason}
    targets = [target for target in (*extent.targets, ONNX_RUNTIME) if target not in missing]
    for cut in cuts if targets else ():
        with tempfile.TemporaryDirectory() as folder:
            spec = ModelSpec(backbone=extent.backbone, cut=cut, classes=2, image_size=extent.side)
            for precision, file in write_files(spec, Path(folder)).items():
                for target in targets:
                    for batch in extent.batches:
                        yield measure_file(file, target, extent, cut=cut, precision=precision, batch=batch)


def why_missing(target: str) -> str:
    """Say why nothing can run on a target here; nothing where it can."""
    try:
        outcome = run_isolated(load, target, timeout_s=_TIMEOUT_S)
        value_of(outcome, error=TargetUnavailableError, doing=f"{target} does not load")
    except TtlDeployError as error:
        return str(error)
    return ""


def write_files(spec: ModelSpec, folder: Path) -> dict[str, Path]:
    """Write a cut's graphs as `export --format trt` does."""
    torch.manual_seed(0)
    deployable = make_deployable(truncation.build(spec), mean=IMAGENET_INPUT.mean, std=IMAGENET_INPUT.std)
    files = {precision: folder / f"{precision}.onnx" for precision in PRECISIONS}
    write_onnx(deployable, files["fp32"], image_size=spec.image_size, metadata={})
    write_half(files["fp32"], files["fp16"])
    quantisation.prepare(files["fp32"], folder / "prepared.onnx")
    quantisation.quantise(
        folder / "prepared.onnx",
        files["int8"],
        recipe=quantisation.SHARED,
        ranges=folder / "ranges.json",
        images=_draw(8, spec.image_size),
    )
    return files


def measure_file(file: Path, target: str, extent: Extent, *, cut: str, precision: str, batch: int) -> Row:
    """Measure one file in fresh processes; its row, or why there is none."""
    named: Row = {"kind": "engines", "backbone": extent.backbone, "image_size": extent.side, "cut": cut}
    named |= {"precision": precision, "target": target, "batch": batch}
    images = _draw(batch, extent.side)
    try:
        runs = [_measure(file, target, images, extent.timing, number) for number in range(extent.processes)]
    except TtlDeployError as error:
        return named | {"failed": str(error)}
    median_s, noise_s = median_of_medians([run.timing for run in runs])
    named |= {"runtime": runs[0].runtime, "ran": runs[0].precision, "calls": _count(runs), "timed": CALL}
    named |= {"call_ms": _round(median_s), "noise_ms": _round(noise_s), "images_per_s": round(batch / median_s, 1)}
    for boundary in runs[0].timing.stretches_s:
        medians = [float(np.median(run.timing.stretches_s[boundary])) for run in runs]
        named[f"{boundary.partition(':')[0]} ms"] = _round(float(np.median(medians)))
    return named


def draw_table(rows: Sequence[Row]) -> str:
    """Return the latencies and throughputs as a Markdown table; a failure stands in its row."""
    lines = ["| cut | precision | target | batch | GPU ms | with transfers ms | call ms | images/s |"]
    lines.append("|---|---|---|---:|---:|---:|---:|---:|")
    for row in rows:
        head = [str(row.get(name, "all")) for name in ("cut", "precision", "target", "batch")]
        names = ("GPU ms", "GPU with transfers ms", "call_ms", "images_per_s")
        told = [f"failed: {row['failed']}", "", "", ""] if "failed" in row else [str(row.get(n, "")) for n in names]
        lines.append(f"| {' | '.join((*head, *told))} |")
    return "\n".join(lines)


def _measure(file: Path, target: str, images: NDArray[np.uint8], timing: TimingPlan, number: int) -> Measurement:
    plan = ProcessPlan(target=target, model=file, threads=1, images=images, timing=timing, round_number=number)
    call = measure_onnx_runtime if target == ONNX_RUNTIME else measure
    outcome = run_isolated(call, plan, time.monotonic(), timeout_s=_TIMEOUT_S)
    return value_of(outcome, error=TargetUnavailableError, doing=f"cannot measure {file.name} on {target}")


def _draw(count: int, side: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def _count(runs: Sequence[Measurement]) -> int:
    return sum(len(run.timing.samples_s) for run in runs)


def _round(seconds: float) -> float:
    return round(seconds * 1e3, 4)
