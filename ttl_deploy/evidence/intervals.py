"""Percentile bootstrap over patients: how far a score would move with other patients of the same kind.

Resampling patients with replacement gives every patient an integer multiplicity, which weighs all
its images; the images are sorted once and never copied. All metrics, seeds and models that are
scored with the same patients and the same `seed` see the same resamples, so differences are paired.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import counts, delong, metrics
from ttl_deploy.evidence.answers import UNKNOWN, Answers, Floats, Integers, read_answers
from ttl_deploy.evidence.metrics import Evaluation
from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import METRICS, Metric, PairedDifference, Score

LEVEL = 0.95
REPLICATES = 2000
_CHUNK_ELEMENTS = 2**23
"""Patients times replicates worked on at a time: few enough for memory, many enough that a step is worth its call."""
_BLOCK = 256
_AUROC: tuple[Metric, ...] = ("auroc",)
_UNBOUNDED: tuple[Metric, ...] = ("calibration_error",)
"""Chance adds to it in every sample and once more in every resample. Percentiles held the truth in no simulated
study, percentiles mirrored at the value in 61 to 78 % (docs/metrics.md): instead, what chance would make is stated."""
_CHANCE_DRAWS = 40
_LOWEST: dict[Metric, float] = {"kappa": -1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """One model's metrics on a split as it is, and on every resample of its patients.

    `replicates` holds one `(R,)` per metric, NaN where the resample lacks a class the split has.
    `auroc_error` is DeLong's standard error of the AUROC, where cases are independent and classes are two;
    `chance` the calibration error that these probabilities would show on average, were they the truth.
    """

    evaluations: dict[Metric, Evaluation]
    replicates: dict[Metric, Floats]
    images: int
    patients: int
    auroc_error: float | None = None
    chance: float | None = None


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
    resampled = resample(probabilities, labels, patients, replicates=replicates, seed=seed, graded=True, only=(metric,))
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
    threshold: float | None = None,
    graded: bool = False,
) -> tuple[Score, ...]:
    """Compute every metric with its interval, all from the same resamples.

    `probabilities` is `(N, C)`, or `(seeds, N, C)`: then value and interval are those of the mean
    over seeds of each seed's metric, and the interval is about patients, not about seeds.
    `labels` and `threshold` as in `answers.read_answers`; images without a known label are left out.
    `patients` `(N,)` of any kind that compares. `graded`: classes are grades in their order, so that
    kappa makes sense.
    """
    resampled = resample(
        probabilities, labels, patients, replicates=replicates, seed=seed, threshold=threshold, graded=graded
    )
    return score_all(resampled, split=split, level=level)


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
    a = resample(probabilities_a, labels, patients, replicates=replicates, seed=seed, only=_AUROC)
    b = resample(probabilities_b, labels, patients, replicates=replicates, seed=seed, only=_AUROC)
    return subtract_resampled(a, b, reference=reference, level=level)


def resample(
    probabilities: ArrayLike,
    labels: ArrayLike,
    patients: ArrayLike,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    threshold: float | None = None,
    graded: bool = False,
    only: Collection[Metric] = METRICS,
) -> Resampled:
    """Evaluate a model on the split and on `replicates` resamples of its patients; arguments as for `scores`.

    `only` leaves out all other metrics, and the work for them.
    """
    answers = read_answers(probabilities, labels, threshold=threshold)
    given = np.asarray(patients)
    if given.shape != answers.kept.shape:
        raise DataError(f"{len(answers.kept)} labels but {given.size} patient ids: give one patient id per image")
    names, units = np.unique(given[answers.kept], return_inverse=True)
    wanted = [metric for metric in metrics.metrics_of(answers, graded=graded) if metric in only]
    evaluations = metrics.evaluate_all(answers, metrics=wanted)
    if answers.images:
        found = _replicate(answers, units, evaluations, replicates=replicates, seed=seed)
    else:
        found = {metric: np.full(replicates, np.nan) for metric in wanted}
    return Resampled(
        evaluations=evaluations,
        replicates=found,
        images=answers.images,
        patients=len(names),
        auroc_error=_delong_error(answers) if len(names) == answers.images else None,
        chance=_chance_error(answers, seed=seed) if answers.images and "calibration_error" in wanted else None,
    )


def score_all(resampled: Resampled, *, split: Split, level: float = LEVEL) -> tuple[Score, ...]:
    """Turn every metric of a resampled model into a `Score`."""
    return tuple(score_resampled(resampled, metric, split=split, level=level) for metric in resampled.evaluations)


def score_resampled(resampled: Resampled, metric: Metric, *, split: Split, level: float = LEVEL) -> Score:
    """Turn one metric of a resampled model into a `Score`."""
    evaluation = resampled.evaluations[metric]
    replicates = resampled.replicates[metric]
    unbounded = evaluation.value is None or metric in _UNBOUNDED
    interval = None if unbounded else percentile_interval(replicates, level=level)
    known = resampled.patients >= 2 and interval is not None and not _is_constant(replicates)
    bounds = np.clip(interval, _LOWEST.get(metric, 0.0), 1.0) if known and interval is not None else None
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
        method=_describe(metric, resampled, bounded=bounds is not None, undefined=evaluation.value is None),
        reason=evaluation.reason,
        per_seed=evaluation.per_seed,
        delong=_delong_interval(resampled, level=level) if metric == "auroc" else None,
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
    answers: Answers, units: Integers, evaluations: dict[Metric, Evaluation], *, replicates: int, seed: int
) -> dict[Metric, Floats]:
    """Return the mean over seeds of every metric on every resample, `(R,)` each."""
    rankings = metrics.rank_classes(answers, units)
    sums = None
    if not evaluations.keys() <= set(metrics.OF_CURVES):
        sums = counts.sum_up(answers, units, graded="kappa" in evaluations)
    defined = {
        metric: np.array([one is not None for one in evaluation.per_class], dtype=np.bool_)
        for metric, evaluation in evaluations.items()
    }
    found: dict[Metric, list[Floats]] = {metric: [] for metric in evaluations}
    for multiplicities in draw_patients(int(units.max()) + 1, images=len(units), replicates=replicates, seed=seed):
        measured = metrics.measure_resamples(rankings, sums, _turn(multiplicities), answers)
        for metric, values in found.items():
            values.append(measured.value(metric, defined[metric]).mean(axis=1))
    return {metric: np.concatenate(values) for metric, values in found.items()}


def _turn(multiplicities: NDArray[np.int32]) -> Floats:
    """Return them as `(patients, r)`, rows contiguous; in blocks, because one long transposition misses the cache."""
    turned = np.empty(multiplicities.shape[::-1])
    for start in range(0, len(turned), _BLOCK):
        turned[start : start + _BLOCK] = multiplicities[:, start : start + _BLOCK].T
    return turned


def _delong_error(answers: Answers) -> float | None:
    """Return DeLong's standard error of the mean over seeds; None where it is not defined."""
    positives = int((answers.truth == 1).sum())
    if answers.task != "binary" or min(positives, answers.images - positives) < 2:
        return None
    _, covariance = delong.covariance(answers.labels, answers.scores[:, :, 0])
    return float(np.sqrt(max(covariance.mean(), 0.0)))


