"""How fast a model is through the runtime that ships it, and how sure that is.

Every measurement runs in a fresh process. Rounds go through the candidates forwards, then backwards
(ABBA), so that a slow drift of the machine does not become a rank.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttl_deploy import plugins
from ttl_deploy.errors import TargetUnavailableError, UsageError
from ttl_deploy.files import make_folder
from ttl_deploy.processes import Crashed, Finished, TimedOut, run_isolated, value_of
from ttl_deploy.records import codec
from ttl_deploy.records.benchmarks import BenchReport, BenchRow, Timing
from ttl_deploy.runtime.artifact import Artifact
from ttl_deploy.runtime.machine import current_load, describe_machine, installed_versions
from ttl_deploy.runtime.timing import (
    INCONCLUSIVE,
    PERCENTS,
    TimingPlan,
    coefficient_of_variation,
    judge,
    median_of_medians,
    percentile,
    time_calls,
)

Progress = Callable[[int, int], None]
"""Called with the measurements done and their number."""

BOUNDARY = "call: from a uint8 array in memory to probabilities in memory, wall clock"
_START_S = 120.0
_WARMUP_SHARE = 0.25
_GEMM_SIZE = 256
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelToTime:
    """An ONNX file without a manifest, such as a candidate cut's in a temporary folder."""

    name: str
    path: Path
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one fresh process reports."""

    timing: Timing
    runtime: str
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A model file with the images `(batch, H, W, 3)` of one call."""

    name: str
    path: Path
    images: NDArray[np.uint8]


