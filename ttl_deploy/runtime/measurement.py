"""One fresh process that measures one candidate: cold start, warm-up, samples, memory, energy, who disturbed it."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ttl_deploy import plugins
from ttl_deploy.pixels import decode
from ttl_deploy.plugins import Session, Target, TimesStretches
from ttl_deploy.records.benchmarks import ColdStart, Memory, Timing
from ttl_deploy.records.data import DecodeSettings
from ttl_deploy.runtime.contention import describe_contention, read_usage
from ttl_deploy.runtime.cores import pin
from ttl_deploy.runtime.energy import Counters, find_counters
from ttl_deploy.runtime.memory import peak_bytes, resident_bytes
from ttl_deploy.runtime.timing import Samples, TimingPlan, sample, sample_streams, time_calls, warm_up

T = TypeVar("T")
CALL = "call: from a uint8 array in memory to probabilities in memory, wall clock"
END_TO_END = "end to end: from image files through decoding and resizing to probabilities in memory, wall clock"
_MOST_STRETCHES = 1000
_KERNEL_SIDE = 256
_KERNEL_PLAN = TimingPlan(seconds=0.15, calls=20, limit_s=2.0, warmup_seconds=0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFiles:
    """Image files for end-to-end calls of `batch` images each, taken in turn."""

    paths: tuple[Path, ...]
    decode: DecodeSettings
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """What one process does; `images` are an array `(batch, H, W, 3)` or files.

    Several `streams` each have a session and a thread of their own. `cores` are those the process may use, none
    given means all. `energy` says whether counters are read; without a `precision` the target chooses.
    """

    target: str
    model: Path
    threads: int
    images: NDArray[np.uint8] | ImageFiles
    timing: TimingPlan
    round_number: int
    position: int | None = None
    streams: int = 1
    cores: tuple[int, ...] = ()
    energy: bool = False
    precision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one fresh process reports."""

    timing: Timing
    runtime: str
    precision: str


def measure(plan: ProcessPlan, spawned_s: float) -> Measurement:
    """Make one measurement in this process, which is to be a fresh one started at `spawned_s` (`time.monotonic`)."""
    interpreter_s = time.monotonic() - spawned_s
    pin(plan.cores)
    before_bytes = resident_bytes()
    import_s, load = _timed(lambda: plugins.load("targets", plan.target))
    runtime = load()
    open_s, first = _timed(lambda: _open(runtime, plan))
    sessions: list[Session] = [first]
    calls = [_make_call(first, plan)]
    first_run_s, _ = _timed(calls[0])
    for _ in range(plan.streams - 1):
        sessions.append(_open(runtime, plan))
        calls.append(_make_call(sessions[-1], plan))
    timing = _time_warm(calls, plan)
    memory = Memory(before_bytes=before_bytes, peak_bytes=max(peak_bytes(), before_bytes))
    return Measurement(
        timing=replace(
            timing,
            load_s=open_s,
            start=ColdStart(interpreter_s=interpreter_s, import_s=import_s, open_s=open_s, first_run_s=first_run_s),
            memory=memory,
            stretches_s=_time_stretches(first, plan, calls=len(timing.samples_s)),
        ),
        runtime=first.runtime,
        precision=first.precision,
    )


def _open(runtime: Target, plan: ProcessPlan) -> Session:
    """Open the model; only where a precision is asked for, the target needs to know the word."""
    if plan.precision is None:
        return runtime.open(plan.model, threads=plan.threads)
    return runtime.open(plan.model, threads=plan.threads, precision=plan.precision)


def time_kernel(cores: tuple[int, ...] = ()) -> float:
    """Return the median time in seconds of a fixed float32 matrix product: the machine's own speed now."""
    pin(cores)
    rng = np.random.default_rng(0)
    left, right = rng.random((2, _KERNEL_SIDE, _KERNEL_SIDE), dtype=np.float32)
    return float(np.median(time_calls(lambda: left @ right, _KERNEL_PLAN, round_number=0, load_s=0.0).samples_s))


def _time_warm(calls: Sequence[Callable[[], object]], plan: ProcessPlan) -> Timing:
    """Warm up, take the samples between two readings of all counters, and time the fixed matrix product."""
    warmup, settled = _warm_up(calls, plan.timing)
    counters = find_counters() if plan.energy else Counters(counters=(), rails=(), reasons=())
    with counters.watch() as spent:
        before = read_usage()
        samples = _take_samples(calls, plan.timing)
        after = read_usage()
    contention = describe_contention(before, after, kernel_s=time_kernel())
    return Timing(
        round=plan.round_number,
        load_s=0.0,
        warmup_s=warmup,
        samples_s=samples.wall_s,
        cpu_samples_s=samples.cpu_s,
        position=plan.position,
        settled=settled,
        contention=replace(contention, elapsed_s=samples.elapsed_s),
        energy_j=spent.joules,
        energy_s=spent.seconds,
        energy_readings=spent.readings,
    )


def _warm_up(calls: Sequence[Callable[[], object]], plan: TimingPlan) -> tuple[tuple[float, ...], bool | None]:
    """Warm up one stream until it is steady, then all together for as long as the plan's least warm-up."""
    warmup, settled = warm_up(calls[0], plan)
    if len(calls) > 1:
        together = TimingPlan(seconds=plan.warmup_seconds, calls=len(calls) * plan.warmup_calls, limit_s=plan.limit_s)
        warmup += sample_streams(calls, together).wall_s
    return warmup, settled


def _time_stretches(session: Session, plan: ProcessPlan, *, calls: int) -> dict[str, tuple[float, ...]]:
    """Ask a session that times stretches for those of about as many calls as were timed, one call after the other."""
    if plan.streams > 1 or isinstance(plan.images, ImageFiles) or not isinstance(session, TimesStretches):
        return {}
    return dict(session.time_stretches(plan.images, calls=min(calls, _MOST_STRETCHES)))


def _take_samples(calls: Sequence[Callable[[], object]], plan: TimingPlan) -> Samples:
    return sample(calls[0], plan) if len(calls) == 1 else sample_streams(calls, plan)


def _make_call(session: Session, plan: ProcessPlan) -> Callable[[], object]:
    images = plan.images
    if isinstance(images, ImageFiles):
        return _call_with_files(session, images, plan.threads)
    return lambda: session.run(images)


def _call_with_files(session: Session, files: ImageFiles, threads: int) -> Callable[[], object]:
    """Return a call that decodes the next files, on several threads as `predict` does, and runs them."""
    paths: Iterator[Path] = cycle(files.paths)
    pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def read(path: Path) -> NDArray[np.uint8]:
        return decode(path, files.decode)

    def call() -> NDArray[np.float32]:
        chosen = [next(paths) for _ in range(files.batch)]
        return session.run(np.stack(list(pool.map(read, chosen) if pool else map(read, chosen))))

    return call


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    value = work()
    return time.perf_counter() - began, value
