"""Which candidate to ship: a stated rule, applied to validation scores and costs; the test split is not read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ttl_deploy.errors import InfeasibleError, UsageError
from ttl_deploy.records.scores import Axis, Choice, Front, FrontPoint, PickRule, Score
from ttl_deploy.records.trials import CutProfile

_WITHIN = (
    "of those that validation cannot tell from the best: "
    "the interval of the paired difference in AUROC to it reaches zero"
)
RULE_WORDS: dict[PickRule, str] = {
    "smallest-within-interval": f"takes the one with the fewest MACs {_WITHIN}",
    "fastest-within-interval": f"takes the one with the lowest latency {_WITHIN}",
    "best": "takes the one with the highest validation AUROC, whatever it costs",
}
"""What each rule does, as the end of a sentence that begins with its name."""
LIMITS_WORDS = (
    "Limits (--max-latency, --max-params, --max-macs) come first: what is over one of them is out, however good it is. "
    "Where all that are as good as the best are over a limit, the best within the limits is taken."
)
_REMEDY = "Raise the limit or search shallower cuts"
Costed = FrontPoint | CutProfile
"""A cut with its costs, before or after training."""
AnyCosted = TypeVar("AnyCosted", FrontPoint, CutProfile)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    axis: Axis
    most: float

    def excess(self, point: Costed) -> float:
        """Return by which factor a cut's cost passes the limit; infinite where it was not measured."""
        cost = getattr(point, self.axis)
        return float("inf") if cost is None else cost / self.most

    def __str__(self) -> str:
        return f"at most {_cost(self.axis, self.most)}"


def choose(
    front: Front,
    rule: PickRule,
    *,
    max_latency_s: float | None = None,
    max_params: int | None = None,
    max_macs: int | None = None,
) -> Choice:
    """Choose the candidate to ship among those that meet the limits, and the seed with its best validation AUROC.

    `best` takes the highest validation AUROC. The two others stay among the candidates whose paired
    difference to the best of the whole front may still be zero or more, and take the one with the
    fewest MACs, or the lowest latency (not measured comes last); strategies cost the same, so of one
    cut's the best is taken. Where none of them meets the limits, the best of those that do is taken,
    and the sentence says so. A cut whose latency was not measured never meets a latency limit. Raises
    `InfeasibleError` naming the nearest cut where none meets the limits, `UsageError` for a limit that
    is not positive.
    """
    limits = _limits(max_latency_s=max_latency_s, max_params=max_params, max_macs=max_macs)
    candidates = _feasible(front.points, limits)
    within = [point for point in candidates if is_within_interval(point)]
    picked = _pick(candidates, within, rule)
    return Choice(
        cut=picked.cut,
        strategy=picked.strategy,
        seed=_best_seed(picked),
        rule=rule,
        max_latency_s=max_latency_s,
        max_params=max_params,
        max_macs=max_macs,
        sentence=" ".join(_explain(front, picked, rule, limits, candidates=len(candidates), within=len(within))),
    )


def check_feasible(
    costs: Sequence[CutProfile],
    *,
    max_latency_s: float | None = None,
    max_params: int | None = None,
    max_macs: int | None = None,
    remedy: str = "",
) -> None:
    """Raise `InfeasibleError` where no cut meets the limits: known before any training; `remedy` ends its message."""
    limits = _limits(max_latency_s=max_latency_s, max_params=max_params, max_macs=max_macs)
    _feasible(costs, limits, remedy=remedy)


def over_limits(
    costs: Sequence[CutProfile],
    *,
    max_latency_s: float | None = None,
    max_params: int | None = None,
    max_macs: int | None = None,
) -> dict[str, str]:
    """Return the cuts that pass a limit, each with the costs that do: `7.3 ms per image (46 % over)`."""
    limits = _limits(max_latency_s=max_latency_s, max_params=max_params, max_macs=max_macs)
    return {cost.cut: " and ".join(over) for cost in costs if (over := _name_excesses(cost, limits))}


def is_tie(a: CutProfile, b: CutProfile) -> bool:
    """Tell whether two measured latencies differ by no more than the noise of either."""
    if a.latency_s is None or b.latency_s is None:
        return False
    return abs(a.latency_s - b.latency_s) <= max(a.latency_noise_s or 0.0, b.latency_noise_s or 0.0)


def _feasible(cuts: Sequence[AnyCosted], limits: tuple[_Limit, ...], *, remedy: str = "") -> list[AnyCosted]:
    found = [cut for cut in cuts if all(limit.excess(cut) <= 1 for limit in limits)]
    if not found:
        raise InfeasibleError(_name_nearest(cuts, limits, remedy or _REMEDY))
    return found


def is_within_interval(point: FrontPoint) -> bool:
    """Tell whether the point is the best or cannot be told apart from it: the difference may be zero."""
    return point.to_best is None or point.to_best.high >= 0


def _limits(*, max_latency_s: float | None, max_params: int | None, max_macs: int | None) -> tuple[_Limit, ...]:
    given: dict[Axis, float | None] = {"latency_s": max_latency_s, "params": max_params, "macs": max_macs}
    for axis, most in given.items():
        if most is not None and not most > 0:
            raise UsageError(f"the limit on {_WORDS[axis]} is {most}: give a number above 0, or leave it out")
    return tuple(_Limit(axis=axis, most=most) for axis, most in given.items() if most is not None)


def _pick(candidates: list[FrontPoint], within: list[FrontPoint], rule: PickRule) -> FrontPoint:
    if rule == "best" or not within:
        return min(candidates, key=lambda point: (-_auroc_value(point), point.macs))
    if rule == "smallest-within-interval":
        return min(within, key=lambda point: (point.macs, -_auroc_value(point)))
    return min(within, key=lambda point: (_latency(point), point.macs, -_auroc_value(point)))


