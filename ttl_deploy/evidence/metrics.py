"""AUROC, average precision and accuracy; undefined is None with a reason, never 0.

Everything rests on one descending sort of the scores (`rank`). A resample is a vector of integer
multiplicities, so thousands of replicates cost one sort and a few cumulative sums.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttl_deploy.errors import DataError
from ttl_deploy.records.scores import Metric

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Images in descending order of score.

    `units` `(N,)` says which resampled unit (a patient) each image belongs to, `positive` `(N,)`
    whether it is of the class in question, `ends` `(G,)` where each group of tied scores ends.
    """

    units: Integers
    positive: NDArray[np.bool_]
    ends: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One metric on one set of images; `value` is None with a `reason` where it is undefined.

    `per_class` and `defined` are those of `records.scores.Score`.
    """

    value: float | None
    per_class: tuple[float | None, ...]
    defined: int
    reason: str = ""


def rank(positive: NDArray[np.bool_], scores: NDArray[np.floating], units: Integers) -> Ranking:
    """Sort the images once; all three arrays are `(N,)` with N >= 1."""
    order = np.argsort(-scores, kind="stable")
    descending = scores[order]
    ends = np.flatnonzero(np.append(descending[1:] != descending[:-1], True))
    return Ranking(units=units[order], positive=positive[order], ends=ends)


def count_along(ranking: Ranking, multiplicities: NDArray[np.integer]) -> tuple[Floats, Floats]:
    """Count true and false positives down to the end of every group of ties, for every resample.

    `multiplicities` is `(R, units)`; both results are `(R, G)` and hold exact integers.
    """
    weights = multiplicities[:, ranking.units].astype(np.float64)
    everyone = np.cumsum(weights, axis=1)
    weights *= ranking.positive
    true = np.cumsum(weights, axis=1, out=weights)
    if len(ranking.ends) < len(ranking.units):
        everyone, true = everyone[:, ranking.ends], true[:, ranking.ends]
    return true, np.subtract(everyone, true, out=everyone)


def area_under_roc(true: Floats, false: Floats) -> Floats:
    """Integrate the ROC curve by the trapezoidal rule, which counts ties one half; NaN where undefined.

    Takes `count_along`'s counts `(R, G)` and returns `(R,)`. Equals the midrank statistic of
    Mann and Whitney divided by the number of pairs.
    """
    pairs = true[:, -1] * false[:, -1]
    area = false[:, 0] * true[:, 0]
    area += np.einsum("rg,rg->r", np.diff(false, axis=1), true[:, 1:] + true[:, :-1])
    return _divide(area, 2 * pairs, where=pairs > 0)


def area_under_steps(true: Floats, false: Floats) -> Floats:
    """Sum precision over the steps of recall (average precision); NaN where undefined.

    Takes `count_along`'s counts `(R, G)` and returns `(R,)`. Undefined, as the AUROC is, without
    positives and also without negatives, where it would be 1 for any scores.
    """
    positives = true[:, -1]
    found = true + false
    precision = np.divide(true, found, out=found, where=found > 0)
    area = true[:, 0] * precision[:, 0] + np.einsum("rg,rg->r", np.diff(true, axis=1), precision[:, 1:])
    return _divide(area, positives, where=positives * false[:, -1] > 0)


def auroc(labels01: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Return the area under the ROC curve of binary labels `(N,)`; None where only one class is present.

    `weights` are integer multiplicities of the images, all 1 by default. Raises `DataError` for
    scores that are not finite numbers.
    """
    return _binary_area(area_under_roc, labels01, scores, weights)


