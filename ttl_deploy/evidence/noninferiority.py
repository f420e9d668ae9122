"""Is a smaller model as good as the reference? Paired non-inferiority of AUROC, by the bootstrap over patients.

The bootstrap decides, everywhere by the same rule: it knows of several images per patient and of several
classes. Two one-sided tests per model, each at half of what the level leaves (2.5 % for 95 %): "worse by
the margin or more", whose rejection makes `non-inferior`, and "worse by the margin or less", whose rejection makes
`inferior`. A p-value is the share of resampled differences on the side of its hypothesis, the interval turned round
(Efron and Tibshirani 1993, chapters 13 and 16; plus one in both counts, Davison and Hinkley 1997, section 4.2), so
the verdict on one model never contradicts its interval. Holm 1979 corrects each kind over the models.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from ttl_deploy.errors import DataError, UsageError
from ttl_deploy.evidence import delong, holm, intervals, sample_size
from ttl_deploy.evidence.answers import Answers, Floats, Integers, read_answers
from ttl_deploy.evidence.intervals import LEVEL, REPLICATES, Resampled
from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import (
    MARGIN,
    ComparedModel,
    Comparison,
    DelongTest,
    Metric,
    Needed,
    NonInferiority,
    PairedDifference,
    Verdict,
)

FEWEST_PATIENTS = 10
"""With fewer patients on one side of a class, resamples say little about other patients."""
MOST_TIMES = 100
"""Beyond so many times the patients a number is no plan: the observed difference is at the margin, or nearly."""
HIGHEST_LEVEL = 0.999
"""Levels above it would take tens of thousands of resamples."""
_NORMAL = NormalDist()
_ONLY: tuple[Metric, ...] = ("auroc",)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """What all tests of one comparison share.

    `fewest` patients stand on one side of a scored class, with it or without; whoever loses a `share` of
    them loses the margin. `independent`: two classes, and one image per patient.
    """

    labels: Integers
    patients: int
    positives: int
    fewest: int
    classes: int
    independent: bool
    margin: float
    level: float
    models: int

    @property
    def alpha(self) -> float:
        return (1 - self.level) / 2

    @property
    def share(self) -> float:
        return min(self.margin * self.classes, 0.99)

    @property
    def floor(self) -> int:
        """Patients below which a loss of the margin would too often go unseen."""
        return sample_size.patients_to_exclude(self.share, alpha=self.alpha)

    @property
    def margin_floor(self) -> float:
        """The smallest margin at which there are as many patients as the floor asks for."""
        if self.fewest == 0:
            return math.inf
        return (1 - math.pow(self.alpha, 1 / self.fewest)) / self.classes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    """One model's tests before correction, or why there are none; `same` where its predictions are the reference's.

    `resampled` are its differences `(R,)` on the resamples where they are defined.
    """

    model: str
    reason: str = ""
    difference: PairedDifference | None = None
    resampled: Floats = field(default_factory=lambda: np.zeros(0))
    standard_error: float = 0.0
    p_non_inferior: float = 1.0
    p_inferior: float = 1.0
    delong: DelongTest | None = None
    same: bool = False


def compare(
    predictions: Mapping[str, ArrayLike],
    labels: ArrayLike,
    patients: ArrayLike,
    *,
    split: Split,
    patients_known: bool = True,
    margin: float = MARGIN,
    level: float = LEVEL,
    replicates: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare the first model of `predictions` with each of the others, on the same resamples of patients.

    `predictions` holds probabilities `(N, C)`, or `(seeds, N, C)`: then AUROCs are means over seeds.
    `labels` and `patients` are `(N,)`; `replicates` are `enough_replicates` by default. Raises `UsageError` for a
    margin or level out of range, fewer than two models, or too few replicates for so many, and `DataError` where
    arrays do not fit.
    """
    _check_request(len(predictions), margin=margin, level=level)
    count = enough_replicates(len(predictions), level=level) if replicates is None else replicates
    resampled = {
        name: intervals.resample(one, labels, patients, replicates=count, seed=seed, only=_ONLY)
        for name, one in predictions.items()
    }
    return compare_resampled(
        predictions,
        resampled,
        labels,
        patients,
        split=split,
        patients_known=patients_known,
        margin=margin,
        level=level,
    )


