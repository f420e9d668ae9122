"""How fast models are through the runtime that ships them, and how sure that is.

Every measurement runs in a fresh process (`measurement`). Every round measures each candidate once, in an order
shuffled anew, so that neither a drift of the machine nor a neighbour in the order becomes a rank.
"""

import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import TargetUnavailableError, TtlDeployError, UsageError
from ttl_deploy.files import make_folder
from ttl_deploy.processes import Finished, run_isolated, value_of
from ttl_deploy.records import codec
from ttl_deploy.records.benchmarks import BenchFailure, BenchReport, BenchRow, BenchSettings, Mode
from ttl_deploy.runtime.artifact import Artifact
from ttl_deploy.runtime.bench_candidates import Candidate, list_candidates
from ttl_deploy.runtime.bench_rows import make_row
from ttl_deploy.runtime.comparison import compare_with_first
from ttl_deploy.runtime.cores import choose_cores, limit_threads
from ttl_deploy.runtime.drawn_images import draw_images
from ttl_deploy.runtime.energy import find_counters, idle_watts
from ttl_deploy.runtime.jetson import read_jetson
from ttl_deploy.runtime.machine import current_load, describe_machine, installed_versions, usable_cores
from ttl_deploy.runtime.measurement import Measurement, ProcessPlan, measure, time_kernel
from ttl_deploy.runtime.percentiles import median_of_medians
from ttl_deploy.runtime.steadiness import INCONCLUSIVE
from ttl_deploy.runtime.timing import TimingPlan

Progress = Callable[[int, int], None]
"""Called with the measurements done and their number."""

