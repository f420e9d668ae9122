"""Which of two candidates is faster: ratio, interval, and a tie where the difference could be chance.

The unit is the process, not the call: calls within a process resemble each other (same memory layout, same moment),
so thousands of them say little about the next process. Rounds are paired: both candidates run in every round, and
what a whole round shares, such as a machine that slows down, drops out of its ratio. The interval is Student's t on
the logarithms of the rounds' ratios.

A bootstrap over processes, then blocks of calls, was simulated beside it (`benchmarks/aa_comparison.py --simulate`).
It knows no pairs: where the machine becomes 30 % slower meanwhile it sees next to no difference of 10 % (this rule: 4
of 5), and with three processes it calls one copy in ten a difference.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.records.benchmarks import Basis, BenchRow, Comparison, Timing
from ttl_deploy.runtime.percentiles import mean_and_half_width
from ttl_deploy.runtime.steadiness import INCONCLUSIVE, waited_share

FASTER, SLOWER, TIE = "faster", "slower", "tie"
_SHARED = 0.02
_EXPLAINED = 0.9
_QUARTER = 0.25
_UNDISTURBED = 0.1
_NINETY_NINE = NormalDist().inv_cdf(0.995)


def compare_rows(rows: Sequence[BenchRow], *, first: int, second: int) -> Comparison:
    """Compare two rows of one benchmark by their positions."""
    one, other = rows[first], rows[second]
    basis, reason = choose_basis(one, other)
    logarithms = log_ratios(one, other, basis=basis)
    if len(logarithms) < 2:
        return Comparison(
            first=first,
            second=second,
            basis=basis,
            reason=reason,
            ratio=math.exp(float(logarithms.mean())) if len(logarithms) else 1.0,
            low=0.0,
            high=math.inf,
            floor=0.0,
            verdict=f"{INCONCLUSIVE}: fewer than two rounds hold both",
        )
    mean, half = mean_and_half_width(logarithms)
    low, high, floor = math.exp(mean - half), math.exp(mean + half), noise_floor(logarithms)
    return Comparison(
        first=first,
        second=second,
        basis=basis,
        reason=reason,
        ratio=math.exp(mean),
        low=low,
        high=high,
        floor=floor,
        verdict=decide(mean, half, floor),
    )


def compare_with_first(rows: Sequence[BenchRow]) -> tuple[Comparison, ...]:
    """Compare every row with the first one of the same batch size, mode and boundary."""
    leaders: dict[tuple[int, str, str], int] = {}
    found = []
    for position, row in enumerate(rows):
        leader = leaders.setdefault((row.batch, row.mode, row.boundary), position)
        if leader != position:
            found.append(compare_rows(rows, first=leader, second=position))
    return tuple(found)


def decide(mean: float, half: float, floor: float) -> str:
    """Say what a mean logarithm of ratios means, with half the width of its interval and the noise floor (a share).

    A difference needs both. Without one it is a tie only where the interval excludes differences of a quarter: a tie
    on a machine so disturbed that twice the time might go unseen would be a lie.
    """
    if abs(mean) > half and abs(mean) > math.log1p(floor):
        return FASTER if mean < 0 else SLOWER
    possible = math.expm1(abs(mean) + half)
    return TIE if possible <= _QUARTER else f"{INCONCLUSIVE}: a difference of {possible:.0%} is possible"


def noise_floor(logarithms: NDArray[np.float64]) -> float:
    """Return within which share of its middle 99 of 100 processes of one candidate lie, from the rounds' log ratios.

    A ratio holds the noise of two processes, whose standard deviation is √2 times that of one. What a whole round
    shares is not in it.
    """
    return math.expm1(_NINETY_NINE * float(np.std(logarithms, ddof=1)) / math.sqrt(2))


def log_ratios(one: BenchRow, other: BenchRow, *, basis: Basis) -> NDArray[np.float64]:
    """Return for each round that holds both the logarithm of the second's time over the first's."""
    before = {timing.round: time_of_process(timing, one, basis) for timing in one.timings}
    after = {timing.round: time_of_process(timing, other, basis) for timing in other.timings}
    return np.array([math.log(after[number] / before[number]) for number in sorted(before.keys() & after.keys())])


def time_of_process(timing: Timing, row: BenchRow, basis: Basis) -> float:
    """Return the seconds of a call in one process: the median call; in throughput mode all calls over their number.

    Of CPU time the tenth percentile is taken in both modes: whoever held the core before left cold caches behind,
    which only ever adds. On a machine with 9 programs for 2 cores the processes' medians differed by 8 % (one
    standard deviation), their tenth percentiles by less than 1 %.
    """
    if basis == "cpu":
        return float(np.quantile(timing.cpu_samples_s, _UNDISTURBED))
    if row.mode == "latency" or timing.contention is None:
        return float(np.median(timing.samples_s))
    return timing.contention.elapsed_s / len(timing.samples_s)


def choose_basis(one: BenchRow, other: BenchRow) -> tuple[Basis, str]:
    """Choose the clock: CPU time where the machine was shared and a call is one thread's computing, else wall time."""
    waits = [waited_share(row.timings, threads=row.threads * row.streams) for row in (one, other)]
    told = [wait for wait in waits if wait is not None]
    if not told:
        return "wall", "nobody counted how long we waited for a core"
    words = f"other programs kept us from the core for {max(told):.0%} of the time"
    if max(told) <= _SHARED:
        return "wall", words
    if one.threads > 1 or other.threads > 1:
        return "wall", f"{words}, but CPU time of several threads counts their waiting for each other"
    if min(_explained(row) for row in (one, other)) < _EXPLAINED:
        return "wall", f"{words}, but a call is more than one thread's computing"
    return "cpu", words


def _explained(row: BenchRow) -> float:
    """Return the share of the time in which our threads computed or waited for a core; the rest they slept."""
    known = [timing.contention for timing in row.timings if timing.contention is not None]
    spent = sum(one.cpu_s + (one.waited_s or 0.0) for one in known)
    return spent / (row.streams * sum(one.elapsed_s for one in known))
