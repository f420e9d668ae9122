"""The Pareto front of validation AUROC against cost, one axis per kind of cost.

A search builds it in two steps, so that the test split is opened for as few models as possible:
`build_front` sees validation predictions only; `add_test_scores` then takes the test predictions of
the reference and of `pareto_members`, and can no longer change who is on the front.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import intervals, metrics
from ttl_deploy.evidence.intervals import LEVEL, REPLICATES, Resampled
from ttl_deploy.records.data import Split
from ttl_deploy.records.models import FULL
from ttl_deploy.records.scores import AXES, METRICS, Axis, Front, FrontPoint, Score
from ttl_deploy.records.trials import CutProfile, Profile

Predictions = Mapping[str, Mapping[int, ArrayLike]]
"""For every trained cut, for every seed, the probabilities `(N, C)` on one split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSplit:
    """Labels `(N,)` and patients `(N,)` of one split, in the order of its predictions."""

    split: Split
    labels: ArrayLike
    patients: ArrayLike


def build_front(
    profile: Profile,
    predictions: Predictions,
    validation: LabelledSplit,
    *,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Front:
    """Score every trained cut on the validation split and mark those on the front.

    `predictions` holds the cuts that finished, each with one or more seeds; the others of the
    profile are left out. Raises `DataError` where nothing was trained, a cut has no profile, or the
    AUROC is undefined on this split.
    """
    costs = _trained(profile, predictions)
    resampled = {
        cost.cut: _resample(predictions[cost.cut], validation, replicates=replicates, seed=seed) for cost in costs
    }
    values = {cost.cut: _auroc(resampled[cost.cut], validation.split) for cost in costs}
    best = min(costs, key=lambda cost: (-values[cost.cut], cost.macs)).cut
    members = {axis: _members(axis, costs, values) for axis in AXES}
    points = tuple(
        FrontPoint(
            cut=cost.cut,
            params=cost.params,
            macs=cost.macs,
            layers=cost.layers,
            params_share=cost.params_share,
            macs_share=cost.macs_share,
            latency_s=cost.latency_s,
            latency_noise_s=cost.latency_noise_s,
            validation=_scores(resampled[cost.cut], validation.split, level=level),
            test=(),
            seeds=tuple(predictions[cost.cut]),
            seed_values=tuple(
                metrics.evaluate("auroc", one, validation.labels).value for one in predictions[cost.cut].values()
            ),
            to_best=None
            if cost.cut == best
            else intervals.subtract_resampled(resampled[cost.cut], resampled[best], reference=best, level=level),
            on_front=tuple(axis for axis in AXES if cost.cut in members[axis]),
        )
        for cost in costs
    )
    return Front(best=best, reference=FULL if FULL in values else None, target=profile.target, points=points)


def add_test_scores(
    front: Front,
    predictions: Predictions,
    test: LabelledSplit,
    *,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Front:
    """Return the front with test scores for the cuts in `predictions`; nothing else changes.

    Raises `DataError` for a cut that is neither on the front nor the reference: the test split is
    not for looking around.
    """
    allowed = {*pareto_members(front), *([front.reference] if front.reference else [])}
    refused = sorted(set(predictions) - allowed)
    if refused:
        raise DataError(
            f"test predictions given for {', '.join(refused)}: "
            f"the test split is opened for {', '.join(sorted(allowed))} only"
        )
    scored = {
        cut: _scores(_resample(of_cut, test, replicates=replicates, seed=seed), test.split, level=level)
        for cut, of_cut in predictions.items()
    }
    points = tuple(replace(point, test=scored[point.cut]) if point.cut in scored else point for point in front.points)
    return replace(front, points=points)


def pareto_members(front: Front) -> tuple[str, ...]:
    """Return the cuts that are on the front of any axis, shallow to deep."""
    return tuple(point.cut for point in front.points if point.on_front)


def _trained(profile: Profile, predictions: Predictions) -> tuple[CutProfile, ...]:
    known = {cost.cut for cost in profile.cuts}
    unknown = sorted(set(predictions) - known)
    if unknown:
        raise DataError(f"no profile for {', '.join(unknown)}: profiled are {', '.join(sorted(known))}")
    trained = tuple(cost for cost in profile.cuts if predictions.get(cost.cut))
    if not trained:
        raise DataError("no trial has finished, so there is no front: see the failures in the ledger")
    return trained


def _resample(of_cut: Mapping[int, ArrayLike], truth: LabelledSplit, *, replicates: int, seed: int) -> Resampled:
    stacked: NDArray[np.float64] = np.stack([np.asarray(one, dtype=np.float64) for one in of_cut.values()])
    return intervals.resample(stacked, truth.labels, truth.patients, replicates=replicates, seed=seed)


def _scores(resampled: Resampled, split: Split, *, level: float) -> tuple[Score, ...]:
    return tuple(intervals.score_resampled(resampled, metric, split=split, level=level) for metric in METRICS)


def _auroc(resampled: Resampled, split: Split) -> float:
    evaluation = resampled.evaluations["auroc"]
    if evaluation.value is None:
        raise DataError(
            f"the {split} split has no AUROC ({evaluation.reason}): give every class at least one image in it"
        )
    return evaluation.value


def _members(axis: Axis, costs: tuple[CutProfile, ...], values: Mapping[str, float]) -> frozenset[str]:
    """Find the cuts on one axis: no member beats another, and every other cut is beaten by a member.

    With exact costs this is the usual Pareto front. Ties under the noise floor are not transitive
    (a may tie b and b tie c, while c is faster than a), so a cut is off only if a cut that is *on*
    beats it. Going through the cuts best first makes that set unique: no worse cut beats a better.
    """
    measured = [cost for cost in costs if getattr(cost, axis) is not None]
    members: list[CutProfile] = []
    for cost in sorted(measured, key=lambda one: (-values[one.cut], getattr(one, axis))):
        if not any(_beats(axis, member, cost, values) for member in members):
            members.append(cost)
    return frozenset(member.cut for member in members)


def _beats(axis: Axis, a: CutProfile, b: CutProfile, values: Mapping[str, float]) -> bool:
    """Tell whether a is as cheap and as good as b, and one of the two strictly."""
    tie = max(a.latency_noise_s or 0.0, b.latency_noise_s or 0.0) if axis == "latency_s" else 0.0
    saved = getattr(b, axis) - getattr(a, axis)
    better, as_good = values[a.cut] > values[b.cut], values[a.cut] >= values[b.cut]
    return (saved >= -tie and better) or (saved > tie and as_good)