DEFAULT_TARGET = "onnxruntime-cpu"
_START_S = 120.0
_IDLE_S = 1.0
_LEAST_WARMUP_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPlan:
    """How a benchmark is made; seconds, runs and the limit are for a row in all, shared out among its processes.

    `warmup_limit_s` is for each process.
    A row is measured for at least so many seconds *and* so many runs, and never longer than `limit_s`. In latency
    mode one call follows the other; in throughput mode as many streams of calls run at once as fit on the cores.
    With `compare`, candidates whose comparison is inconclusive are measured again, in at most `extra_rounds` more
    rounds, each as long as the others. A target may ask for a precision, as in `openvino-cpu:bf16`; none given means
    the artifact's own target.
    `end_to_end` adds rows that begin with image files: `images`, or some drawn for it.
    """

    targets: tuple[str, ...] = ()
    batches: tuple[int, ...] = (1,)
    threads: int = 1
    mode: Mode = "latency"
    end_to_end: bool = False
    images: tuple[Path, ...] = ()
    seconds: float = 3.0
    runs: int = 200
    limit_s: float = 60.0
    warmup_limit_s: float = 3.0
    rounds: int = 5
    extra_rounds: int = 10
    seed: int = 0
    pinned: bool = True
    compare: bool = False

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1:
            raise UsageError(f"batches {self.batches}: give one or more sizes of at least 1")
        for name in ("threads", "rounds", "runs"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} = {getattr(self, name)}: at least 1 is needed")
        if self.extra_rounds < 0:
            raise UsageError(f"extra_rounds = {self.extra_rounds}: at least 0 is needed")
        if not 0 < self.seconds <= self.limit_s:
            raise UsageError(f"seconds = {self.seconds}: more than 0 is needed, and at most the limit {self.limit_s}")

    @property
    def streams(self) -> int:
        """How many calls run at once."""
        return 1 if self.mode == "latency" else max(1, usable_cores() // self.threads)

    @property
    def timing(self) -> TimingPlan:
        """What each process does."""
        return TimingPlan(
            seconds=self.seconds / self.rounds,
            calls=-(-self.runs // self.rounds),
            limit_s=self.limit_s / self.rounds,
            warmup_seconds=_LEAST_WARMUP_S,
            warmup_limit_s=self.warmup_limit_s,
        )


def bench(
    artifacts: Sequence[Artifact], plan: BenchPlan, *, progress: Progress = lambda done, total: None
) -> BenchReport:
    """Measure artifacts side by side on every target, at every batch size.

    Images are the artifact's golden ones, repeated to fill the batch. What refuses a file, crashes or hangs becomes
    a failure of the report, and the others go on. Raises `UsageError` for a batch an artifact does not take.
    """
    with tempfile.TemporaryDirectory(prefix="ttl-deploy-bench-") as folder:
        files = _image_files(plan, Path(folder)) if plan.end_to_end else ()
        candidates = list(list_candidates(artifacts, targets=plan.targets, batches=plan.batches, files=files))
        cores = choose_cores(plan.threads * plan.streams) if plan.pinned else ()
        counters = find_counters()
        idle_w = idle_watts(counters, seconds=_IDLE_S)
        load_before, before = current_load(), _time_kernel_isolated(cores)
        jetson_before = read_jetson()
        _measure_all(candidates, plan, cores=cores, energy=bool(idle_w), progress=progress)
        if plan.compare:
            _narrow(candidates, plan, cores=cores, energy=bool(idle_w), progress=progress)
        after, load_after = _time_kernel_isolated(cores), current_load()
    kernels = [before, *_kernels(candidates), after]
    rows = tuple(
        _row(candidate, plan, cores=cores, kernels_s=kernels, idle_w=idle_w)
        for candidate in candidates
        if not candidate.failure
    )
    return BenchReport(
        machine=describe_machine(load_before=load_before, load_after=load_after, jetson_before=jetson_before),
        rows=rows,
        calibration_before_s=before,
        calibration_after_s=after,
        versions=installed_versions(),
        settings=_settings(plan, len(files)),
        failures=tuple(_failure(candidate, plan) for candidate in candidates if candidate.failure),
        comparisons=compare_with_first(rows) if plan.compare else (),
        energy_note=counters.note,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelToTime:
    """An ONNX file without a manifest, such as a candidate cut's in a temporary folder."""

    name: str
    path: Path
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTime:
    """A model's latency for one image: median of the rounds' medians, and their spread, in seconds."""

    median_s: float
    noise_s: float
    runtime: str
    precision: str


def profile_models(
    models: Sequence[ModelToTime], plan: BenchPlan, *, progress: Progress = lambda done, total: None
) -> tuple[ModelTime | str, ...]:
    """Measure many model files with one image each.

    Returns one entry per model, in order: its time, or why there is none. The others go on.
    """
    candidates = [
        Candidate(
            name=model.name,
            sha256="",
            path=model.path,
            target=(plan.targets or (DEFAULT_TARGET,))[0],
            batch=1,
            images=_noise(model.height, model.width),
        )
        for model in models
    ]
    cores = choose_cores(plan.threads) if plan.pinned else ()
    _measure_all(candidates, plan, cores=cores, energy=False, progress=progress)
    return tuple(candidate.failure or _model_time(candidate.measured) for candidate in candidates)


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


def shuffled_rounds(candidates: int, rounds: int, seed: int) -> Iterator[tuple[int, int]]:
    """Yield round and candidate of every measurement: in each round all candidates, in an order of its own."""
    generator = random.Random(seed)
    for number in range(rounds):
        order = list(range(candidates))
        generator.shuffle(order)
        for index in order:
            yield number, index


def _measure_all(
    candidates: Sequence[Candidate], plan: BenchPlan, *, cores: tuple[int, ...], energy: bool, progress: Progress
) -> None:
    """Measure every candidate once per round; one that fails is left out of the rounds that remain."""
    steps = list(shuffled_rounds(len(candidates), plan.rounds, plan.seed))
    for position, (number, index) in enumerate(steps):
        _measure_one(candidates[index], plan, number=number, position=position, cores=cores, energy=energy)
        progress(position + 1, len(steps))


def _narrow(
    candidates: Sequence[Candidate], plan: BenchPlan, *, cores: tuple[int, ...], energy: bool, progress: Progress
) -> None:
    """Add rounds of the candidates whose comparison is inconclusive, until none is, or the extra rounds are used up.

    Looking after every round makes chance differences likelier; simulated, they stay under 2 of 100
    (`benchmarks/aa_comparison.py --simulate`), because the noise floor is so wide on machines that need it.
    """
    position = plan.rounds * len(candidates)
    for number in range(plan.rounds, plan.rounds + plan.extra_rounds):
        unclear = _unclear(candidates, plan)
        random.Random(plan.seed + number).shuffle(unclear)
        end = position + len(unclear)
        for candidate in unclear:
            _measure_one(candidate, plan, number=number, position=position, cores=cores, energy=energy)
            position += 1
            progress(position, end)


def _unclear(candidates: Sequence[Candidate], plan: BenchPlan) -> list[Candidate]:
    """Return the candidates, each once, of all comparisons that are inconclusive."""
    sound = [candidate for candidate in candidates if not candidate.failure]
    rows = [_row(one, plan, cores=(), kernels_s=_kernels([one]), idle_w={}) for one in sound]
    found = [one for one in compare_with_first(rows) if one.verdict.startswith(INCONCLUSIVE)]
    return [sound[place] for place in sorted({place for one in found for place in (one.first, one.second)})]


def _measure_one(
    candidate: Candidate, plan: BenchPlan, *, number: int, position: int, cores: tuple[int, ...], energy: bool
) -> None:
    """Measure a candidate in one process, or write down why it failed; one that failed is not tried again."""
    if candidate.failure:
        return
    process = ProcessPlan(
        target=candidate.target.partition(":")[0],
        precision=candidate.target.partition(":")[2] or None,
        model=candidate.path,
        threads=plan.threads,
        images=candidate.images,
        timing=plan.timing,
        round_number=number,
        position=position,
        streams=plan.streams,
        cores=cores,
        energy=energy,
    )
    timeout_s = _START_S + 20 * process.timing.seconds + 2 * process.timing.limit_s
    environment = limit_threads(process.threads)
    try:
        outcome = run_isolated(measure, process, time.monotonic(), timeout_s=timeout_s, environment=environment)
    except TtlDeployError as error:
        candidate.failure = str(error)
        return
    if isinstance(outcome, Finished):
        candidate.measured.append(outcome.value)
        return
    tail = f"; its last words: {outcome.log_tail}" if outcome.log_tail else ""
    done = f", after {len(candidate.measured)} good processes" if candidate.measured else ""
    candidate.failure = f"the process {outcome.reason}{done}{tail}"


def _image_files(plan: BenchPlan, folder: Path) -> tuple[Path, ...]:
    return plan.images or draw_images(folder)


def _noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)


def _row(
    candidate: Candidate,
    plan: BenchPlan,
    *,
    cores: tuple[int, ...],
    kernels_s: Sequence[float],
    idle_w: dict[str, float],
) -> BenchRow:
    first = candidate.measured[0]
    return make_row(
        [one.timing for one in candidate.measured],
        artifact=candidate.name,
        artifact_sha256=candidate.sha256,
        target=candidate.target,
        runtime=first.runtime,
        precision=first.precision,
        batch=candidate.batch,
        threads=plan.threads,
        streams=plan.streams,
        mode=plan.mode,
        boundary=candidate.boundary,
        cores=cores,
        runs=plan.runs,
        rounds=plan.rounds,
        kernels_s=kernels_s,
        idle_w=idle_w,
    )


def _failure(candidate: Candidate, plan: BenchPlan) -> BenchFailure:
    return BenchFailure(
        artifact=candidate.name,
        artifact_sha256=candidate.sha256,
        target=candidate.target,
        batch=candidate.batch,
        threads=plan.threads,
        mode=plan.mode,
        boundary=candidate.boundary,
        reason=candidate.failure,
    )


def _settings(plan: BenchPlan, files: int) -> BenchSettings:
    images = "the artifacts' golden images"
    if plan.end_to_end:
        images += f"; end to end {files} " + ("given files" if plan.images else "PNG files drawn by code")
    return BenchSettings(
        seconds=plan.seconds,
        runs=plan.runs,
        limit_s=plan.limit_s,
        rounds=plan.rounds,
        extra_rounds=plan.extra_rounds if plan.compare else 0,
        seed=plan.seed,
        pinned=plan.pinned,
        environment=limit_threads(plan.threads),
        images=images,
    )


def _kernels(candidates: Sequence[Candidate]) -> list[float]:
    timings = [one.timing for candidate in candidates for one in candidate.measured]
    return [timing.contention.kernel_s for timing in timings if timing.contention is not None]


def _model_time(runs: Sequence[Measurement]) -> ModelTime:
    median, noise = median_of_medians([run.timing for run in runs])
    return ModelTime(median_s=median, noise_s=noise, runtime=runs[0].runtime, precision=runs[0].precision)


def _time_kernel_isolated(cores: tuple[int, ...]) -> float:
    outcome = run_isolated(time_kernel, cores, timeout_s=_START_S, environment=limit_threads(1))
    return value_of(outcome, error=TargetUnavailableError, doing="cannot time the fixed matrix product")
