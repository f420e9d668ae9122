"""Whether a measurement may be trusted, with what was unsteady and what to do about it.

`noisy` figures are shown with a warning, `inconclusive` ones should not be used. A machine that others use is told
by the time our threads waited for a core: single calls may look fast between two such waits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ttl_deploy.records.benchmarks import Contention, Timing
from ttl_deploy.runtime.percentiles import coefficient_of_variation, median_of_medians

STABLE, NOISY, INCONCLUSIVE = "stable", "noisy", "inconclusive"
_STEADY_CALLS = 0.10
_SWITCHES_PER_S = 25.0
_MEASURE_LONGER = "measure for longer, or in more processes"
_CLOSE_PROGRAMS = "close other programs, or measure on a machine that nobody else uses"
_FIX_CLOCK = "fix the processor's clock and let it cool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One share that says how disturbed a measurement was; `what` is a sentence with a gap for it."""

    what: str
    share: float
    noisy: float
    hopeless: float
    remedy: str


def judge(timings: Sequence[Timing], *, kernels_s: Sequence[float], threads: int = 1) -> str:
    """Return `stable`, or `noisy: …` or `inconclusive: …` with what was unsteady and what to do.

    `kernels_s` are the times of the fixed matrix product before, between and after the processes; `threads` is how
    many a process kept busy. Unsteady single calls spoil the high percentiles only and make a row noisy at most.
    """
    crossed = [finding for finding in _findings(timings, kernels_s, threads) if finding.share > finding.noisy]
    words = [finding.what.format(f"{finding.share:.0%}") for finding in crossed]
    remedies = [finding.remedy for finding in crossed]
    if any(timing.settled is False for timing in timings):
        words.append("the warm-up ended before calls were steady")
        remedies.append(_MEASURE_LONGER)
    if len(timings) < 2:
        words.append("one round only, so the noise between processes is unknown")
        remedies.append(_MEASURE_LONGER)
    if not words:
        return STABLE
    word = INCONCLUSIVE if any(finding.share > finding.hopeless for finding in crossed) else NOISY
    todo = "; ".join(dict.fromkeys(remedies))
    return f"{word}: {'; '.join(words)}. {todo[0].upper()}{todo[1:]}"


def waited_share(timings: Sequence[Timing], *, threads: int) -> float | None:
    """Return the share of the time that other programs kept our threads from running; None where nobody counted."""
    known = [timing.contention for timing in timings if timing.contention is not None]
    shares = [_waited(one, threads) for one in known if one.elapsed_s > 0]
    told = [share for share in shares if share is not None]
    return sum(told) / len(told) if told else None


def _waited(contention: Contention, threads: int) -> float | None:
    """Return what the system counted; without it, the time off the core if something pushed us off it often."""
    if contention.waited_s is not None:
        return contention.waited_s / (contention.elapsed_s * threads)
    if contention.involuntary_switches is None or threads > 1:
        return None
    pushed = contention.involuntary_switches / contention.elapsed_s > _SWITCHES_PER_S
    return max(0.0, 1 - contention.cpu_s / contention.elapsed_s) if pushed else 0.0


def _findings(timings: Sequence[Timing], kernels_s: Sequence[float], threads: int) -> Iterator[Finding]:
    median, noise = median_of_medians(timings)
    variation = coefficient_of_variation([sample for timing in timings for sample in timing.samples_s])
    speed = max(kernels_s) / min(kernels_s) - 1
    known = [timing.contention for timing in timings if timing.contention is not None]
    waited = waited_share(timings, threads=threads)
    steal = _mean([one.steal_share for one in known])
    others = _mean([one.others_share for one in known])
    yield Finding(
        what="other programs kept us from the core {} of the time",
        share=waited or 0,
        noisy=0.02,
        hopeless=0.1,
        remedy=_CLOSE_PROGRAMS,
    )
    yield Finding(
        what="the hypervisor took {} of all cores", share=steal, noisy=0.01, hopeless=0.05, remedy=_CLOSE_PROGRAMS
    )
    yield Finding(
        what="other programs used {} of all cores",
        share=others,
        noisy=0.1,
        hopeless=float("inf"),
        remedy=_CLOSE_PROGRAMS,
    )
    yield Finding(what="rounds differ by {}", share=noise / median, noisy=0.05, hopeless=0.25, remedy=_MEASURE_LONGER)
    yield Finding(
        what="the machine's own speed changed by {}", share=speed, noisy=0.05, hopeless=0.25, remedy=_FIX_CLOCK
    )
    yield Finding(
        what="calls vary by {}", share=variation, noisy=_STEADY_CALLS, hopeless=float("inf"), remedy=_CLOSE_PROGRAMS
    )


def _mean(shares: Sequence[float | None]) -> float:
    told = [share for share in shares if share is not None]
    return sum(told) / len(told) if told else 0.0
