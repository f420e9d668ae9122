"""Percentile bootstrap over patients: how far a score would move with other patients of the same kind.

Resampling patients with replacement gives every patient an integer multiplicity, which weighs all
its images; the images are sorted once and never copied. All metrics, seeds and models that are
scored with the same patients and the same `seed` see the same resamples, so differences are paired.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import metrics
from ttl_deploy.evidence.metrics import Evaluation, Floats, Integers
from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import Metric, PairedDifference, Score

LEVEL = 0.95
REPLICATES = 2000
_CHUNK_ELEMENTS = 2**18  # replicates × images worked on at a time: what fits into a core's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """One model's metrics on a split as it is, and on every resample of its patients.

    `replicates` holds one `(R,)` per metric, NaN where the resample lacks a class the split has.
    """

    evaluations: dict[Metric, Evaluation]
    replicates: dict[Metric, Floats]
    images: int
    patients: int


def score(
    metric: Metric,
    probabilities: ArrayLike,
    labels: ArrayLike,
    patients: ArrayLike,
    *,
    split: Split,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Score:
    """Compute one metric with its interval; arguments as for `scores`."""
    resampled = resample(probabilities, labels, patients, replicates=replicates, seed=seed)
    return score_resampled(resampled, metric, split=split, level=level)


def scores(
    probabilities: ArrayLike,
    labels: ArrayLike,
    patients: ArrayLike,
    *,
    split: Split,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> tuple[Score, ...]:
    """Compute every metric with its interval, all from the same resamples.

    `probabilities` is `(N, C)`, or `(seeds, N, C)`: then value and interval are those of the mean
    over seeds of each seed's metric, and the interval is about patients, not about seeds.
    `labels` `(N,)`; `patients` `(N,)` of any kind that compares.
    """
    resampled = resample(probabilities, labels, patients, replicates=replicates, seed=seed)
    return tuple(score_resampled(resampled, metric, split=split, level=level) for metric in resampled.evaluations)


def paired_difference(
    probabilities_a: ArrayLike,
    probabilities_b: ArrayLike,
    labels: ArrayLike,
    patients: ArrayLike,
    *,
    reference: str,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> PairedDifference:
    """Compute AUROC of a minus AUROC of b (the reference) on the same resamples of the same images."""
    a = resample(probabilities_a, labels, patients, replicates=replicates, seed=seed)
    b = resample(probabilities_b, labels, patients, replicates=replicates, seed=seed)
    return subtract_resampled(a, b, reference=reference, level=level)


def resample(
    probabilities: ArrayLike, labels: ArrayLike, patients: ArrayLike, *, replicates: int = REPLICATES, seed: int = 0
) -> Resampled:
    """Evaluate a model on the split and on `replicates` resamples of its patients; arguments as for `scores`."""
    values, truth = metrics.check_predictions(probabilities, labels)
    names, units = np.unique(np.asarray(patients), return_inverse=True)
    if units.shape != truth.shape:
        raise DataError(f"{len(truth)} labels but {units.size} patient ids: give one patient id per image")
    evaluations = metrics.evaluate_all(values, truth)
    if len(truth) == 0:
        found = {metric: np.full(replicates, np.nan) for metric in evaluations}
    else:
        found = _replicate(values, truth, units, replicates=replicates, seed=seed)
    return Resampled(evaluations=evaluations, replicates=found, images=len(truth), patients=len(names))


def score_resampled(resampled: Resampled, metric: Metric, *, split: Split, level: float = LEVEL) -> Score:
    """Turn one metric of a resampled model into a `Score`."""
    evaluation = resampled.evaluations[metric]
    replicates = resampled.replicates[metric]
    interval = None if evaluation.value is None else percentile_interval(replicates, level=level)
    known = resampled.patients >= 2 and interval is not None and not _is_constant(replicates)
    bounds = np.clip(interval, 0.0, 1.0) if known and interval is not None else None
    return Score(
        metric=metric,
        split=split,
        value=evaluation.value,
        low=None if bounds is None else float(bounds[0]),
        high=None if bounds is None else float(bounds[1]),
        level=level,
        images=resampled.images,
        patients=resampled.patients,
        per_class=evaluation.per_class,
        defined=evaluation.defined,
        method=_describe(resampled, replicates, bounded=bounds is not None, undefined=evaluation.value is None),
        reason=evaluation.reason,
    )


def subtract_resampled(a: Resampled, b: Resampled, *, reference: str, level: float = LEVEL) -> PairedDifference:
    """Compute AUROC of a minus AUROC of b from the resamples they share.

    Where too few resamples hold both classes, or all give the same difference (other than none at all),
    nothing is known, and the bounds are -1 and 1.
    Raises `DataError` where the AUROC is undefined.
    """
    value_a, value_b = a.evaluations["auroc"].value, b.evaluations["auroc"].value
    if value_a is None or value_b is None:
        reason = a.evaluations["auroc"].reason or b.evaluations["auroc"].reason
        raise DataError(f"the AUROC cannot be compared with {reference}: {reason}")
    differences = a.replicates["auroc"] - b.replicates["auroc"]
    interval = percentile_interval(differences, level=level)
    unknown = a.patients < 2 or (value_a != value_b and _is_constant(differences))
    low, high = (-1.0, 1.0) if unknown or interval is None else interval
    return PairedDifference(reference=reference, value=value_a - value_b, low=low, high=high, level=level)


def percentile_interval(replicates: Floats, *, level: float = LEVEL) -> tuple[float, float] | None:
    """Return the central `level` of the defined replicates; None where fewer than half are defined."""
    defined = replicates[~np.isnan(replicates)]
    if len(defined) == 0 or 2 * len(defined) < len(replicates):
        return None
    low, high = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _is_constant(replicates: Floats) -> bool:
    """Tell whether all defined replicates are equal, as at a perfect score: then they say nothing of the spread."""
    defined = replicates[~np.isnan(replicates)]
    return len(defined) > 0 and bool((defined == defined[0]).all())


def _replicate(
    probabilities: Floats, labels: Integers, units: Integers, *, replicates: int, seed: int
) -> dict[Metric, Floats]:
    rankings = metrics.rank_classes(probabilities, labels, units)
    defined = metrics.defined_classes(probabilities, labels)
    right = np.bincount(units, weights=metrics.hits(probabilities, labels).mean(axis=0))
    images = np.bincount(units).astype(np.float64)
    roc, steps, correct = [], [], []
    for multiplicities in draw_patients(len(images), images=len(labels), replicates=replicates, seed=seed):
        areas = metrics.class_areas(rankings, multiplicities)
        roc.append(_mean_of_defined(areas[0], defined))
        steps.append(_mean_of_defined(areas[1], defined))
        correct.append((multiplicities @ right) / (multiplicities @ images))
    return {"auroc": np.concatenate(roc), "auprc": np.concatenate(steps), "accuracy": np.concatenate(correct)}


def _mean_of_defined(areas: Floats, defined: NDArray[np.bool_]) -> Floats:
    """Average `(R, seeds, K)` over the classes the split defines; NaN where a resample lacks one of them.

    Averaging over the classes left in the resample would bootstrap another quantity.
    """
    if not defined.any():
        return np.full(len(areas), np.nan)
    return np.asarray(areas[:, :, defined].mean(axis=(1, 2)))


def draw_patients(patients: int, *, images: int, replicates: int, seed: int) -> Iterator[Integers]:
    """Yield multiplicities `(r, patients)`, each row summing to `patients`."""
    generator = np.random.default_rng(seed)
    size = max(1, _CHUNK_ELEMENTS // max(images, patients))
    for start in range(0, replicates, size):
        rows = min(size, replicates - start)
        drawn = generator.integers(0, patients, size=(rows, patients))
        drawn += patients * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * patients).reshape(rows, patients)


def _describe(resampled: Resampled, replicates: Floats, *, bounded: bool, undefined: bool) -> str:
    if undefined:
        return "no interval: the score is undefined"
    if resampled.patients < 2:
        return "no interval: all images are of one patient"
    missing = int(np.isnan(replicates).sum())
    if not bounded and 2 * missing <= len(replicates):
        return f"no interval: all resamples of {resampled.patients} patients give the same value"
    if not bounded:
        return (
            f"no interval: {missing} of {len(replicates)} resamples of {resampled.patients} patients "
            "lack a class that is scored"
        )
    text = f"percentile bootstrap over {resampled.patients} patients, {len(replicates)} replicates"
    return f"{text}, {missing} of them left out because a class was missing" if missing else text