def _chance_error(answers: Answers, *, seed: int) -> float:
    """Return the mean calibration error of images whose truth is drawn with the very probabilities."""
    generator = np.random.default_rng(seed)
    errors = []
    for _ in range(_CHANCE_DRAWS):
        drawn = generator.random(answers.scores.shape) < answers.scores
        errors.append(counts.calibration_errors(answers.scores, drawn, known=answers.truth != UNKNOWN))
    return float(np.nanmean(errors))


def _delong_interval(resampled: Resampled, *, level: float) -> tuple[float, float] | None:
    """Return AUROC plus and minus DeLong's error; None where that is 0 and so says nothing, as at a perfect score."""
    value, error = resampled.evaluations["auroc"].value, resampled.auroc_error
    if value is None or not error:
        return None
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    return max(value - reach, 0.0), min(value + reach, 1.0)


def draw_patients(patients: int, *, images: int, replicates: int, seed: int) -> Iterator[NDArray[np.int32]]:
    """Yield multiplicities `(r, patients)`, each row summing to `patients`; the draws depend on the seed alone."""
    generator = np.random.default_rng(seed)
    size = max(1, _CHUNK_ELEMENTS // max(images, patients))
    for start in range(0, replicates, size):
        drawn = np.empty((min(size, replicates - start), patients), dtype=np.int32)
        for row in drawn:
            row[:] = np.bincount(generator.integers(0, patients, size=patients), minlength=patients)
        yield drawn


def _describe(metric: Metric, resampled: Resampled, *, bounded: bool, undefined: bool) -> str:
    replicates = resampled.replicates[metric]
    if undefined:
        return "no interval: the score is undefined"
    if metric in _UNBOUNDED and resampled.chance is not None:
        return (
            "no interval: chance adds to this error in every sample; of perfectly calibrated probabilities it would be "
            f"{resampled.chance:.3f} on average"
        )
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
