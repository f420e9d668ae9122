"""What moving the threshold does: areas under the ROC and the precision-recall curve, and single points of them.

Everything rests on one descending sort of the scores (`rank`). A resample is a vector of integer
multiplicities, so thousands of replicates cost one sort. `measure` goes through all thresholds of a few
resamples at once; `measure_many` goes through the images and takes all resamples in each step.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.evidence.answers import Flags, Floats, Integers

FIXED = 0.9
"""The specificity at which sensitivity is stated, and the other way round."""
_LOOK_EVERY = 64
_ROUNDING = 1e-6  # counts are whole numbers, their limits are not


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Images in descending order of score.

    `units` `(N,)` says which resampled unit (a patient) each image belongs to, `positive` `(N,)`
    whether it is of the class in question, `ends` `(G,)` where each group of tied scores ends.
    """

    units: Integers
    positive: Flags
    ends: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Areas and points of the curves of R resamples, each `(R,)`, NaN where a resample lacks a class.

    Attributes:
        roc: area under the ROC curve by the trapezoidal rule, which counts ties one half: the midrank statistic
            of Mann and Whitney divided by the number of pairs.
        steps: average precision: precision summed over the steps of recall, tied scores sharing one. Undefined, as
            the area is, also without negatives, where it would be 1 for any scores.
        sensitivity: the highest at a specificity of `FIXED` or more, at a threshold that the scores offer.
        specificity: the highest at a sensitivity of `FIXED` or more.
    """

    roc: Floats
    steps: Floats
    sensitivity: Floats
    specificity: Floats


def rank(positive: Flags, scores: NDArray[np.floating], units: Integers) -> Ranking:
    """Sort the images once; all three arrays are `(N,)`."""
    order = np.argsort(-scores, kind="stable")
    descending = scores[order]
    ends = np.flatnonzero(np.append(descending[1:] != descending[:-1], True)) if len(order) else np.empty(0, int)
    return Ranking(units=units[order], positive=positive[order], ends=ends)


def measure(ranking: Ranking, multiplicities: NDArray[np.integer]) -> Curves:
    """Measure the curves of a few resamples `(R, units)`."""
    if not len(ranking.units):
        return _finish(*(np.zeros(len(multiplicities)) for _ in range(6)))
    true, false = count_along(ranking, multiplicities)
    positives, negatives = true[:, -1], false[:, -1]
    before = np.concatenate([np.zeros_like(true[:, :1]), true[:, :-1]], axis=1)
    steps_right = np.diff(false, axis=1, prepend=0.0)
    found = true + false
    precision = np.divide(true, found, out=np.zeros_like(found), where=found > 0)
    allowed = false <= _most_false(negatives)[:, None]
    enough = true >= _fewest_true(positives)[:, None]
    return _finish(
        positives,
        negatives,
        np.einsum("rg,rg->r", steps_right, true + before) / 2,
        np.einsum("rg,rg->r", true - before, precision),
        np.where(allowed, true, 0.0).max(axis=1),
        np.where(enough, false, np.inf).min(axis=1),
    )


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


def measure_many(ranking: Ranking, weights: Floats) -> Curves:
    """Measure the curves of many resamples; `weights` are their multiplicities, `(units, R)`, rows contiguous.

    One step per group of ties, each a few operations over `(R,)` that stay in the cache.
    """
    walk = _Walk(ranking, weights)
    begin = 0
    units, positive = ranking.units.tolist(), ranking.positive.tolist()
    rows = list(weights)
    for end in ranking.ends.tolist():
        if end == begin:
            walk.step_single(rows[units[begin]], positive=positive[begin])
        else:
            tied = ranking.units[begin : end + 1]
            of_class = ranking.positive[begin : end + 1]
            walk.step_tied(weights[tied[of_class]].sum(axis=0), weights[tied[~of_class]].sum(axis=0))
        begin = end + 1
    return _finish(
        walk.positives,
        walk.negatives,
        walk.positives * walk.negatives - walk.lost,
        walk.steps,
        walk.allowed,
        walk.false_needed,
    )


class _Walk:
    """Running counts of all resamples on the way down the ranking; all arrays `(R,)`.

    `lost` counts the pairs of a positive below a negative, ties one half. `allowed` counts the true positives at
    the lowest threshold with few enough false ones, `false_needed` the false ones where enough true are found.
    """

    def __init__(self, ranking: Ranking, weights: Floats) -> None:
        resamples = weights.shape[1]
        of_units = np.bincount(ranking.units[ranking.positive], minlength=len(weights))
        self.positives = of_units @ weights
        self.negatives = np.bincount(ranking.units, minlength=len(weights)) @ weights - self.positives
        self.most_false, self.fewest_true = _most_false(self.negatives), _fewest_true(self.positives)
        self.true, self.false = np.zeros(resamples), np.zeros(resamples)
        self.lost, self.steps = np.zeros(resamples), np.zeros(resamples)
        self.allowed, self.false_needed = np.zeros(resamples), np.zeros(resamples)
        self._product, self._flags = np.empty(resamples), np.empty(resamples, dtype=np.bool_)
        self._steps_taken = 0
        self._is_early, self._is_allowed, self._is_needed = True, True, True

    def step_single(self, row: Floats, *, positive: bool) -> None:
        """Take in one image."""
        if not positive:
            np.add(self.false, row, out=self.false)
            return
        # Negatives that lie above this positive are the pairs that are lost.
        np.multiply(row, self.false, out=self._product)
        np.add(self.lost, self._product, out=self.lost)
        self._count_positives(row, self.false)

    def step_tied(self, of_class: Floats, others: Floats) -> None:
        """Take in images of equal score: `of_class` and `others` are their multiplicities, summed."""
        self.lost += of_class * (self.false + others / 2)
        self._count_positives(of_class, np.add(self.false, others))
        np.add(self.false, others, out=self.false)

    def _count_positives(self, row: Floats, false: Floats) -> None:
        product, flags = self._product, self._flags
        if self._is_needed:
            np.less(self.true, self.fewest_true, out=flags)
            np.copyto(self.false_needed, false, where=flags)
        np.add(self.true, row, out=self.true)
        np.add(self.true, false, out=product)
        if self._is_early:
            np.maximum(product, 1.0, out=product)
        np.divide(self.true, product, out=product)
        np.multiply(product, row, out=product)
        np.add(self.steps, product, out=self.steps)
        if self._is_allowed:
            np.less_equal(false, self.most_false, out=flags)
            np.copyto(self.allowed, self.true, where=flags)
        self._steps_taken += 1
        if self._steps_taken % _LOOK_EVERY == 0:
            self._look_ahead()

    def _look_ahead(self) -> None:
        """Find out which operations can change nothing any more: counts only rise."""
        self._is_early = bool((self.true + self.false < 1).any())
        self._is_allowed = bool((self.false <= self.most_false).any())
        self._is_needed = bool((self.true < self.fewest_true).any())


def _most_false(negatives: Floats) -> Floats:
    return (1 - FIXED) * negatives + _ROUNDING


def _fewest_true(positives: Floats) -> Floats:
    return FIXED * positives - _ROUNDING


def _finish(
    positives: Floats, negatives: Floats, won: Floats, steps: Floats, allowed: Floats, false_needed: Floats
) -> Curves:
    defined = positives * negatives > 0
    return Curves(
        roc=_divide(won, positives * negatives, where=defined),
        steps=_divide(steps, positives, where=defined),
        sensitivity=_divide(allowed, positives, where=defined),
        specificity=_divide(negatives - false_needed, negatives, where=defined),
    )


def _divide(part: Floats, whole: Floats, *, where: Flags) -> Floats:
    quotient = np.full(len(part), np.nan)
    np.divide(part, whole, out=quotient, where=where)
    return quotient