def compare_resampled(
    predictions: Mapping[str, ArrayLike],
    resampled: Mapping[str, Resampled],
    labels: ArrayLike,
    patients: ArrayLike,
    *,
    split: Split,
    patients_known: bool = True,
    margin: float = MARGIN,
    level: float = LEVEL,
    in_folds: bool = False,
) -> Comparison:
    """Compare models whose resamples were made before, all of the same patients; the rest is as for `compare`.

    With `in_folds` a model's predictions are of several models, one per fold: then there is no test by DeLong, which
    ranks all images together.
    """
    _check_request(len(predictions), margin=margin, level=level)
    _check_replicates(resampled, level=level)
    checked = {name: read_answers(one, labels) for name, one in predictions.items()}
    reference, *others = checked
    setting = _describe(checked, patients, margin=margin, level=level)
    setting = replace(setting, independent=setting.independent and not in_folds)
    tests = [_test(name, reference, checked, resampled, setting) for name in others]
    return Comparison(
        split=split,
        margin=margin,
        level=level,
        images=checked[reference].images,
        patients=setting.patients,
        positives=setting.positives,
        patients_known=patients_known,
        models=tuple(
            ComparedModel(
                name=name, auroc=intervals.score_resampled(resampled[name], "auroc", split=split, level=level)
            )
            for name in checked
        ),
        verdicts=_decide(tests, setting),
        margin_floor=setting.margin_floor if setting.fewest >= FEWEST_PATIENTS else None,
    )


def enough_replicates(models: int, *, level: float = LEVEL) -> int:
    """Return how many resamples a comparison of so many models takes: `REPLICATES`, or more where it needs more."""
    return max(REPLICATES, fewest_replicates(models, level=level))


def fewest_replicates(models: int, *, level: float = LEVEL) -> int:
    """Return with how many resamples a decision on so many models, the reference among them, is possible at all.

    The smallest p-value is 1 / (replicates + 1), before it is multiplied by the number of models compared.
    """
    return math.ceil(2 * max(models - 1, 0) / (1 - level))


def _check_request(models: int, *, margin: float, level: float) -> None:
    if models < 2:
        raise UsageError(f"{models} model given: name the reference and at least one to compare with it")
    if not 0 < margin < 0.5:
        raise UsageError(f"margin = {margin}: give a difference in AUROC above 0 and below 0.5, such as {MARGIN}")
    if not 0.5 <= level <= HIGHEST_LEVEL:
        raise UsageError(f"level = {level}: give a share from 0.5 to {HIGHEST_LEVEL}, such as {LEVEL}")


def _check_replicates(resampled: Mapping[str, Resampled], *, level: float) -> None:
    replicates = min(len(one.replicates["auroc"]) for one in resampled.values())
    if replicates < (least := fewest_replicates(len(resampled), level=level)):
        raise UsageError(
            f"{replicates} replicates are too few to decide on {len(resampled) - 1} models at level {level}: "
            f"use at least {least}, or a lower level"
        )


def _describe(checked: Mapping[str, Answers], patients: ArrayLike, *, margin: float, level: float) -> _Setting:
    sizes = {name: one.scores.shape[2] for name, one in checked.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"the models predict unequal numbers of classes: {sizes}")
    some = next(iter(checked.values()))
    names, units = np.unique(np.asarray(patients)[some.kept], return_inverse=True)
    truths = some.truth.T[some.has_both]
    return _Setting(
        labels=some.labels,
        patients=len(names),
        positives=min((int((truth == 1).sum()) for truth in truths), default=0),
        fewest=min((_fewest_patients(truth, units) for truth in truths), default=0),
        classes=max(len(truths), 1),
        independent=some.task == "binary" and len(names) == some.images,
        margin=margin,
        level=level,
        models=len(checked) - 1,
    )


def _fewest_patients(truth: Integers, units: Integers) -> int:
    """Return how many patients have positive images, or how many have negative ones: the smaller number."""
    return min(len(np.unique(units[truth == 1])), len(np.unique(units[truth == 0])))


def _test(
    name: str,
    reference: str,
    checked: Mapping[str, Answers],
    resampled: Mapping[str, Resampled],
    setting: _Setting,
) -> _Test:
    a, b = resampled[name], resampled[reference]
    same = np.array_equal(checked[name].scores, checked[reference].scores)
    differences = a.replicates["auroc"] - b.replicates["auroc"]
    known = differences[~np.isnan(differences)]
    reason = a.evaluations["auroc"].reason or _why_undefined(known, len(differences), setting, same=same)
    if reason:
        return _Test(model=name, reason=reason)
    return _Test(
        model=name,
        difference=intervals.subtract_resampled(a, b, reference=reference, level=setting.level),
        resampled=known,
        standard_error=float(known.std(ddof=1)),
        p_non_inferior=_share(known <= -setting.margin),
        p_inferior=_share(known >= -setting.margin),
        delong=_delong(reference, checked[name].scores, checked[reference].scores, setting)
        if setting.independent
        else None,
        same=same,
    )


def _why_undefined(known: Floats, replicates: int, setting: _Setting, *, same: bool) -> str:
    if setting.fewest < FEWEST_PATIENTS:
        return f"too small: a class stands for {setting.fewest} patients only, fewer than {FEWEST_PATIENTS}"
    if 2 * len(known) < replicates:
        return f"{replicates - len(known)} of {replicates} resamples lack a class that is scored"
    if not same and (known == known[0]).all():
        return "all resamples give the same difference, as where both are perfect: its spread is not known"
    return ""