def _latency(point: Costed) -> float:
    return float("inf") if point.latency_s is None else point.latency_s


def _best_seed(point: FrontPoint) -> int:
    values = [-1.0 if value is None else value for value in point.seed_values]
    return point.seeds[values.index(max(values))]


def _name_nearest(cuts: Sequence[Costed], limits: tuple[_Limit, ...], remedy: str) -> str:
    """Say that no cut meets the limits, with what is possible: on one axis its best cut, on several the nearest."""
    latency = [limit for limit in limits if limit.axis == "latency_s"]
    if latency and all(cut.latency_s is None for cut in cuts):
        return f"no cut has {_join(limits)}: no latency was measured. Profile the cuts first, or leave out that limit"
    nearest = min(cuts, key=lambda cut: max(limit.excess(cut) for limit in limits))
    over = " and ".join(_name_excesses(nearest, limits))
    if len(limits) == 1:
        meets, best, costs = _SUPERLATIVES[limits[0].axis]
        return f"no cut {meets} {_join(limits)}: the {best}, {nearest.cut}, {costs} {over}. {remedy}"
    fastest = min(cuts, key=_latency) if latency else None
    other = f"; the fastest, {fastest.cut}, takes {_cost('latency_s', _latency(fastest))}" if fastest else ""
    return f"no cut has {_join(limits)}: the nearest is {nearest.cut} with {over}{other}. {remedy}"


def _join(limits: tuple[_Limit, ...]) -> str:
    return " and ".join(str(limit) for limit in limits)


def _name_excesses(cut: Costed, limits: tuple[_Limit, ...]) -> list[str]:
    return [_name_excess(cut, limit) for limit in limits if limit.excess(cut) > 1]


def _name_excess(cut: Costed, limit: _Limit) -> str:
    cost = getattr(cut, limit.axis)
    return "no latency" if cost is None else f"{_cost(limit.axis, cost)} ({_over(limit.excess(cut))})"


def _explain(
    front: Front, picked: FrontPoint, rule: PickRule, limits: tuple[_Limit, ...], *, candidates: int, within: int
) -> list[str]:
    total = len(front.points)
    among = f"{total} trained {_kind(front)}{'s' * (total != 1)}"
    if limits:
        among = f"{_kind(front)}s with {_join(limits)} ({candidates} of {total} trained)"
    return [_state_rule(front, picked, rule, among, within=within), *_state_difference(picked), _state_cost(picked)]


def _state_rule(front: Front, picked: FrontPoint, rule: PickRule, among: str, *, within: int) -> str:
    auroc = _state_auroc(_auroc(picked))
    if rule != "best" and not within:
        return (
            f"None of the {among} lies within the interval of the best {_kind(front)} {front.best}, "
            f"so {picked.name} was taken, the one with the highest validation AUROC among them: {auroc}."
        )
    if rule == "best":
        return f"{picked.name} has the highest validation AUROC of the {among}: {auroc}."
    smaller, smallest = ("smaller", "smallest") if rule == "smallest-within-interval" else ("faster", "fastest")
    if picked.to_best is None:
        return (
            f"{picked.name} is the best {_kind(front)}, and no {smaller} one of the {among} "
            f"lies within its interval: validation AUROC {auroc}."
        )
    return (
        f"{picked.name} is the {smallest} of the {among} that cannot be told apart "
        f"from the best, {front.best}: validation AUROC {auroc}."
    )


def _kind(front: Front) -> str:
    """Return what the points of a front are: with one strategy they differ by their cut only."""
    return "cut" if len(front.strategies) == 1 else "candidate"


def _state_difference(picked: FrontPoint) -> list[str]:
    to_best = picked.to_best
    if to_best is None:
        return []
    return [
        f"Its difference to {to_best.reference} is {to_best.value:+z.3f} "
        f"[{to_best.low:+z.3f}, {to_best.high:+z.3f}] ({100 * to_best.level:g} % interval, paired by patient)."
    ]


def _state_cost(picked: FrontPoint) -> str:
    cost = (
        f"It needs {100 * picked.macs_share:.3g} % of the full network's MACs and "
        f"{100 * picked.params_share:.3g} % of its parameters"
    )
    if picked.latency_s is None:
        return f"{cost}."
    return f"{cost}, and takes {_cost('latency_s', picked.latency_s)}."


def _state_auroc(score: Score) -> str:
    if score.low is None or score.high is None:
        return f"{score.value:.3f} ({score.method})"
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def _auroc(point: FrontPoint) -> Score:
    return next(score for score in point.validation if score.metric == "auroc")


def _auroc_value(point: FrontPoint) -> float:
    value = _auroc(point).value
    return -1.0 if value is None else value


_WORDS: dict[Axis, str] = {"macs": "MACs", "params": "parameters", "latency_s": "latency"}
_SUPERLATIVES: dict[Axis, tuple[str, str, str]] = {
    "macs": ("needs", "cheapest", "needs"),
    "params": ("has", "smallest", "has"),
    "latency_s": ("answers in", "fastest", "takes"),
}


def _cost(axis: Axis, cost: float) -> str:
    if axis == "latency_s":
        return f"{_round(1e3 * cost)} ms per image"
    for size, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if cost >= size:
            return f"{_round(cost / size)}{prefix} {_WORDS[axis]}"
    return f"{cost:.0f} {_WORDS[axis]}"


def _over(excess: float) -> str:
    return f"{100 * (excess - 1):.3g} % over" if excess < 2 else f"{_round(excess)} times as much"


def _round(value: float) -> str:
    """Write three significant digits, never as a power of ten below a million."""
    return f"{float(f'{value:.3g}'):g}"
