"""The Pareto front of validation AUROC against cost, one axis per kind of cost.

A search builds it in two steps, so that the test split is opened for as few models as possible:
`build_front` sees validation predictions only; `add_test_scores` then takes the test predictions of
the reference and of `pareto_members`, states how they compare, and can no longer change who is on the front.

Who is on the front is decided by the scores as they are, and by latencies up to their noise: that keeps the
number of members small. Scores are uncertain too, so who is off it is `clearly worse` only where the paired
interval says so (`dominance`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import dominance, intervals, metrics, noninferiority
from ttl_deploy.evidence.intervals import LEVEL, REPLICATES, Resampled
from ttl_deploy.records.candidates import Candidate, name_candidate, name_candidates
from ttl_deploy.records.data import Split
from ttl_deploy.records.models import FULL
from ttl_deploy.records.scores import AXES, MARGIN, Comparison, Front, FrontPoint, Score
from ttl_deploy.records.trials import CutProfile, Profile

Predictions = Mapping[Candidate, Mapping[int, ArrayLike]]
"""For every trained candidate, for every seed, the probabilities `(N, C)` on one split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSplit:
    """Labels `(N,)` and patients `(N,)` of one split, in the order of its predictions.

    `patients_known` is False where every image counts as a patient of its own; `graded` where classes are grades in
    their order.
    """

    split: Split
    labels: ArrayLike
    patients: ArrayLike
    patients_known: bool = True
    graded: bool = False


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
    members = {axis: dominance.find_members(axis, costs, values) for axis in AXES}
    dominated = dominance.find_dominated(costs, values, members, resampled, names=names, level=level)
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
            dominated_by=dominated[candidate],
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
    margin: float = MARGIN,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Front:
    """Return the front with test scores for the candidates in `predictions`, and the verdicts on them.

    The reference is compared with all others, where it and at least one other are given. Many models take more
    resamples than `replicates`, see `noninferiority.enough_replicates`. Nothing else changes. Raises `DataError` for
    a candidate that is neither on the front nor the reference: the test split is not for looking around.
    """
    names = name_candidates(point.candidate for point in front.points)
    _refuse_others(front, [names.get(one, name_candidate(one, several=True)) for one in predictions])
    count = max(replicates, noninferiority.fewest_replicates(len(predictions), level=level))
    stacked = {names[candidate]: _stack(by_seed) for candidate, by_seed in predictions.items()}
    resampled = {
        name: intervals.resample(one, test.labels, test.patients, replicates=count, seed=seed, graded=test.graded)
        for name, one in stacked.items()
    }
    points = tuple(
        replace(point, test=_scores(resampled[point.name], test.split, level=level))
        if point.name in resampled
        else point
        for point in front.points
    )
    verdicts = _compare(front, stacked, resampled, test, margin=margin, level=level)
    return replace(front, points=points, verdicts=verdicts)


def _refuse_others(front: Front, asked: Sequence[str]) -> None:
    allowed = {*pareto_members(front), *([front.reference] if front.reference else [])}
    refused = sorted(set(asked) - allowed)
    if refused:
        raise DataError(
            f"test predictions given for {', '.join(refused)}: "
            f"the test split is opened for {', '.join(sorted(allowed))} only"
        )


def _compare(
    front: Front,
    predictions: Mapping[str, ArrayLike],
    resampled: Mapping[str, Resampled],
    test: LabelledSplit,
    *,
    margin: float,
    level: float,
) -> Comparison | None:
    """Compare the reference with the others, in the front's order; None where one of the two is missing."""
    reference = front.reference
    others = [point.name for point in front.points if point.name in predictions and point.name != reference]
    if reference is None or reference not in predictions or not others:
        return None
    return noninferiority.compare_resampled(
        {name: predictions[name] for name in (reference, *others)},
        {name: resampled[name] for name in (reference, *others)},
        test.labels,
        test.patients,
        split=test.split,
        patients_known=test.patients_known,
        margin=margin,
        level=level,
    )


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
    return intervals.resample(
        _stack(by_seed), truth.labels, truth.patients, replicates=replicates, seed=seed, graded=truth.graded
    )


def _stack(by_seed: Mapping[int, ArrayLike]) -> NDArray[np.float64]:
    """Lay the seeds of one candidate together: `(seeds, N, C)`."""
    return np.stack([np.asarray(one, dtype=np.float64) for one in by_seed.values()])


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