def _share(on_its_side: ArrayLike) -> float:
    """Return the share of resamples on the side of a hypothesis, counting one more that always is."""
    flags = np.asarray(on_its_side)
    return (1 + int(flags.sum())) / (1 + flags.size)


def _delong(reference: str, own: Floats, others: Floats, setting: _Setting) -> DelongTest | None:
    value, error = delong.compare(setting.labels, own[:, :, 0], others[:, :, 0])
    if error == 0:
        return None
    reach = _NORMAL.inv_cdf(1 - setting.alpha) * error
    return DelongTest(
        difference=PairedDifference(
            reference=reference,
            value=value,
            low=max(value - reach, -1.0),
            high=min(value + reach, 1.0),
            level=setting.level,
        ),
        standard_error=error,
        p_non_inferior=_NORMAL.cdf((-setting.margin - value) / error),
    )


def _decide(tests: Sequence[_Test], setting: _Setting) -> tuple[NonInferiority, ...]:
    """Give every model its verdict; undefined ones count as compared, which only makes the correction stricter."""
    non_inferior = holm.correct([test.p_non_inferior for test in tests])
    inferior = holm.correct([test.p_inferior for test in tests])
    smallest = _find_smallest_margins(tests, setting)
    return tuple(
        NonInferiority(model=test.model, verdict="undefined", reason=test.reason)
        if test.difference is None
        else _judge(test, test.difference, (not_worse, worse), margin, setting)
        for test, not_worse, worse, margin in zip(tests, non_inferior, inferior, smallest, strict=True)
    )


def _find_smallest_margins(tests: Sequence[_Test], setting: _Setting) -> list[float]:
    """Return for every model the margin from which on its verdict is `non-inferior`; infinite without one."""
    of_resamples = holm.smallest_margins([test.resampled for test in tests], alpha=setting.alpha)
    of_patients = [0.0 if test.same else setting.margin_floor for test in tests]
    return [max(pair) for pair in zip(of_resamples, of_patients, strict=True)]


def _judge(
    test: _Test,
    difference: PairedDifference,
    corrected: tuple[float, float],
    smallest_margin: float,
    setting: _Setting,
) -> NonInferiority:
    not_worse, worse = corrected
    enough = test.same or setting.fewest >= setting.floor
    verdict: Verdict
    needed = None
    if not_worse <= setting.alpha and enough:
        verdict, reason = "non-inferior", f"a loss of {setting.margin:g} or more is excluded"
    elif worse <= setting.alpha:
        verdict, reason = "inferior", f"surely worse by {setting.margin:g} or more"
    else:
        needed = _need(test.standard_error, difference.value, setting)
        verdict, reason = "inconclusive", _why_inconclusive(setting, decided=not_worse <= setting.alpha, needed=needed)
    return NonInferiority(
        model=test.model,
        verdict=verdict,
        reason="its predictions are the reference's" if test.same else reason,
        difference=difference,
        standard_error=test.standard_error,
        p_non_inferior=test.p_non_inferior,
        p_inferior=test.p_inferior,
        holm_non_inferior=not_worse,
        holm_inferior=worse,
        smallest_margin=smallest_margin if math.isfinite(smallest_margin) else None,
        delong=test.delong,
        needed=needed,
    )


def _need(standard_error: float, observed: float, setting: _Setting) -> Needed | None:
    """Return what a decision needs if the observed difference is the true one, a gain counting as none.

    Observed, because with "no difference" a model that looks worse would get fewer patients than it had; no
    gain, because what looks better is rarely that much so. Corrected for all models at once, Holm's first step.
    """
    assumed = min(observed, 0.0)
    distance = abs(assumed + setting.margin)
    if distance == 0:
        return None
    factor = sample_size.needed_factor(standard_error, distance, alpha=setting.alpha / setting.models)
    if assumed > -setting.margin:
        factor = max(factor, setting.floor / setting.fewest)
    if factor > MOST_TIMES:
        return None
    return Needed(
        positives=math.ceil(factor * setting.positives),
        patients=math.ceil(factor * setting.patients),
        power=sample_size.POWER,
        assumed_difference=assumed,
    )


def _why_inconclusive(setting: _Setting, *, decided: bool, needed: Needed | None) -> str:
    if decided:
        return (
            f"too few patients: a flaw in {setting.share:.2g} of them could go unseen among {setting.fewest}, "
            f"{setting.floor} of each class are needed"
        )
    if needed is None:
        return f"for a difference so near the margin even {MOST_TIMES} times the patients are too few"
    return f"too few positives: {needed.positives:,} would decide with probability {needed.power:.0%}"
