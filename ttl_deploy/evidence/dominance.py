"""Who is on the front of one axis, and which of the others are clearly worse than somebody.

A score beats another by its value alone, a latency only beyond the noise of its measurement. What is beaten is off
the front; it is clearly worse where the paired difference in AUROC is sure as well.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from ttl_deploy.evidence import intervals
from ttl_deploy.evidence.intervals import LEVEL, Resampled
from ttl_deploy.records.scores import AXES, Axis, Dominated, PairedDifference
from ttl_deploy.records.trials import CutProfile

Key = TypeVar("Key", bound=Hashable)


def find_members(axis: Axis, costs: Mapping[Key, CutProfile], values: Mapping[Key, float]) -> frozenset[Key]:
    """Find the candidates on one axis: no member beats another, and every other one is beaten by a member.

    With exact costs this is the usual Pareto front. Ties under the noise floor are not transitive
    (a may tie b and b tie c, while c is faster than a), so a candidate is off only if one that is *on*
    beats it. Going through them best first makes that set unique: no worse one beats a better.
    """
    members: list[Key] = []
    for key in _best_first(axis, costs, values):
        if not any(_beats(axis, member, key, costs, values) for member in members):
            members.append(key)
    return frozenset(members)


def find_dominated(
    costs: Mapping[Key, CutProfile],
    values: Mapping[Key, float],
    members: Mapping[Axis, frozenset[Key]],
    resampled: Mapping[Key, Resampled],
    *,
    names: Mapping[Key, str],
    level: float = LEVEL,
) -> dict[Key, tuple[Dominated, ...]]:
    """Return for every candidate the axes on which it is clearly worse than another, with one that it is worse than.

    That is the first whose paired difference is sure: of the front's members the best, then of the others. Members
    themselves are clearly worse than nobody. A pair is compared once, and only until one is found.
    """
    known: dict[tuple[Key, Key], PairedDifference] = {}

    def subtract(key: Key, other: Key) -> PairedDifference:
        if (key, other) not in known:
            known[key, other] = intervals.subtract_resampled(
                resampled[key], resampled[other], reference=names[other], level=level
            )
        return known[key, other]

    def find(axis: Axis, key: Key, rivals: Sequence[Key]) -> Dominated | None:
        for rival in rivals:
            if values[rival] > values[key] and costs_no_more(axis, costs[rival], costs[key]):
                difference = subtract(key, rival)
                if difference.high < 0:
                    return Dominated(axis=axis, difference=difference)
        return None

    found: dict[Key, list[Dominated | None]] = {key: [] for key in costs}
    for axis in AXES:
        measured = _best_first(axis, costs, values)
        on = [key for key in measured if key in members[axis]]
        off = [key for key in measured if key not in members[axis]]
        for key in off:
            found[key].append(find(axis, key, (*on, *off)))
    return {key: tuple(one for one in of_axes if one is not None) for key, of_axes in found.items()}


def costs_no_more(axis: Axis, a: CutProfile, b: CutProfile) -> bool:
    """Tell whether a costs as much as b or less, or is slower by no more than the noise."""
    return _saved(axis, a, b) >= -_noise(axis, a, b)


def _best_first(axis: Axis, costs: Mapping[Key, CutProfile], values: Mapping[Key, float]) -> list[Key]:
    """Sort the candidates whose cost was measured by AUROC, and of equal ones the cheaper first."""
    measured = {key: cost for key, one in costs.items() if (cost := _cost(axis, one)) is not None}
    return sorted(measured, key=lambda key: (-values[key], measured[key]))


def _beats(axis: Axis, a: Key, b: Key, costs: Mapping[Key, CutProfile], values: Mapping[Key, float]) -> bool:
    """Tell whether a is as cheap and as good as b, and one of the two strictly."""
    if values[a] > values[b]:
        return costs_no_more(axis, costs[a], costs[b])
    return values[a] == values[b] and _saved(axis, costs[a], costs[b]) > _noise(axis, costs[a], costs[b])


def _saved(axis: Axis, a: CutProfile, b: CutProfile) -> float:
    return float(getattr(b, axis) - getattr(a, axis))


def _noise(axis: Axis, a: CutProfile, b: CutProfile) -> float:
    """Return the difference up to which two costs are ties; MACs and parameters are exact."""
    return max(a.latency_noise_s or 0.0, b.latency_noise_s or 0.0) if axis == "latency_s" else 0.0


def _cost(axis: Axis, cost: CutProfile) -> float | None:
    found: float | None = getattr(cost, axis)
    return found
