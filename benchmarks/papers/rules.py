"""The rules by which claims are judged: paired differences against the margin, and steps until a goal."""

from collections.abc import Callable, Sequence
from typing import Literal

from outcomes import Outcome, Row

from ttl_deploy.records.scores import PairedDifference

Verdict = Literal["agrees", "does not agree", "cannot be told"]
Seen = tuple[str, Verdict]
"""What was seen, in words, and the verdict."""
MARGIN = 0.02
"""A difference of AUROC that matters, as in the searches."""
NEARLY = (0.91 - 0.5) / (0.967 - 0.5)
"""TransFusion counts the steps until a test AUC of .91, where transfer ends at .967: that share of the way from 0.5."""
POINTS = f"{100 * MARGIN:g} points"
EQUAL = f"the paired 95 % interval lies within ±{POINTS} in every split; all outside does not agree"
LOW = f"the paired 95 % interval lies below 0 in every split, and not all of it above -{POINTS}, which does not agree"
NOT_WORSE = f"the paired 95 % interval lies above -{POINTS} in every split; all below does not agree"
ABOVE = "the paired 95 % interval lies above 0 in every split; all below 0 does not agree"


def is_equal(found: Outcome, ours: Row, other: Row) -> Seen:
    """Judge whether two are equal within the margin."""
    return _judge(
        found.compare(ours, other),
        agrees=lambda one: one.low > -MARGIN and one.high < MARGIN,
        refutes=lambda one: one.high < -MARGIN or one.low > MARGIN,
    )


def is_not_worse(found: Outcome, ours: Row, other: Row) -> Seen:
    """Judge whether one loses at most the margin against another."""
    differences = found.compare(ours, other)
    return _judge(differences, agrees=lambda one: one.low > -MARGIN, refutes=lambda one: one.high < -MARGIN)


def is_below(found: Outcome, lower: Row, higher: Row) -> Seen:
    """Judge whether one is below another; against it speaks that a loss of the margin is excluded."""
    differences = found.compare(lower, higher)
    return _judge(differences, agrees=lambda one: one.high < 0, refutes=lambda one: one.low > -MARGIN)


def is_above(found: Outcome, ours: Row, other: Row) -> Seen:
    """Judge whether one is better than another, by however little."""
    return _judge(found.compare(ours, other), agrees=lambda one: one.low > 0, refutes=lambda one: one.high < 0)


def _judge(
    differences: Sequence[PairedDifference],
    *,
    agrees: Callable[[PairedDifference], bool],
    refutes: Callable[[PairedDifference], bool],
) -> Seen:
    """Judge by what holds of the difference in every split; where both hold, the claim does not agree."""
    verdict: Verdict = "cannot be told"
    if all(map(refutes, differences)):
        verdict = "does not agree"
    elif all(map(agrees, differences)):
        verdict = "agrees"
    return f"difference {tell(differences)}", verdict


def goal_of(rows: Sequence[Row]) -> float:
    """Return the validation AUROC until which learning is timed."""
    best = max((value for row in rows for curve in row.curves for value in curve if value == value), default=1.0)
    return 0.5 + NEARLY * (best - 0.5)


def faster(quick: Row, slow: Sequence[Row], goal: float) -> Seen:
    """Judge whether one reaches the goal in fewer steps than each of others; what is equal cannot be told."""
    mine, others = quick.epochs_until(goal), [row.epochs_until(goal) for row in slow]
    told = ", ".join(f"{_name(row)} {tell_steps(row, goal)}" for row in (quick, *slow))
    seen = f"until a validation AUROC of {100 * goal:.1f}: {told}"
    if mine is None:
        return seen, "cannot be told" if None in others else "does not agree"
    if all(at is None or mine < at for at in others):
        return seen, "agrees"
    return seen, "cannot be told" if all(at is None or mine <= at for at in others) else "does not agree"


def is_about_as_fast(ours: Row, other: Row, goal: float) -> Seen:
    """Judge whether one reaches the goal with at most an epoch, or half as many steps, more than another."""
    mine, theirs = ours.epochs_until(goal), other.epochs_until(goal)
    seen = ", ".join(f"{_name(row)} {tell_steps(row, goal)}" for row in (ours, other))
    seen = f"until a validation AUROC of {100 * goal:.1f}: {seen}"
    if theirs is None:
        return seen, "cannot be told"
    return seen, "agrees" if mine is not None and mine <= max(theirs + 1, 1.5 * theirs) else "does not agree"


def tell_steps(row: Row, goal: float) -> str:
    """Say after how many steps a row's validation first reaches a goal, as far as epochs let it be known."""
    epochs = row.epochs_until(goal)
    if epochs is None:
        most = max((len(curve) for curve in row.curves), default=0)
        return f"not in {most * row.steps:,.0f} steps" if most else "not known"
    return f"{max(epochs - 1, 0) * row.steps:,.0f} to {epochs * row.steps:,.0f} steps"


def _name(row: Row) -> str:
    """Return the paper's name, or of a CBR network, which need not be the paper's, its own."""
    if row.entrant.backbone.startswith("cbr:"):
        return f"{row.entrant.backbone} by {row.entrant.strategy}"
    return row.entrant.name or row.entrant.cut


def tell(differences: Sequence[PairedDifference]) -> str:
    """Write differences with their intervals in points, one per split."""
    return "; ".join(f"{100 * one.value:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]" for one in differences)
