"""From which probability on a model of two classes says the second one: chosen on validation, by a stated rule.

An image is called positive (class 1) where its probability reaches the threshold. The threshold lies halfway between
two neighbouring scores of the split it was chosen on, so that another runtime's rounding flips no decision there.
Sensitivity and specificity at it are too good on the split it was chosen on, and not on any other.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttl_deploy.errors import DataError, InfeasibleError, UnknownNameError, UsageError
from ttl_deploy.evidence import intervals
from ttl_deploy.records.artifacts import OPERATING_RULES, OperatingPoint, OperatingRule
from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import Metric, Score

METRICS: tuple[Metric, ...] = ("sensitivity", "specificity", "accuracy", "balanced_accuracy", "f1")
"""What is stated at an operating point."""
_ROUNDING = 1e-9
_BLOCK_ELEMENTS = 2**20  # replicates × patients worked on at a time: several arrays of that size lie in memory
_GOALS: dict[OperatingRule, str] = {
    "argmax": "The class with the highest probability; no threshold was chosen.",
    "youden": "The threshold with the largest sum of sensitivity and specificity (Youden's index); "
    "of equals the one with the highest sensitivity.",
    "sensitivity": "Of all thresholds with a sensitivity of at least {target:g}, the one with the highest specificity; "
    "of equals the one with the highest sensitivity.",
    "specificity": "Of all thresholds with a specificity of at least {target:g}, the one with the highest sensitivity; "
    "of equals the one with the highest specificity.",
    "each": "Every class by itself is taken as present from a probability of 0.5 on; no threshold was chosen.",
}
PRESENT_FROM = 0.5
"""From which probability on a class is taken as present, where an image can have several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a threshold is chosen; `target` is the share that sensitivity or specificity must reach."""

    name: OperatingRule
    target: float | None = None

    def __str__(self) -> str:
        return self.name if self.target is None else f"{self.name}={self.target:g}"

    @property
    def in_words(self) -> str:
        """The rule as a sentence."""
        return _GOALS[self.name].format(target=self.target)


ARGMAX = Rule(name="argmax")
EACH = Rule(name="each")


def parse_rule(text: str) -> Rule:
    """Read `argmax`, `youden`, `sensitivity=0.95` or `specificity=0.9`; raises `UsageError` for anything else."""
    name, sign, share = text.strip().partition("=")
    known = {str(one): one for one in OPERATING_RULES}
    if name not in known:
        raise UnknownNameError("operating point", name, known)
    if name in ("argmax", "youden"):
        if sign:
            raise UsageError(f"operating point {text!r}: {name} takes no share; give just {name}")
        return Rule(name=known[name])
    return Rule(name=known[name], target=_share(text, share))


def check_classes(rule: Rule, classes: int, *, multilabel: bool = False) -> None:
    """Raise `UsageError` where the rule needs a threshold, but there are not two classes to tell apart."""
    if rule.name not in ("argmax", "each") and multilabel:
        raise UsageError(
            f"operating point {rule}: a threshold is for two classes, and here an image can have several: leave it at "
            "argmax, which takes each as present from 0.5 on; or search with --label for one finding"
        )
    if rule.name not in ("argmax", "each") and classes != 2:
        raise UsageError(
            f"operating point {rule}: a threshold is for two classes, and there are {classes}; leave it at argmax"
        )


def choose_operating_point(
    rule: Rule,
    probabilities: ArrayLike,
    labels: ArrayLike,
    patients: ArrayLike,
    *,
    split: Split = "val",
    level: float = intervals.LEVEL,
    replicates: int = intervals.REPLICATES,
    seed: int = 0,
) -> OperatingPoint:
    """Choose the threshold on (calibrated) probabilities `(N, C)` of one split, and say how sure it is.

    The interval repeats the rule on resamples of patients and takes percentiles. `scores` are left empty. With labels
    `(N, C)`, several per image, `argmax` becomes `each`. Raises
    `UsageError` unless there are two classes, `DataError` where all images are of one, and `InfeasibleError` where
    no threshold that the rule allows finds both classes.
    """
    given = np.asarray(labels)
    known = (given >= 0) if given.ndim == 1 else (given >= 0).any(axis=1)  # -1: nobody knows it
    values, truth = np.asarray(probabilities)[known], given[known]
    units = np.unique(np.asarray(patients)[known], return_inverse=True)[1]
    check_classes(rule, values.shape[1], multilabel=given.ndim == 2)
    rule = EACH if given.ndim == 2 else rule
    people = int(units.max(initial=-1)) + 1
    threshold, interval, method = None, None, "no interval: no threshold was chosen"
    if rule.name not in ("argmax", "each"):
        cuts = _Cuts.of(values[:, 1], truth, units)
        threshold = _chosen(rule, cuts, split)
        drawn = intervals.draw_patients(people, images=len(truth), replicates=replicates, seed=seed)
        blocks = (block for one in drawn for block in np.array_split(one, -(-one.size // _BLOCK_ELEMENTS)))
        repeated = np.concatenate([_thresholds(rule, cuts, block)[0] for block in blocks])
        interval = intervals.percentile_interval(repeated, level=level) if people > 1 else None
        method = _describe(repeated, people, known=interval is not None)
    return OperatingPoint(
        rule=rule.name,
        target=rule.target,
        threshold=threshold,
        low=None if interval is None else interval[0],
        high=None if interval is None else interval[1],
        level=level,
        split=split,
        images=len(truth),
        patients=people,
        method=method,
        sentence=rule.in_words,
    )


def with_scores(point: OperatingPoint, scores: Iterable[Score]) -> OperatingPoint:
    """Return the operating point with those of a model's scores, decided by its threshold, that are stated at it."""
    return replace(point, scores=tuple(score for score in scores if score.metric in METRICS))


