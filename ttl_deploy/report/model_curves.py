"""ROC and reliability curves of stored predictions, with bands over patients; no image is read, no model is run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.evidence import curves, intervals
from ttl_deploy.evidence.answers import UNKNOWN, Answers, Floats, Integers, read_answers
from ttl_deploy.evidence.calibration import apply_temperature
from ttl_deploy.evidence.counts import BINS
from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import Score

BANDED = 500
"""Resamples of patients behind each band."""
_GRID = 101
_MOST_POINTS = 400  # of a drawn curve: more than a screen can show
_MANY = 50_000  # images times classes from which on scores, too, rest on as few resamples as bands
_MUCH = 250_000  # and from which on both rest on the least
_LEAST = 200

Role = Literal["chosen", "reference"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """One model's probabilities `(N, C)` of a split, and the temperature of the file that was exported of it."""

    role: Role
    key: str
    probabilities: NDArray[np.float64]
    temperature: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Roc:
    """An ROC curve: `false` and `true` are shares of negatives and of positives taken for the class, ascending.

    `low` and `high` bound the sensitivity at every share of `grid`, 0 to 1, each by itself; empty where no interval is
    known.
    """

    false: tuple[float, ...]
    true: tuple[float, ...]
    grid: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Images whose probability lies in one bin: their mean probability, and how many were of the class.

    `low` and `high` bound that share over patients; None where resamples say nothing of it.
    """

    probability: float
    share: float
    low: float | None
    high: float | None
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCurves:
    """One model on one class against the rest; `roc` is None, and the scores undefined, without both kinds of images.

    `exported` are the bins of the exported file's calibrated probabilities; empty where it has no temperature.
    """

    name: str
    positives: int
    negatives: int
    scores: tuple[Score, ...]
    roc: Roc | None
    bins: tuple[ReliabilityBin, ...]
    exported: tuple[ReliabilityBin, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCurves:
    """All classes of one model, a trial's `key`."""

    role: Role
    key: str
    temperature: float
    classes: tuple[ClassCurves, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCurves:
    """The chosen model and the reference on one split; `replicates` stand behind the bands."""

    split: Split
    level: float
    patients: int
    images: int
    replicates: int
    models: tuple[ModelCurves, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The classes that have curves: of two classes the second alone."""
        return tuple(one.name for one in self.models[0].classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One class of one model, images of unknown label left out: all arrays `(n,)`, `units` 0 to U-1."""

    name: str
    scores: Floats
    truth: Integers
    units: Integers

    @property
    def has_both(self) -> bool:
        return 0 < int(self.truth.sum()) < len(self.truth)


def trace_models(
    models: Sequence[Predicted],
    labels: Integers,
    patients: NDArray[np.generic],
    *,
    classes: Sequence[str],
    split: Split,
    level: float = intervals.LEVEL,
    replicates: int = BANDED,
) -> RunCurves:
    """Trace the curves of models on the same images.

    `labels` is `(N,)`, or `(N, C)` with -1 for unknown; `patients` `(N,)`. Of very many images times classes fewer
    resamples are drawn, which the result says. Raises what `read_answers` does.
    """
    if len(labels) * len(classes) > _MUCH:
        replicates = min(replicates, _LEAST)
    return RunCurves(
        split=split,
        level=level,
        patients=len(np.unique(patients)),
        images=len(labels),
        replicates=replicates,
        models=tuple(
            ModelCurves(
                role=one.role,
                key=one.key,
                temperature=one.temperature,
                classes=_trace(one, labels, patients, classes, split=split, level=level, replicates=replicates),
            )
            for one in models
        ),
    )


def _trace(
    model: Predicted,
    labels: Integers,
    patients: NDArray[np.generic],
    classes: Sequence[str],
    *,
    split: Split,
    level: float,
    replicates: int,
) -> tuple[ClassCurves, ...]:
    plain = _cases(read_answers(model.probabilities, labels), patients, classes)
    calibrated: tuple[_Case, ...] = ()
    if model.temperature != 1:
        values = apply_temperature(model.probabilities, model.temperature, multilabel=labels.ndim == 2)
        calibrated = _cases(read_answers(values, labels), patients, classes)
    scored = intervals.REPLICATES if len(labels) * len(classes) <= _MANY else replicates
    return tuple(
        ClassCurves(
            name=case.name,
            positives=int(case.truth.sum()),
            negatives=int(len(case.truth) - case.truth.sum()),
            scores=_score(case, split=split, level=level, replicates=scored),
            roc=trace_roc(case.scores, case.truth, case.units, level=level, replicates=replicates)
            if case.has_both
            else None,
            bins=bin_shares(case.scores, case.truth, case.units, level=level, replicates=replicates),
            exported=bin_shares(exported.scores, exported.truth, exported.units, level=level, replicates=replicates)
            if exported is not None
            else (),
        )
        for case, exported in zip(plain, calibrated or (None,) * len(plain), strict=True)
    )


def _cases(answers: Answers, patients: NDArray[np.generic], classes: Sequence[str]) -> tuple[_Case, ...]:
    names = classes[1:] if answers.task == "binary" else classes
    kept, found = np.asarray(patients)[answers.kept], []
    for column, name in enumerate(names):
        known = answers.truth[:, column] != UNKNOWN
        _, units = np.unique(kept[known], return_inverse=True)
        scores, truth = answers.scores[0, known, column], answers.truth[known, column]
        found.append(_Case(name=name, scores=scores, truth=truth, units=units.astype(np.int64)))
    return tuple(found)


def _score(case: _Case, *, split: Split, level: float, replicates: int) -> tuple[Score, ...]:
    """Score a class against the rest by what needs no threshold."""
    resampled = intervals.resample(
        np.stack((1 - case.scores, case.scores), axis=1),
        case.truth,
        case.units,
        replicates=replicates,
        only=("auroc", "auprc", "brier", "calibration_error"),
    )
    return intervals.score_all(resampled, split=split, level=level)


def trace_roc(scores: Floats, truth: Integers, units: Integers, *, level: float, replicates: int) -> Roc:
    """Trace an ROC curve with its band: the sensitivity's percentiles over patients, at each share of false alarms.

    At a share f it is the highest sensitivity that a threshold with at most f false alarms reaches (vertical
    averaging; Fawcett 2006, "An introduction to ROC analysis", section 8). All arrays `(n,)`; both kinds of images
    must be there. Resamples without both are left out; there is no band where these are more than half, where all
    images are of one patient, and of a separation so clean that all resamples agree everywhere.
    """
    ranking = curves.rank(truth == 1, scores, units)
    patients = int(units.max()) + 1
    true, false = curves.count_along(ranking, np.ones((1, patients), dtype=np.int32))
    xs, ys = _corners(np.append(0.0, false[0]) / false[0, -1], np.append(0.0, true[0]) / true[0, -1])
    drawn = {"false": _rounded(xs), "true": _rounded(ys)}
    grid, rows = np.linspace(0, 1, _GRID), []
    for multiplicities in intervals.draw_patients(patients, images=len(scores), replicates=replicates, seed=0):
        many_true, many_false = curves.count_along(ranking, multiplicities)
        rows += [_step(f, t, grid) for f, t in zip(many_false, many_true, strict=True) if f[-1] > 0 and t[-1] > 0]
    stacked = np.array(rows)
    if patients < 2 or 2 * len(rows) < replicates or bool((stacked == stacked[0]).all()):
        return Roc(**drawn)
    low, high = np.quantile(stacked, ((1 - level) / 2, (1 + level) / 2), axis=0)
    return Roc(**drawn, grid=_rounded(grid), low=_rounded(low), high=_rounded(high))


def _step(false: Floats, true: Floats, grid: Floats) -> Floats:
    """Return the highest sensitivity with at most each share of false alarms, from counts along the ranking."""
    position = np.searchsorted(false, grid * false[-1] + 1e-9, side="right")
    reached: Floats = np.append(0.0, true)[position] / true[-1]
    return reached


def _corners(xs: Floats, ys: Floats) -> tuple[Floats, Floats]:
    """Keep the points where a curve turns, and of very many an even choice; the first and the last stay."""
    dx, dy = np.diff(xs), np.diff(ys)
    turns = np.abs(dx[:-1] * dy[1:] - dx[1:] * dy[:-1]) > 1e-12
    kept = np.flatnonzero(np.concatenate(([True], turns, [True])))
    if len(kept) > _MOST_POINTS:
        kept = kept[np.unique(np.linspace(0, len(kept) - 1, _MOST_POINTS).round().astype(np.int64))]
    return xs[kept], ys[kept]


def bin_shares(
    scores: Floats, truth: Integers, units: Integers, *, level: float, replicates: int
) -> tuple[ReliabilityBin, ...]:
    """Set probability beside what happened in each bin of `counts.BINS` that holds images, with bounds over patients.

    A patient's images count together in every resample. All arrays `(n,)`.
    """
    if not len(scores):
        return ()
    patients = int(units.max()) + 1
    of_bin = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    images, positives = np.zeros((patients, BINS)), np.zeros((patients, BINS))
    np.add.at(images, (units, of_bin), 1)
    np.add.at(positives, (units, of_bin), truth)
    sums = np.bincount(of_bin, weights=scores, minlength=BINS)
    rows = []
    for drawn in intervals.draw_patients(patients, images=len(scores), replicates=replicates, seed=0):
        held = drawn @ images
        rows.append(np.divide(drawn @ positives, held, out=np.full_like(held, np.nan), where=held > 0))
    shares = np.concatenate(rows)
    return tuple(
        _bin(float(sums[i]), int(positives[:, i].sum()), int(images[:, i].sum()), shares[:, i], level=level)
        for i in np.flatnonzero(images.sum(axis=0))
    )


def _bin(total: float, positives: int, images: int, shares: Floats, *, level: float) -> ReliabilityBin:
    bounds = intervals.percentile_interval(shares, level=level)
    # Where all of a bin are of one kind, every resample agrees, which says nothing of how sure that is.
    known = bounds is not None and bounds[0] < bounds[1]
    return ReliabilityBin(
        probability=round(total / images, 4),
        share=round(positives / images, 4),
        low=round(bounds[0], 4) if known and bounds else None,
        high=round(bounds[1], 4) if known and bounds else None,
        images=images,
    )


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(np.round(values, 4).tolist())
