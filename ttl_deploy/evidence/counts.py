"""Metrics that are ratios of sums over images: a resample's sums are one matrix product away.

`Sums` holds what every unit (a patient) adds; `measure` turns any number of weighted totals into metrics.
Shapes: R resamples, S seeds, K scored classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ttl_deploy.evidence.answers import UNKNOWN, Answers, Flags, Floats, Integers
from ttl_deploy.records.scores import Metric

BINS = 15
"""Bins of equal width in which probabilities are compared with what happened (Guo et al. 2017, section 2)."""
_BASIC = ("known", "positive", "taken", "found", "squared")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What each of U units adds to the totals of one model.

    Attributes:
        basic: `(U, S, K, 5)`: images with a known label, positives, images decided for the class, both, and squared
            differences between probability and truth.
        gaps: `(U, S, K, BINS)`: sums of probability minus truth, by bin of probability.
        right: `(U, S + 1)`: images taken for their own class, per seed, and all images. Nothing for several labels.
        confusion: `(U, S, C, C)`: images by class and by the class they were taken for; empty unless asked for.
    """

    basic: Floats
    gaps: Floats
    right: Floats
    confusion: Floats


def sum_up(answers: Answers, units: Integers, *, graded: bool = False) -> Sums:
    """Add up per unit; `units` `(N,)` says to which of 0…U-1 each image belongs; `graded` asks for the confusion."""
    count = int(units.max()) + 1 if len(units) else 0
    seeds = len(answers.scores)
    known = (answers.truth != UNKNOWN).astype(np.float64)  # (N, K)
    positive = (answers.truth == 1).astype(np.float64)
    taken = answers.decided * known
    squared = (answers.scores - positive) ** 2 * known
    parts = [np.broadcast_to(known, taken.shape), np.broadcast_to(positive, taken.shape)]
    basic = np.stack([*parts, taken, taken * positive, squared], axis=-1)  # (S, N, K, 5)
    return Sums(
        basic=_by_unit(np.moveaxis(basic, 0, 1), units, count),
        gaps=_gaps(answers, known, positive, units, count),
        right=_by_unit(_right(answers), units, count),
        confusion=_confusion(answers, units, count) if graded else np.empty((count, seeds, 0, 0)),
    )


def total(sums: Sums, weights: Floats) -> Sums:
    """Return the totals of R resamples, R standing where units stood; `weights` is `(U, R)`."""
    parts = {name: getattr(sums, name) for name in ("basic", "gaps", "right", "confusion")}
    widths = [math.prod(part.shape[1:]) for part in parts.values()]
    flat = np.concatenate(
        [part.reshape(len(part), width) for part, width in zip(parts.values(), widths, strict=True)], axis=1
    )
    totals = weights.T @ flat  # one product, since reading the weights is what takes the time
    ends = np.cumsum(widths)[:-1]
    return Sums(
        **{
            name: found.reshape(weights.shape[1], *part.shape[1:])
            for (name, part), found in zip(parts.items(), np.split(totals, ends, axis=1), strict=True)
        }
    )


def measure(totals: Sums, *, task: str) -> dict[Metric, Floats]:
    """Return each metric per class `(R, S, K)`, NaN where undefined; formulas in `evidence.metrics`."""
    known, positive, taken, found, squared = (totals.basic[..., i] for i in range(len(_BASIC)))
    negative = known - positive
    sensitivity = _divide(found, positive)
    specificity = _divide(negative - (taken - found), negative)
    # Of several classes each is an answer of its own: the mean over them is then balanced accuracy.
    balanced = sensitivity if task == "multiclass" else (sensitivity + specificity) / 2
    measured: dict[Metric, Floats] = {
        "accuracy": _divide(found + negative - (taken - found), known) if task == "multilabel" else sensitivity,
        "balanced_accuracy": balanced,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "f1": _divide(2 * found, np.where(positive > 0, taken + positive, 0.0)),
        "brier": _divide(squared, known),
        "calibration_error": _divide(np.abs(totals.gaps).sum(axis=-1), known),
    }
    return measured


def measure_whole(totals: Sums) -> Mapping[Metric, Floats]:
    """Return the metrics of all classes at once, `(R, S)`: accuracy, and kappa where the confusion was asked for."""
    whole: dict[Metric, Floats] = {}
    if totals.right.shape[1] > 1:
        whole["accuracy"] = _divide(totals.right[:, :-1], totals.right[:, -1:])
    if totals.confusion.size:
        whole["kappa"] = quadratic_kappa(totals.confusion)
    return whole


def calibration_errors(scores: Floats, truth: Flags, *, known: Flags) -> Floats:
    """Return the error of each seed and class `(S, K)`, NaN where no label is known.

    `scores` and `truth` are `(S, N, K)`, `known` `(N, K)`.
    """
    gaps = np.zeros((len(scores), scores.shape[2], BINS))
    of_seed, of_class = np.arange(len(scores))[:, None, None], np.arange(scores.shape[2])
    np.add.at(gaps, (of_seed, of_class, _bins(scores)), (scores - truth) * known)
    return _divide(np.abs(gaps).sum(axis=-1), known.sum(axis=0).astype(np.float64))


def quadratic_kappa(confusion: Floats) -> Floats:
    """Return Cohen's kappa with quadratic weights (Cohen 1968) of confusion matrices `(…, C, C)`, `(…)`.

    One minus the mean squared distance in grades over the one expected from the margins. NaN where all
    images are, and are taken for, one class.
    """
    grades = np.arange(confusion.shape[-1])
    distance = (grades[:, None] - grades) ** 2.0
    rows, columns = confusion.sum(axis=-1), confusion.sum(axis=-2)
    seen = (confusion * distance).sum(axis=(-2, -1)) * rows.sum(axis=-1)
    expected = np.einsum("...i,ij,...j->...", rows, distance, columns)
    return np.asarray(1 - _divide(seen, expected))


def _by_unit(values: Floats, units: Integers, count: int) -> Floats:
    """Sum `(N, …)` over the images of each unit, `(U, …)`."""
    summed = np.zeros((count, *values.shape[1:]))
    np.add.at(summed, units, values)
    return summed


def _gaps(answers: Answers, known: Floats, positive: Floats, units: Integers, count: int) -> Floats:
    seeds, _, classes = answers.scores.shape
    gaps = np.zeros((count, seeds, classes, BINS))
    of_seed, of_class = np.arange(seeds)[:, None, None], np.arange(classes)
    np.add.at(gaps, (units[:, None], of_seed, of_class, _bins(answers.scores)), (answers.scores - positive) * known)
    return gaps


def _bins(scores: Floats) -> Integers:
    return np.minimum((scores * BINS).astype(np.int64), BINS - 1)


def _right(answers: Answers) -> Floats:
    """Tell per image and seed whether it was taken for its own class, `(N, S + 1)`, the last column all ones."""
    if answers.task == "multilabel":
        return np.empty((answers.images, 0))
    right = (answers.chosen == answers.labels).astype(np.float64).T
    return np.concatenate([right, np.ones((answers.images, 1))], axis=1)


def _confusion(answers: Answers, units: Integers, count: int) -> Floats:
    seeds, classes = len(answers.chosen), answers.scores.shape[2]
    confusion = np.zeros((count, seeds, classes, classes))
    for seed, chosen in enumerate(answers.chosen):
        np.add.at(confusion[:, seed], (units, answers.labels, chosen), 1.0)
    return confusion


def _divide(part: Floats, whole: Floats) -> Floats:
    quotient = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    np.divide(part, whole, out=quotient, where=np.broadcast_to(whole > 0, quotient.shape))
    return quotient
