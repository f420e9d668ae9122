"""How good predictions are; undefined is None with a reason, never 0.

For every scored class (of two the second, of several each against the rest, of several labels each by itself):

* `auroc`, `auprc`: the areas of `curves`; `sensitivity_at_specificity` and `specificity_at_sensitivity`: their
  points at `FIXED`;
* `sensitivity`, `specificity`: the share of positives, and of negatives, that the decision gets right;
  `balanced_accuracy`: the mean of the two, of several classes the sensitivity alone; `f1`: 2 found / (positives +
  decided for);
* `brier`: the mean squared difference between probability and truth; `calibration_error`: over `counts.BINS` bins of
  probability, the difference between mean probability and share of positives, weighted by images (ECE; Guo et al.
  2017). Chance alone makes the latter greater than 0, the more the fewer the images.

A metric's value is the mean over the classes where it is defined. `accuracy` is the share of images taken for their own
class (per class it is the sensitivity; of several labels, the share of right answers), and `kappa`, for classes that
are grades, Cohen's with quadratic weights: both have one value for all classes. Several seeds are averaged metric by
metric, not prediction by prediction.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import counts, curves
from ttl_deploy.evidence.answers import Answers, Flags, Floats, Integers, read_answers
from ttl_deploy.evidence.curves import Curves, Ranking
from ttl_deploy.records.scores import METRICS, Metric

METRIC_WORDS: dict[Metric, str] = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "sensitivity_at_specificity": f"sensitivity at {100 * curves.FIXED:g} % specificity",
    "specificity_at_sensitivity": f"specificity at {100 * curves.FIXED:g} % sensitivity",
    "f1": "F1",
    "brier": "Brier score (lower is better)",
    "calibration_error": "calibration error (lower is better)",
    "kappa": "kappa, quadratic weights",
}
"""What readers know the metrics by."""
OF_CURVES: tuple[Metric, ...] = ("auroc", "auprc", "sensitivity_at_specificity", "specificity_at_sensitivity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Metrics of R resamples, S seeds and K scored classes, NaN where undefined.

    `per_class` holds `(R, S, K)`; `whole` `(R, S)` of those metrics that are no mean over classes.
    """

    per_class: dict[Metric, Floats]
    whole: dict[Metric, Floats]

    def value(self, metric: Metric, defined: Flags) -> Floats:
        """Return `(R, S)`: the mean over the `defined` classes, NaN where a resample lacks one of them.

        Averaging over the classes left in a resample would be another quantity.
        """
        if metric in self.whole:
            return self.whole[metric]
        values = self.per_class[metric]
        if not defined.any():
            return np.full(values.shape[:2], np.nan)
        return np.asarray(values[:, :, defined].mean(axis=2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One metric on one set of images; `value` is None with a `reason` where it is undefined.

    `per_class`, `defined` and `per_seed` are those of `records.scores.Score`.
    """

    value: float | None
    per_class: tuple[float | None, ...]
    defined: int
    reason: str = ""
    per_seed: tuple[float | None, ...] = ()


def auroc(labels01: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Return the area under the ROC curve of binary labels `(N,)`; None where only one class is present.

    `weights` are integer multiplicities of the images, all 1 by default. Raises `DataError` for
    scores that are not finite numbers.
    """
    return _of_binary(lambda found: found.roc, labels01, scores, weights)


def average_precision(labels01: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float | None:
    """Return the average precision of binary labels `(N,)`; None where only one class is present.

    No interpolation, tied scores share a threshold; `weights` as in `auroc`.
    """
    return _of_binary(lambda found: found.steps, labels01, scores, weights)


def evaluate(
    metric: Metric, probabilities: ArrayLike, labels: ArrayLike, *, threshold: float | None = None
) -> Evaluation:
    """Compute one metric without an interval; predictions, labels and threshold as in `answers.read_answers`."""
    answers = read_answers(probabilities, labels, threshold=threshold)
    return evaluate_all(answers, metrics=(metric,))[metric]


def evaluate_all(answers: Answers, *, metrics: Iterable[Metric] = METRICS) -> dict[Metric, Evaluation]:
    """Compute several metrics of checked answers."""
    wanted = tuple(metrics)
    measured = measure_once(answers, wanted)
    return {metric: _evaluation(metric, measured, answers) for metric in wanted}


def metrics_of(answers: Answers, *, graded: bool) -> tuple[Metric, ...]:
    """Return the metrics that make sense for a task; kappa only for several classes that are `graded`."""
    kappa = graded and answers.task == "multiclass"
    return tuple(metric for metric in METRICS if metric != "kappa" or kappa)


def measure_once(answers: Answers, metrics: Iterable[Metric]) -> Measured:
    """Measure the images as they are, a single resample."""
    wanted = set(metrics)
    images = np.arange(answers.images)
    once = np.ones((1, answers.images), dtype=np.int64)
    measured: dict[Metric, Floats] = {}
    if wanted & set(OF_CURVES):
        measured = _gather(
            [[curves.measure(one, once) for one in of_seed] for of_seed in rank_classes(answers, images)]
        )
    if wanted <= set(OF_CURVES):
        return Measured(per_class=measured, whole={})
    graded = "kappa" in wanted and answers.task == "multiclass"
    sums = counts.sum_up(answers, np.zeros(answers.images, dtype=np.int64), graded=graded)
    return join(measured, counts.total(sums, np.ones((len(sums.basic), 1))), answers)


def rank_classes(answers: Answers, units: Integers) -> tuple[tuple[Ranking, ...], ...]:
    """Sort once per seed and scored class, those images whose label of it is known."""
    known = [np.flatnonzero(column >= 0) for column in answers.truth.T]
    return tuple(
        tuple(curves.rank(answers.truth[rows, k] == 1, of_seed[rows, k], units[rows]) for k, rows in enumerate(known))
        for of_seed in answers.scores
    )


def measure_resamples(
    rankings: tuple[tuple[Ranking, ...], ...], sums: counts.Sums | None, weights: Floats, answers: Answers
) -> Measured:
    """Measure R resamples of U units, whose multiplicities are `weights` `(U, R)`; without sums only the curves."""
    found = _gather([[curves.measure_many(one, weights) for one in of_seed] for of_seed in rankings])
    if sums is None:
        return Measured(per_class=found, whole={})
    return join(found, counts.total(sums, weights), answers)


def join(of_curves: dict[Metric, Floats], totals: counts.Sums, answers: Answers) -> Measured:
    """Lay the metrics of curves and those of counts together."""
    return Measured(
        per_class={**of_curves, **counts.measure(totals, task=answers.task)}, whole=dict(counts.measure_whole(totals))
    )


def _gather(found: list[list[Curves]]) -> dict[Metric, Floats]:
    """Stack curves by seed and class to `(R, S, K)` per metric."""
    fields: dict[Metric, Callable[[Curves], Floats]] = {
        "auroc": lambda one: one.roc,
        "auprc": lambda one: one.steps,
        "sensitivity_at_specificity": lambda one: one.sensitivity,
        "specificity_at_sensitivity": lambda one: one.specificity,
    }
    return {
        metric: np.stack([np.stack([read(one) for one in of_seed], axis=-1) for of_seed in found], axis=1)
        for metric, read in fields.items()
    }


def _evaluation(metric: Metric, measured: Measured, answers: Answers) -> Evaluation:
    if metric == "kappa" and "kappa" not in measured.whole:
        return Evaluation(value=None, per_class=(), defined=0, reason="kappa is for three or more classes")
    per_class = measured.per_class[metric][0].mean(axis=0) if metric in measured.per_class else np.empty(0)
    defined = ~np.isnan(per_class)
    of_seeds = measured.value(metric, defined)[0]
    value = None if np.isnan(of_seeds).any() or not answers.images else float(of_seeds.mean())
    return Evaluation(
        value=value,
        per_class=tuple(_number(one) for one in per_class),
        defined=int(defined.sum()),
        reason="" if value is not None else _why_undefined(answers),
        per_seed=tuple(_number(one) for one in of_seeds),
    )


def _why_undefined(answers: Answers) -> str:
    if not answers.images:
        return "no images" if not len(answers.kept) else f"no label is known of {len(answers.kept)} images"
    if answers.task == "multilabel":
        return "no label has both positive and negative images"
    if (answers.labels == answers.labels[0]).all():
        return f"all {answers.images} images are of class {answers.labels[0]}"
    return "all images are taken for one class"


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _of_binary(
    read: Callable[[Curves], Floats], labels01: ArrayLike, scores: ArrayLike, weights: ArrayLike | None
) -> float | None:
    labels, values = np.asarray(labels01), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != values.shape or not np.isin(labels, (0, 1)).all():
        raise DataError(
            f"labels {labels.shape} and scores {values.shape} do not fit: give one label, 0 or 1, per score"
        )
    if not np.isfinite(values).all():
        raise DataError(f"{int((~np.isfinite(values)).sum())} of {values.size} scores are not finite numbers")
    ranking = curves.rank(labels == 1, values, np.arange(len(labels)))
    return _number(float(read(curves.measure(ranking, _multiplicities(weights, len(labels))))[0]))


def _multiplicities(weights: ArrayLike | None, images: int) -> Integers:
    if weights is None:
        return np.ones((1, images), dtype=np.int64)
    counted: NDArray[Any] = np.asarray(weights)
    if counted.shape != (images,) or not np.issubdtype(counted.dtype, np.integer) or (counted < 0).any():
        raise DataError(
            f"weights must be {images} whole numbers of 0 or more, one per image, not {counted.dtype} {counted.shape}"
        )
    return counted.astype(np.int64)[None]