def average_precision(labels01: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Return the average precision of binary labels `(N,)`; None where only one class is present.

    No interpolation, tied scores share a threshold; `weights` as in `auroc`.
    """
    return _binary_area(area_under_steps, labels01, scores, weights)


def accuracy(probabilities: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Return the share of images `(N, C)` whose largest probability is at their label; None without images."""
    values, truth = check_predictions(probabilities, labels)
    counts = _multiplicities(weights, len(truth))[0]
    total = int(counts.sum())
    return float(counts @ hits(values, truth).mean(axis=0) / total) if total else None


def evaluate(metric: Metric, probabilities: ArrayLike, labels: ArrayLike) -> Evaluation:
    """Compute one metric of `probabilities` `(N, C)` or `(seeds, N, C)` without an interval.

    Several seeds are averaged metric by metric, not prediction by prediction. For two classes the
    positive one is class 1; for more, AUROC and AUPRC are one class against the rest and the value
    is the mean over the classes with both positives and negatives. Accuracy's `per_class` is the
    share of each class's images that is found.
    """
    checked, truth = check_predictions(probabilities, labels)
    return evaluate_all(checked, truth)[metric]


def evaluate_all(probabilities: Floats, labels: Integers) -> dict[Metric, Evaluation]:
    """Compute every metric of checked predictions `(seeds, N, C)`; what `evaluate` says holds."""
    if len(labels) == 0:
        nothing = Evaluation(
            value=None, per_class=(None,) * len(scored_classes(probabilities)), defined=0, reason="no images"
        )
        return {"auroc": nothing, "auprc": nothing, "accuracy": nothing}
    defined = defined_classes(probabilities, labels)
    reason = "" if defined.any() else f"all {len(labels)} images are of class {labels[0]}"
    once = np.ones((1, len(labels)), dtype=np.int64)
    areas = class_areas(rank_classes(probabilities, labels, np.arange(len(labels))), once)
    found = _evaluation(_shares_found(probabilities, labels), defined)
    return {
        "auroc": _evaluation(areas[0][0], defined, reason=reason),
        "auprc": _evaluation(areas[1][0], defined, reason=reason),
        "accuracy": replace(found, value=float(hits(probabilities, labels).mean())),
    }


def rank_classes(probabilities: Floats, labels: Integers, units: Integers) -> tuple[tuple[Ranking, ...], ...]:
    """Sort `(seeds, N, C)` once per seed and scored class."""
    return tuple(
        tuple(rank(labels == k, of_seed[:, k], units) for k in scored_classes(probabilities))
        for of_seed in probabilities
    )


def class_areas(
    rankings: tuple[tuple[Ranking, ...], ...], multiplicities: NDArray[np.integer]
) -> tuple[Floats, Floats]:
    """Return AUROC and average precision of each resample, seed and class, two `(R, seeds, K)`, NaN where undefined."""
    shape = (len(multiplicities), len(rankings), len(rankings[0]))
    roc, steps = np.empty(shape), np.empty(shape)
    for s, of_seed in enumerate(rankings):
        for k, ranking in enumerate(of_seed):
            true, false = count_along(ranking, multiplicities)
            roc[:, s, k] = area_under_roc(true, false)
            steps[:, s, k] = area_under_steps(true, false)
    return roc, steps


def hits(probabilities: Floats, labels: Integers) -> NDArray[np.bool_]:
    """Tell which images have their largest probability at their label, `(seeds, N)`; the first of equals counts."""
    found: NDArray[np.bool_] = probabilities.argmax(axis=2) == labels
    return found


def scored_classes(probabilities: Floats) -> tuple[int, ...]:
    """Return the classes that get a value of their own: the positive one of two, or all."""
    classes = probabilities.shape[2]
    return (1,) if classes == 2 else tuple(range(classes))


def defined_classes(probabilities: Floats, labels: Integers) -> NDArray[np.bool_]:
    """Tell for each scored class whether it has both positives and negatives, `(K,)`."""
    counts = np.array([np.count_nonzero(labels == k) for k in scored_classes(probabilities)])
    return (counts > 0) & (counts < len(labels))


def check_predictions(probabilities: ArrayLike, labels: ArrayLike) -> tuple[Floats, Integers]:
    """Return probabilities as `(seeds, N, C)` and labels as `(N,)`; raises `DataError` where they do not fit."""
    values = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.int64)
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or truth.ndim != 1 or values.shape[1] != len(truth) or len(values) < 1 or values.shape[2] < 2:
        raise DataError(
            f"probabilities {np.shape(probabilities)} and labels {truth.shape} do not fit: "
            "give (images, classes) or (seeds, images, classes), and one label per image"
        )
    _refuse_not_finite(values)
    if len(truth) and not 0 <= truth.min() <= truth.max() < values.shape[2]:
        raise DataError(f"labels {truth.min()}..{truth.max()} given, only 0..{values.shape[2] - 1} are predicted")
    return values, truth


def _divide(area: Floats, whole: Floats, *, where: NDArray[np.bool_]) -> Floats:
    quotient = np.full(len(area), np.nan)
    np.divide(area, whole, out=quotient, where=where)
    return quotient


def _evaluation(per_seed: Floats, defined: NDArray[np.bool_], *, reason: str = "") -> Evaluation:
    per_class = per_seed.mean(axis=0)
    return Evaluation(
        value=float(per_class[defined].mean()) if defined.any() else None,
        per_class=tuple(None if np.isnan(value) else float(value) for value in per_class),
        defined=int(defined.sum()),
        reason=reason,
    )


def _shares_found(probabilities: Floats, labels: Integers) -> Floats:
    right = hits(probabilities, labels)
    shares = np.full((len(probabilities), len(scored_classes(probabilities))), np.nan)
    for k, index in enumerate(scored_classes(probabilities)):
        if (labels == index).any():
            shares[:, k] = right[:, labels == index].mean(axis=1)
    return shares


def _binary_area(
    area: Callable[[Floats, Floats], Floats], labels01: ArrayLike, scores: ArrayLike, weights: ArrayLike | None
) -> float | None:
    labels, values = np.asarray(labels01), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != values.shape or not np.isin(labels, (0, 1)).all():
        raise DataError(
            f"labels {labels.shape} and scores {values.shape} do not fit: give one label, 0 or 1, per score"
        )
    _refuse_not_finite(values)
    if len(labels) == 0:
        return None
    ranking = rank(labels == 1, values, np.arange(len(labels)))
    value = float(area(*count_along(ranking, _multiplicities(weights, len(labels))))[0])
    return None if np.isnan(value) else value


def _multiplicities(weights: ArrayLike | None, images: int) -> Integers:
    if weights is None:
        return np.ones((1, images), dtype=np.int64)
    counts = np.asarray(weights)
    if counts.shape != (images,) or not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
        raise DataError(
            f"weights must be {images} whole numbers of 0 or more, one per image, not {counts.dtype} {counts.shape}"
        )
    return counts.astype(np.int64)[None]


def _refuse_not_finite(values: Floats) -> None:
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise DataError(
            f"{bad} of {values.size} predictions are not finite numbers: the model diverged or its weights are damaged"
        )
