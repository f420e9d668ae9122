"""What may be said of latency samples: percentiles with intervals, the middle of several processes, their spread.

Nothing is clipped.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.records.benchmarks import Percentile, Timing

PERCENTS = (50.0, 90.0, 99.0)
_LEVEL = 0.95
_OVERRUN = 0.01
_GRID = 200_001
_FARTHEST = 100.0
"""Far enough for the 97.5 % point of every Student distribution: 12.7 with one degree of freedom."""


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


def interval_over_processes(medians_s: Sequence[float]) -> tuple[float, float]:
    """Return a 95 % interval of the processes' common median: Student's t on the logarithms of their medians.

    The process is the unit: calls within one resemble each other, and many of them tell little about the next
    process. Raises `ValueError` for fewer than two.
    """
    mean, half = mean_and_half_width(np.log(np.asarray(medians_s, dtype=np.float64)))
    return math.exp(mean - half), math.exp(mean + half)


def mean_and_half_width(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the mean of independent values, and half the width of its 95 % interval by Student's t."""
    if len(values) < 2:
        raise ValueError(f"{len(values)} values: an interval needs at least 2")
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)), student_quantile(len(values) - 1) * error


@lru_cache
def student_quantile(degrees: int) -> float:
    """Return the 97.5 % point of Student's t distribution; its density is summed by the trapezoidal rule."""
    points = np.linspace(0.0, _FARTHEST, _GRID)
    logarithm = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
    density = np.exp(logarithm - (degrees + 1) / 2 * np.log1p(points**2 / degrees))
    below = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)]) * (points[1] - points[0])
    return float(np.interp(_LEVEL / 2, below, points))
