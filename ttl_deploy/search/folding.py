"""From the finished runs of all folds to one answer: is the smaller model as good as the full network?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import NoRunError
from ttl_deploy.evidence import folds, intervals, noninferiority
from ttl_deploy.evidence.front import LabelledSplit
from ttl_deploy.evidence.intervals import Resampled
from ttl_deploy.records.folds import CrossValidation, FoldOutcome
from ttl_deploy.records.scores import Comparison, FrontPoint, Metric, Score
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import findings

CHOSEN, REFERENCE = "chosen in each fold", "full network"
_ONLY: tuple[Metric, ...] = ("auroc",)
Predicted = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class _FoldRun:
    """One fold's test split, and what its candidates said of it, `(seeds, N, C)` by name."""

    outcome: FoldOutcome
    truth: LabelledSplit
    predictions: Mapping[str, Predicted]


def cross_validate(runs: Sequence[RunFolder]) -> CrossValidation:
    """Pool the finished runs of all folds, in their order; raises `NoRunError` where one is not finished.

    A candidate stands in the comparison if the search opened the test split for it in every fold, on as many seeds.
    """
    found = [_read(number, run) for number, run in enumerate(runs, start=1)]
    outcomes = tuple(one.outcome for one in found)
    opened = list(dict.fromkeys(name for one in found for name in one.predictions))
    common = [name for name in opened if _stands_in_all(name, found)]
    left_out = tuple(name for name in opened if name not in common)
    if REFERENCE not in common:
        reason = "the full network was not trained, or not on as many seeds, in every fold"
        return CrossValidation(folds=outcomes, comparison=None, reason=reason, left_out=left_out)
    ordered = [REFERENCE, *(name for name in common if name != REFERENCE)]
    comparison = _compare(ordered, found, runs[0].settings().margin)
    return CrossValidation(folds=outcomes, comparison=comparison, left_out=left_out)


def _stands_in_all(name: str, found: Sequence[_FoldRun]) -> bool:
    seeds = [len(one.predictions[name]) for one in found if name in one.predictions]
    return len(seeds) == len(found) and len(set(seeds)) == 1


def _read(number: int, run: RunFolder) -> _FoldRun:
    known = findings.read(run)
    if known.choice is None:
        raise NoRunError(f"{run.path} is not finished: type the search's command again, which goes on with it")
    front, choice = known.front, known.choice
    chosen = front.point_of(*choice.candidate)
    reference = front.point(front.reference) if front.reference else None
    outcome = FoldOutcome(
        number=number,
        run=run.path.name,
        chosen=chosen.name,
        reference=None if reference is None else reference.name,
        chosen_auroc=_test_auroc(chosen, run),
        reference_auroc=None if reference is None else _test_auroc(reference, run),
    )
    names = {chosen.name: CHOSEN} | ({reference.name: REFERENCE} if reference else {})
    predictions = dict(_predictions(run, front.points))
    special = {word: predictions[name] for name, word in names.items() if name in predictions}
    if reference is not None and reference.name == chosen.name:
        special[CHOSEN] = predictions[chosen.name]
    others = {name: one for name, one in predictions.items() if reference is None or name != reference.name}
    return _FoldRun(outcome=outcome, truth=findings.labelled_split(run.data, "test"), predictions=special | others)


def _predictions(run: RunFolder, points: Sequence[FrontPoint]) -> Iterator[tuple[str, Predicted]]:
    """Yield the test predictions of every candidate for which the search opened the split."""
    trained = findings.finished(findings.outcomes(run))
    for point in points:
        keys = trained.get(point.candidate, {})
        if keys and all((run.trial(key) / "predictions_test.npz").is_file() for key in keys.values()):
            yield point.name, np.stack([findings.read_probabilities(run, key, "test") for key in keys.values()])


def _test_auroc(point: FrontPoint, run: RunFolder) -> Score:
    scored = next((score for score in point.test if score.metric == "auroc"), None)
    if scored is None:
        raise NoRunError(f"{run.path} has no test score of {point.name}: cross-validation needs the stage test")
    return scored


def _compare(names: Sequence[str], found: Sequence[_FoldRun], margin: float) -> Comparison:
    count = noninferiority.enough_replicates(len(names))
    return noninferiority.compare_resampled(
        {name: np.concatenate([one.predictions[name] for one in found], axis=1) for name in names},
        {name: folds.pool([_resample(one, name, count) for one in found]) for name in names},
        np.concatenate([np.asarray(one.truth.labels) for one in found]),
        np.concatenate([np.asarray(one.truth.patients) for one in found]),
        split="test",
        patients_known=all(one.truth.patients_known for one in found),
        margin=margin,
        in_folds=True,
    )


def _resample(one: _FoldRun, name: str, count: int) -> Resampled:
    """Resample a fold's patients, the same way for all models and in another for every fold."""
    return intervals.resample(
        one.predictions[name],
        one.truth.labels,
        one.truth.patients,
        replicates=count,
        seed=one.outcome.number,
        only=_ONLY,
    )