def bench(
    artifacts: Sequence[Artifact],
    *,
    target: str = "onnxruntime-cpu",
    batches: Sequence[int] = (1,),
    threads: int = 1,
    seconds: float = 3.0,
    rounds: int = 3,
    progress: Progress = lambda done, total: None,
) -> BenchReport:
    """Measure artifacts side by side at each batch size; `seconds` per row are shared out among the rounds.

    Images are the artifact's golden ones, repeated to fill the batch. Raises `UsageError` for a batch
    the artifact does not take, `TargetUnavailableError` where the runtime crashes or hangs.
    """
    _check_counts(batches=batches, threads=threads, seconds=seconds, rounds=rounds)
    subjects = [(artifact, batch) for artifact in artifacts for batch in batches]
    candidates = [_candidate_of(artifact, batch) for artifact, batch in subjects]
    load_before, before = current_load(), _calibrate_isolated()
    measured = _measure_all(
        candidates, target=target, threads=threads, seconds=seconds, rounds=rounds, progress=progress
    )
    after, load_after = _calibrate_isolated(), current_load()
    rows = tuple(
        _row(
            artifact,
            batch,
            _whole(runs, artifact, target),
            target=target,
            threads=threads,
            calibrations=(before, after),
        )
        for (artifact, batch), runs in zip(subjects, measured, strict=True)
    )
    return BenchReport(
        machine=describe_machine(load_before=load_before, load_after=load_after),
        rows=rows,
        calibration_before_s=before,
        calibration_after_s=after,
        versions=installed_versions(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTime:
    """A model's latency for one image: median of the rounds' medians, and their spread, in seconds."""

    median_s: float
    noise_s: float
    runtime: str
    precision: str


def profile_models(
    models: Sequence[ModelToTime],
    *,
    target: str = "onnxruntime-cpu",
    threads: int = 1,
    seconds: float = 1.0,
    rounds: int = 3,
    progress: Progress = lambda done, total: None,
) -> tuple[ModelTime | Crashed | TimedOut, ...]:
    """Measure many model files with one image each; `seconds` are per model.

    Returns one entry per model, in order. A model that crashes the runtime or hangs does not stop the others.
    """
    _check_counts(batches=(1,), threads=threads, seconds=seconds, rounds=rounds)
    candidates = [
        _Candidate(name=model.name, path=model.path, images=_noise(1, model.height, model.width)) for model in models
    ]
    measured = _measure_all(
        candidates, target=target, threads=threads, seconds=seconds, rounds=rounds, progress=progress
    )
    return tuple(_model_time(runs) if isinstance(runs, list) else runs for runs in measured)


def inconclusive_rows(report: BenchReport) -> tuple[BenchRow, ...]:
    """Return the rows whose numbers the measurement itself does not trust."""
    return tuple(row for row in report.rows if row.verdict.startswith(INCONCLUSIVE))


def write_report(report: BenchReport, folder: Path) -> Path:
    """Publish a report, raw samples included, as `<host>-<UTC time>.json` in `folder`; overwrites nothing."""
    make_folder(folder)
    host = re.sub(r"[^A-Za-z0-9.-]+", "_", report.machine.host)
    stem = f"{host}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    path, copy = folder / f"{stem}.json", 2
    while path.exists():
        path, copy = folder / f"{stem}-{copy}.json", copy + 1
    codec.save(path, report)
    return path


def measure(
    target: str, model: Path, images: NDArray[np.uint8], threads: int, plan: TimingPlan, round_number: int
) -> Measurement:
    """Open a model and time calls with `images`, in this process; made to run in a child."""
    runtime = plugins.load("targets", target)()
    start = time.perf_counter()
    session = runtime.open(model, threads=threads)
    load_s = time.perf_counter() - start
    timing = time_calls(lambda: session.run(images), plan, round_number=round_number, load_s=load_s)
    return Measurement(timing=timing, runtime=session.runtime, precision=session.precision)


def calibrate() -> float:
    """Return the median time in seconds of a fixed float32 matrix product: the machine's own speed now."""
    rng = np.random.default_rng(0)
    left, right = rng.random((2, _GEMM_SIZE, _GEMM_SIZE), dtype=np.float32)
    plan = TimingPlan(seconds=0.3, calls=20)
    timing = time_calls(lambda: left @ right, plan, round_number=0, load_s=0.0)
    return float(np.median(timing.samples_s))


def _measure_all(
    candidates: Sequence[_Candidate], *, target: str, threads: int, seconds: float, rounds: int, progress: Progress
) -> list[list[Measurement] | Crashed | TimedOut]:
    """Return per candidate one measurement per round, or what ended its process."""
    plan = TimingPlan(seconds=seconds / rounds, warmup_seconds=max(0.1, _WARMUP_SHARE * seconds / rounds))
    timeout_s = _START_S + 20 * (plan.seconds + plan.warmup_seconds)
    results: list[list[Measurement] | Crashed | TimedOut] = [[] for _ in candidates]
    for step, (number, index) in enumerate(_abba(len(candidates), rounds)):
        candidate, runs = candidates[index], results[index]
        if isinstance(runs, list):
            outcome = run_isolated(
                measure, target, candidate.path, candidate.images, threads, plan, number, timeout_s=timeout_s
            )
            if isinstance(outcome, Finished):
                runs.append(outcome.value)
            else:
                results[index] = outcome
        progress(step + 1, rounds * len(candidates))
    return results


def _abba(candidates: int, rounds: int) -> Iterator[tuple[int, int]]:
    """Yield round and candidate: forwards in even rounds, backwards in odd ones."""
    for number in range(rounds):
        order = range(candidates)
        for index in order if number % 2 == 0 else reversed(order):
            yield number, index


def _whole(runs: list[Measurement] | Crashed | TimedOut, artifact: Artifact, target: str) -> list[Measurement]:
    outcome = Finished(value=runs) if isinstance(runs, list) else runs
    doing = f"cannot measure {artifact.manifest.name} on {target}"
    return value_of(outcome, error=TargetUnavailableError, doing=doing)


def _row(
    artifact: Artifact,
    batch: int,
    runs: Sequence[Measurement],
    *,
    target: str,
    threads: int,
    calibrations: tuple[float, float],
) -> BenchRow:
    timings = tuple(run.timing for run in runs)
    samples = [sample for timing in timings for sample in timing.samples_s]
    median, noise = median_of_medians(timings)
    return BenchRow(
        artifact=artifact.manifest.name,
        artifact_sha256=artifact.model_sha256,
        target=target,
        runtime=runs[0].runtime,
        precision=runs[0].precision,
        batch=batch,
        threads=threads,
        boundary=BOUNDARY,
        percentiles=tuple(percentile(samples, percent) for percent in PERCENTS),
        minimum_s=min(samples),
        variation=coefficient_of_variation(samples),
        noise_s=noise,
        throughput=batch / median,
        verdict=judge(timings, calibration_before_s=calibrations[0], calibration_after_s=calibrations[1]),
        timings=timings,
    )


def _model_time(runs: Sequence[Measurement]) -> ModelTime:
    median, noise = median_of_medians([run.timing for run in runs])
    return ModelTime(median_s=median, noise_s=noise, runtime=runs[0].runtime, precision=runs[0].precision)


def _candidate_of(artifact: Artifact, batch: int) -> _Candidate:
    limit = artifact.manifest.input.max_batch
    if batch > limit:
        raise UsageError(f"batch {batch} is more than {artifact.manifest.name} takes: 1 to {limit}")
    golden, _ = artifact.golden()
    images = golden[np.arange(batch) % len(golden)]
    return _Candidate(name=artifact.manifest.name, path=artifact.model_path, images=images)


def _noise(batch: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def _calibrate_isolated() -> float:
    outcome = run_isolated(calibrate, timeout_s=_START_S, environment=_ONE_THREAD)
    return value_of(outcome, error=TargetUnavailableError, doing="cannot time the calibration kernel")


def _check_counts(*, batches: Sequence[int], threads: int, seconds: float, rounds: int) -> None:
    if not batches or min(batches) < 1:
        raise UsageError(f"batches {tuple(batches)}: give one or more sizes of at least 1")
    for name, value in {"threads": threads, "rounds": rounds}.items():
        if value < 1:
            raise UsageError(f"{name} = {value}: at least 1 is needed")
    if not seconds > 0:
        raise UsageError(f"seconds = {seconds}: more than 0 is needed")
