"""Latency samples of one process: warm-up until steady and kept apart, then raw samples of wall and CPU time.

Nothing is clipped and warm-up never enters a statistic.
"""

import threading
import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ttl_deploy.records.benchmarks import Timing

_BLOCK_CALLS = 5
_BLOCK_S = 0.1
_BLOCKS = 3
_AGREE = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPlan:
    """How long one process measures: at least so many seconds *and* so many calls, within a limit of seconds.

    Warm-up lasts at least so many seconds and calls. With a `warmup_limit_s` it goes on until the calls are
    steady, at most so long.
    """

    seconds: float
    calls: int = 5
    limit_s: float = float("inf")
    warmup_seconds: float = 0.2
    warmup_calls: int = 5
    warmup_limit_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Seconds of each call by two clocks, and of all calls together from the first start to the last end."""

    wall_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    elapsed_s: float


def time_calls(call: Callable[[], object], plan: TimingPlan, *, round_number: int, load_s: float) -> Timing:
    """Warm up and time repeated calls in this process, wall clock and CPU time of all its threads."""
    warmup, settled = warm_up(call, plan)
    samples = sample(call, plan)
    return Timing(
        round=round_number,
        load_s=load_s,
        warmup_s=warmup,
        samples_s=samples.wall_s,
        cpu_samples_s=samples.cpu_s,
        settled=settled,
    )


def warm_up(call: Callable[[], object], plan: TimingPlan) -> tuple[tuple[float, ...], bool | None]:
    """Call until the plan's warm-up is over; returns the calls' seconds, and whether they became steady.

    They are steady once the medians of the last three blocks (at least 5 calls and 0.1 s each) agree within
    3 %. None where the plan does not ask.
    """
    first = _sample(call, seconds=plan.warmup_seconds, calls=plan.warmup_calls, limit_s=float("inf"))
    if plan.warmup_limit_s is None:
        return first.wall_s, None
    warmup, medians, spent_s = list(first.wall_s), list[float](), first.elapsed_s
    while spent_s < plan.warmup_limit_s:
        block = _sample(call, seconds=_BLOCK_S, calls=_BLOCK_CALLS, limit_s=plan.warmup_limit_s - spent_s)
        warmup += block.wall_s
        spent_s += block.elapsed_s
        medians.append(float(np.median(block.wall_s)))
        if are_steady(medians):
            return tuple(warmup), True
    return tuple(warmup), False


def are_steady(medians: Sequence[float]) -> bool:
    """Tell whether the last three of these agree within 3 %."""
    last = medians[-_BLOCKS:]
    return len(last) == _BLOCKS and max(last) <= (1 + _AGREE) * min(last)


def sample(call: Callable[[], object], plan: TimingPlan) -> Samples:
    """Time calls as the plan says: wall clock, and CPU time of all threads of this process."""
    return _sample(call, seconds=plan.seconds, calls=plan.calls, limit_s=plan.limit_s)


def sample_streams(calls: Sequence[Callable[[], object]], plan: TimingPlan) -> Samples:
    """Time several streams of calls at once, each in a thread of its own; CPU time is that of the stream's thread.

    All begin together, and stop together when there are enough seconds and calls of all streams, so that no stream
    runs alone for long. An error in one stream ends all, and is raised.
    """
    flow = _Flow(calls, plan)
    with ThreadPoolExecutor(len(calls)) as pool:
        ends = [pool.submit(flow.run, number) for number in range(len(calls))]
    for end in ends:
        end.result()
    return flow.samples()


class _Flow:
    """What the threads of `sample_streams` share."""

    def __init__(self, calls: Sequence[Callable[[], object]], plan: TimingPlan) -> None:
        self._calls = calls
        self._plan = plan
        self._gate = threading.Barrier(len(calls))
        self._wall = [array("d") for _ in calls]
        self._cpu = [array("d") for _ in calls]
        self._spans: list[tuple[float, float]] = []
        self._over = False

    def run(self, number: int) -> None:
        call, wall, cpu = self._calls[number], self._wall[number], self._cpu[number]
        self._gate.wait()
        began = now = time.perf_counter()
        try:
            while not self._over:
                cpu_start = time.thread_time_ns()
                call()
                end = time.perf_counter()
                wall.append(end - now)
                cpu.append((time.thread_time_ns() - cpu_start) / 1e9)
                now = end
                if self._is_enough(now - began):
                    self._over = True  # only ever set: another stream may have ended all meanwhile
        finally:
            self._over = True
        self._spans.append((began, now))

    def samples(self) -> Samples:
        return Samples(
            wall_s=tuple(value for stream in self._wall for value in stream),
            cpu_s=tuple(value for stream in self._cpu for value in stream),
            elapsed_s=max(end for _, end in self._spans) - min(began for began, _ in self._spans),
        )

    def _is_enough(self, spent_s: float) -> bool:
        enough = spent_s >= self._plan.seconds and sum(map(len, self._wall)) >= self._plan.calls
        return enough or spent_s >= self._plan.limit_s


def _sample(call: Callable[[], object], *, seconds: float, calls: int, limit_s: float) -> Samples:
    """Call at least once, and until there were enough seconds and calls, or the limit is over."""
    wall, cpu = array("d"), array("d")
    begin = stop = time.perf_counter_ns()
    end, limit = begin + round(seconds * 1e9), begin + limit_s * 1e9
    while not wall or ((len(wall) < calls or stop < end) and stop < limit):
        cpu_start, start = time.process_time_ns(), time.perf_counter_ns()
        call()
        stop, cpu_stop = time.perf_counter_ns(), time.process_time_ns()
        wall.append((stop - start) / 1e9)
        cpu.append((cpu_stop - cpu_start) / 1e9)
    return Samples(wall_s=tuple(wall), cpu_s=tuple(cpu), elapsed_s=(stop - begin) / 1e9)