def count_near(
    probabilities: NDArray[np.floating], threshold: float | None, *, limit: float, multilabel: bool = False
) -> int:
    """Count the images `(N, C)` whose decision could change if every probability moved by up to `limit`."""
    if multilabel:
        return int((np.abs(probabilities.astype(np.float64) - PRESENT_FROM) <= limit).any(axis=1).sum())
    if threshold is not None:
        return int((np.abs(probabilities[:, 1].astype(np.float64) - threshold) <= limit).sum())
    highest = np.sort(probabilities.astype(np.float64), axis=1)[:, -2:]
    return int((highest[:, 1] - highest[:, 0] <= 2 * limit).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cuts:
    """The scores of a split in descending order, `(N,)`, with the places where a threshold can lie.

    `scores` `(G,)` are the distinct ones, `ends` `(G,)` their last places among the images.
    """

    scores: NDArray[np.float64]
    ends: NDArray[np.intp]
    positive: NDArray[np.int64]
    units: NDArray[np.intp]

    @classmethod
    def of(cls, scores: NDArray[np.floating], labels: NDArray[np.integer], units: NDArray[np.intp]) -> "_Cuts":
        """Sort the images by score once."""
        if len(set(labels.tolist())) < 2:
            raise DataError(
                f"all {len(labels)} images are of one class, so no threshold can be chosen: leave it at argmax"
            )
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order].astype(np.float64)
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        return cls(scores=ranked[ends], ends=ends, positive=(labels[order] == 1).astype(np.int64), units=units[order])

    def count(self, multiplicities: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count true and false positives of every threshold in every resample `(R, patients)`, two `(R, 1 + G)`.

        The first threshold is above all scores; each next one lets in the next lower score.
        """
        weights = multiplicities[:, self.units].astype(np.int64)
        true = np.cumsum(weights * self.positive, axis=1)[:, self.ends]
        false = np.cumsum(weights, axis=1)[:, self.ends] - true
        none = np.zeros((len(weights), 1), dtype=np.int64)
        return np.hstack([none, true]), np.hstack([none, false])


def _thresholds(
    rule: Rule, cuts: _Cuts, multiplicities: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Choose in every resample: thresholds, true and false positives, each `(R,)`; NaN where it lacks a class."""
    true, false = cuts.count(multiplicities)
    rows, best = np.arange(len(true)), _merit(rule, true, false).argmax(axis=1)
    found = (true[rows, best], false[rows, best])
    same = (true == found[0][:, None]) & (false == found[1][:, None])
    following = best + same.sum(axis=1)  # scores that a resample lacks change no count, and are passed over
    bounds = np.concatenate([[1.0], cuts.scores, [0.0]])
    values = _halfway(bounds[best], bounds[np.minimum(following, len(bounds) - 1)])
    values[(true[:, -1] == 0) | (false[:, -1] == 0)] = np.nan
    return values, *found


def _merit(rule: Rule, true: NDArray[np.int64], false: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank thresholds `(R, 1 + G)` by the rule, in whole numbers: no equals are told apart by rounding.

    What the rule does not allow is -1. Of thresholds with the same counts, the first is the one to take.
    """
    positives, negatives = true[:, -1:], false[:, -1:]
    right = negatives - false
    share = rule.target or 0.0
    if rule.name == "youden":
        allowed, merit = true >= 0, (true * negatives + right * positives) * (positives + 1) + true
    elif rule.name == "sensitivity":
        allowed, merit = true >= share * positives - _ROUNDING, right * (positives + 1) + true
    else:
        allowed, merit = right >= share * negatives - _ROUNDING, true * (negatives + 1) + right
    ranked: NDArray[np.int64] = np.where(allowed, merit, -1)
    return ranked


def _halfway(upper: NDArray[np.float64], lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the middle in single precision, which probabilities have; the upper score where it rounds to the lower."""
    middle = ((upper + lower) / 2).astype(np.float32).astype(np.float64)
    return np.where(middle > lower, middle, upper)


def _chosen(rule: Rule, cuts: _Cuts, split: Split) -> float:
    """Choose on the images as they are; raises `InfeasibleError` where that calls all of them the same."""
    once = np.ones((1, int(cuts.units.max()) + 1), dtype=np.int64)
    values, true, false = _thresholds(rule, cuts, once)
    negatives = len(cuts.positive) - int(cuts.positive.sum())
    if true[0] == 0 or false[0] == negatives:
        answer = "positive" if true[0] else "negative"
        advice = "leave it at argmax" if rule.target is None else "ask for a lower share, or leave it at argmax"
        raise InfeasibleError(
            f"operating point {rule}: on the {split} split no threshold does better by this rule than calling every "
            f"image {answer}; {advice}"
        )
    return float(values[0])


def _describe(repeated: NDArray[np.float64], patients: int, *, known: bool) -> str:
    missing = int(np.isnan(repeated).sum())
    if not known:
        why = (
            "all images are of one patient" if patients < 2 else f"{missing} of {len(repeated)} resamples lack a class"
        )
        return f"no interval: {why}"
    text = f"the rule repeated on {len(repeated)} resamples of {patients} patients, percentiles; temperature as fitted"
    return f"{text}; {missing} of them left out because a class was missing" if missing else text


def _share(text: str, given: str) -> float:
    try:
        share = float(given)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UsageError(
            f"operating point {text!r}: give a share above 0 and below 1, such as {text.partition('=')[0]}=0.9"
        )
    return share
