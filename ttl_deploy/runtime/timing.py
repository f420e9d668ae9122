"""Latency samples and what may be said of them: percentiles with intervals, noise, a verdict.

Nothing is clipped and warm-up never enters a statistic.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.records.benchmarks import Percentile, Timing

PERCENTS = (50.0, 90.0, 99.0)
_LEVEL = 0.95
_OVERRUN = 0.01
_STEADY_CALLS = 0.10
_STEADY_SPREAD = 0.05
_HOPELESS_SPREAD = 0.25
INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingPlan:
    """How long one process measures: at least so many seconds *and* so many calls, warm-up first."""

    seconds: float
    calls: int = 5
    warmup_seconds: float = 0.2
    warmup_calls: int = 5


def time_calls(call: Callable[[], object], plan: TimingPlan, *, round_number: int, load_s: float) -> Timing:
    """Time repeated calls in this process, wall clock and CPU time of all its threads."""
    warmup, _ = _samples(call, seconds=plan.warmup_seconds, calls=plan.warmup_calls)
    wall, cpu = _samples(call, seconds=plan.seconds, calls=plan.calls)
    return Timing(round=round_number, load_s=load_s, warmup_s=warmup, samples_s=wall, cpu_samples_s=cpu)


def _samples(call: Callable[[], object], *, seconds: float, calls: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    wall: list[float] = []
    cpu: list[float] = []
    end = time.perf_counter_ns() + round(seconds * 1e9)
    while len(wall) < calls or time.perf_counter_ns() < end:
        cpu_start, start = time.process_time_ns(), time.perf_counter_ns()
        call()
        stop, cpu_stop = time.perf_counter_ns(), time.process_time_ns()
        wall.append((stop - start) / 1e9)
        cpu.append((cpu_stop - cpu_start) / 1e9)
    return tuple(wall), tuple(cpu)


def samples_needed(percent: float) -> int:
    """Return the fewest samples from which a percentile may be reported: 11, 64, 130, 662 for p50 … p99.

    The smallest n with p^n + n·p^(n−1)·(1−p) ≤ 0.01: MLPerf's early-stopping rule with one allowed overrun.
    """
    p, n = percent / 100, 1
    while p**n + n * p ** (n - 1) * (1 - p) > _OVERRUN:
        n += 1
    return n


def percentile(samples_s: Sequence[float], percent: float) -> Percentile:
    """Return a percentile (nearest rank) with its distribution-free 95 % interval from order statistics.

    All values are None where there are fewer samples than `samples_needed(percent)`.
    """
    n = len(samples_s)
    if n < samples_needed(percent):
        return Percentile(percent=percent, value_s=None, low_s=None, high_s=None)
    ordered = sorted(samples_s)
    low, high = _interval_ranks(n, percent / 100)
    rank = max(1, math.ceil(n * percent / 100 - 1e-9))
    return Percentile(
        percent=percent,
        value_s=ordered[rank - 1],
        low_s=ordered[low - 1] if low else None,
        high_s=ordered[high - 1] if high else None,
    )


def _interval_ranks(n: int, p: float) -> tuple[int | None, int | None]:
    """Return the ranks (from 1) whose samples enclose the p-quantile; None where no sample is far enough out.

    The number B of samples below the quantile is binomial(n, p). x_(l) lies above it with
    probability P(B ≤ l − 1), x_(u) below it with probability P(B ≥ u); each may be 2.5 %.
    """
    below = np.cumsum(_binomial(n, p))
    tail = (1 - _LEVEL) / 2
    low = int(np.searchsorted(below, tail, side="right"))
    high = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    return (low if low >= 1 else None), (high if high <= n else None)


def _binomial(n: int, p: float) -> NDArray[np.float64]:
    """Return the probabilities of 0 … n successes in n trials."""
    k = np.arange(1, n + 1)
    log_choose = np.concatenate([[0.0], np.cumsum(np.log(n - k + 1) - np.log(k))])
    successes = np.arange(n + 1)
    logarithm = log_choose + successes * math.log(p) + (n - successes) * math.log1p(-p)
    return np.asarray(np.exp(logarithm), dtype=np.float64)


def median_of_medians(timings: Sequence[Timing]) -> tuple[float, float]:
    """Return the median of the rounds' medians, and the noise: the distance between their extremes (seconds)."""
    medians = [float(np.median(timing.samples_s)) for timing in timings]
    return float(np.median(medians)), max(medians) - min(medians)


def coefficient_of_variation(samples_s: Sequence[float]) -> float:
    """Return the standard deviation of the samples as a share of their mean."""
    return float(np.std(samples_s) / np.mean(samples_s))


def judge(timings: Sequence[Timing], *, calibration_before_s: float, calibration_after_s: float) -> str:
    """Return `stable`, or `noisy: …` or `inconclusive: …` with what was unsteady and what to do.

    Unsteady single calls spoil the high percentiles only and make a row noisy. The median is judged
    by how far the rounds' medians lie apart, and by the machine's own speed before and after: from
    25 % on, the row is inconclusive.
    """
    median, noise = median_of_medians(timings)
    variation = coefficient_of_variation([sample for timing in timings for sample in timing.samples_s])
    change = max(calibration_before_s, calibration_after_s) / min(calibration_before_s, calibration_after_s) - 1
    spreads = {"rounds differ": noise / median, "the machine's own speed changed": change}
    findings = [f"{what} by {share:.0%}" for what, share in spreads.items() if share > _STEADY_SPREAD]
    if variation > _STEADY_CALLS:
        findings.append(f"calls vary by {variation:.0%}")
    if len(timings) < 2:
        findings.append("one round only, so the noise between processes is unknown")
    if not findings:
        return "stable"
    word = INCONCLUSIVE if max(spreads.values()) > _HOPELESS_SPREAD else "noisy"
    return f"{word}: {'; '.join(findings)}. Close other programs, or measure for longer"
