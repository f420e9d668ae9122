"""The Pareto front of validation AUROC against cost, one axis per kind of cost.

A search builds it in two steps, so that the test split is opened for as few models as possible:
`build_front` sees validation predictions only; `add_test_scores` then takes the test predictions of
the reference and of `pareto_members`, and can no longer change who is on the front.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import intervals, metrics
from ttl_deploy.evidence.intervals import LEVEL, REPLICATES, Resampled
from ttl_deploy.records.candidates import Candidate, name_candidate, name_candidates
from ttl_deploy.records.data import Split
from ttl_deploy.records.models import FULL
from ttl_deploy.records.scores import AXES, Axis, Front, FrontPoint, Score
from ttl_deploy.records.trials import CutProfile, Profile

Predictions = Mapping[Candidate, Mapping[int, ArrayLike]]
"""For every trained candidate, for every seed, the probabilities `(N, C)` on one split."""
Key = TypeVar("Key", bound=Hashable)


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
    strategies: Sequence[str] = (),
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Front:
    """Score every trained candidate on the validation split and mark those on the front.

    `predictions` holds the candidates that finished, each with one or more seeds; other cuts of the
    profile are left out. `strategies` is the order in which those of one cut stand, others behind them.
    Raises `DataError` where nothing was trained, a cut has no profile, or the AUROC is undefined on
    this split.
    """
    costs = _trained(profile, predictions, strategies)
    resampled = {
        candidate: _resample(predictions[candidate], validation, replicates=replicates, seed=seed)
        for candidate in costs
    }
    values = {candidate: _auroc(resampled[candidate], validation.split) for candidate in costs}
    names = name_candidates(costs)
    best = min(costs, key=lambda candidate: (-values[candidate], costs[candidate].macs))
    members = {axis: _members(axis, costs, values) for axis in AXES}
    points = tuple(
        FrontPoint(
            name=names[candidate],
            cut=candidate.cut,
            strategy=candidate.strategy,
            params=cost.params,
            macs=cost.macs,
            layers=cost.layers,
            params_share=cost.params_share,
            macs_share=cost.macs_share,
            latency_s=cost.latency_s,
            latency_noise_s=cost.latency_noise_s,
            validation=_scores(resampled[candidate], validation.split, level=level),
            test=(),
            seeds=tuple(predictions[candidate]),
            seed_values=tuple(
                metrics.evaluate("auroc", one, validation.labels).value for one in predictions[candidate].values()
            ),
            to_best=None
            if candidate == best
            else intervals.subtract_resampled(
                resampled[candidate], resampled[best], reference=names[best], level=level
            ),
            on_front=tuple(axis for axis in AXES if candidate in members[axis]),
        )
        for candidate, cost in costs.items()
    )
    reference = _find_reference(values)
    return Front(
        best=names[best],
        reference=None if reference is None else names[reference],
        target=profile.target,
        points=points,
    )


def add_test_scores(
    front: Front,
    predictions: Predictions,
    test: LabelledSplit,
    *,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Front:
    """Return the front with test scores for the candidates in `predictions`; nothing else changes.

    Raises `DataError` for a candidate that is neither on the front nor the reference: the test split is
    not for looking around.
    """
    names = name_candidates(point.candidate for point in front.points)
    allowed = {*pareto_members(front), *([front.reference] if front.reference else [])}
    asked = {names.get(candidate, name_candidate(candidate, several=True)) for candidate in predictions}
    refused = sorted(asked - allowed)
    if refused:
        raise DataError(
            f"test predictions given for {', '.join(refused)}: "
            f"the test split is opened for {', '.join(sorted(allowed))} only"
        )
    scored = {
        candidate: _scores(_resample(by_seed, test, replicates=replicates, seed=seed), test.split, level=level)
        for candidate, by_seed in predictions.items()
    }
    points = tuple(replace(point, test=scored.get(point.candidate, point.test)) for point in front.points)
    return replace(front, points=points)


def pareto_members(front: Front) -> tuple[str, ...]:
    """Return the names of the candidates that are on the front of any axis, shallow to deep."""
    return tuple(point.name for point in front.points if point.on_front)


def _trained(profile: Profile, predictions: Predictions, strategies: Sequence[str]) -> dict[Candidate, CutProfile]:
    """Return the costs of all candidates with predictions, shallow to deep, then in the order of the strategies."""
    known = {cost.cut for cost in profile.cuts}
    unknown = sorted({candidate.cut for candidate in predictions} - known)
    if unknown:
        raise DataError(f"no profile for {', '.join(unknown)}: profiled are {', '.join(sorted(known))}")
    order = dict.fromkeys((*strategies, *sorted({candidate.strategy for candidate in predictions})))
    all_costs = {Candidate(cost.cut, strategy): cost for cost in profile.cuts for strategy in order}
    trained = {candidate: cost for candidate, cost in all_costs.items() if predictions.get(candidate)}
    if not trained:
        raise DataError("no trial has finished, so there is no front: see the failures in the ledger")
    return trained


def _find_reference(values: Mapping[Candidate, float]) -> Candidate | None:
    """Return the full network with the best validation AUROC, or None where it was not trained.

    The best: beside a full network that one strategy trained badly, any cut would look good.
    """
    full = [candidate for candidate in values if candidate.cut == FULL]
    return max(full, key=lambda candidate: values[candidate]) if full else None


def _resample(by_seed: Mapping[int, ArrayLike], truth: LabelledSplit, *, replicates: int, seed: int) -> Resampled:
    stacked: NDArray[np.float64] = np.stack([np.asarray(one, dtype=np.float64) for one in by_seed.values()])
    return intervals.resample(stacked, truth.labels, truth.patients, replicates=replicates, seed=seed)


def _scores(resampled: Resampled, split: Split, *, level: float) -> tuple[Score, ...]:
    return tuple(
        intervals.score_resampled(resampled, metric, split=split, level=level) for metric in resampled.evaluations
    )


def _auroc(resampled: Resampled, split: Split) -> float:
    evaluation = resampled.evaluations["auroc"]
    if evaluation.value is None:
        raise DataError(
            f"the {split} split has no AUROC ({evaluation.reason}): give every class at least one image in it"
        )
    return evaluation.value


def _members(axis: Axis, costs: Mapping[Key, CutProfile], values: Mapping[Key, float]) -> frozenset[Key]:
    """Find the candidates on one axis: no member beats another, and every other one is beaten by a member.

    With exact costs this is the usual Pareto front. Ties under the noise floor are not transitive
    (a may tie b and b tie c, while c is faster than a), so a candidate is off only if one that is *on*
    beats it. Going through them best first makes that set unique: no worse one beats a better.
    """
    measured = [key for key, cost in costs.items() if getattr(cost, axis) is not None]
    members: list[Key] = []
    for key in sorted(measured, key=lambda one: (-values[one], getattr(costs[one], axis))):
        if not any(_beats(axis, member, key, costs, values) for member in members):
            members.append(key)
    return frozenset(members)


def _beats(axis: Axis, a: Key, b: Key, costs: Mapping[Key, CutProfile], values: Mapping[Key, float]) -> bool:
    """Tell whether a is as cheap and as good as b, and one of the two strictly."""
    noise = max(costs[a].latency_noise_s or 0.0, costs[b].latency_noise_s or 0.0)
    tie = noise if axis == "latency_s" else 0.0
    saved = getattr(costs[b], axis) - getattr(costs[a], axis)
    better, as_good = values[a] > values[b], values[a] >= values[b]
    return (saved >= -tie and better) or (saved > tie and as_good)
