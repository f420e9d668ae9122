"""AUROCs of groups of patients: how far two of them differ, and whether all are equal.

Obuchowski 1997 (Biometrics 53:567) gives the variance of an AUROC where patients have several images: the structural
components of DeLong, DeLong and Clarke-Pearson 1988 are summed by patient first. With one image per patient it is
DeLong's.

Equality is tested by permutation: whole patients are dealt out to the groups anew, those with positive images, those
with negative ones and those with both among themselves, so that groups with more disease are none the more unlike. The
statistic is Cochran's Q (Cochran 1954, Biometrics 10:101): squared distances from the weighted mean, each divided by
its variance. Dividing keeps the test right where groups are alike in their AUROC, but not in the spread or the level of
their scores (Chung and Romano 2013, Annals of Statistics 41:484, on studentised permutation tests).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.evidence.answers import Flags, Floats, Integers

PERMUTATIONS = 1000
Groups = NDArray[np.int16]
"""The group of every unit; few bits, which sort faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sorted:
    """Images in ascending order of score: whether positive, their unit (patient), and the number of their score.

    All `(N,)`. `scores` are numbered upwards, equal ones alike; None where all differ. `with_positives` and
    `with_negatives` `(U,)` tell which units have such images.
    """

    positive: Flags
    units: Integers
    scores: Integers | None
    with_positives: Flags
    with_negatives: Flags


@dataclass(frozen=True, slots=True, kw_only=True)
class _Areas:
    """AUROC and Obuchowski's variance of every group, `(K,)`; and the least variance that is believed."""

    area: Floats
    variance: Floats
    least_variance: Floats


def compare_with_rest(
    positive: Flags, scores: Floats, patients: NDArray[np.generic], inside: Flags, *, level: float
) -> tuple[float, float, float]:
    """Return AUROC of the images `inside` minus that of the others, and the bounds of its interval at `level`.

    All `(N,)`; no patient has images in both, and either has two patients or more with positive images, and with
    negative ones. Each AUROC gets an interval on the scale of log odds, and the difference's is put together from their
    lower and upper reaches (Zou and Donner 2008, Statistics in Medicine 27:1693), because close to 1 the usual
    symmetric one covers too little.
    """
    ordered, of_unit = _sort(positive, scores, patients, (~inside).astype(np.int64))
    areas = _measure(ordered, of_unit, groups=2)
    (own, low, high), (others, others_low, others_high) = (_interval(areas, group, level=level) for group in (0, 1))
    down, up = math.hypot(own - low, others_high - others), math.hypot(high - own, others - others_low)
    return own - others, own - others - down, own - others + up


def p_of_equality(
    positive: Flags,
    scores: Floats,
    patients: NDArray[np.generic],
    groups: Integers,
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float:
    """Return the p-value of "the AUROC is the same in all groups".

    All `(N,)`; `groups` counts from 0, all images of a patient are in one, and every group has two
    patients or more with positive images, and with negative ones.
    """
    ordered, of_unit = _sort(positive, scores, patients, groups)
    count = int(groups.max()) + 1
    observed = _heterogeneity(_measure(ordered, of_unit, groups=count))
    drawn = [
        _heterogeneity(_measure(ordered, dealt, groups=count))
        for dealt in _deal(ordered, of_unit, permutations=permutations, seed=seed)
    ]
    # Equal statistics can differ by rounding.
    return float((1 + np.count_nonzero(np.array(drawn) >= observed * (1 - 1e-9))) / (1 + permutations))


def _deal(ordered: _Sorted, of_unit: Groups, *, permutations: int, seed: int) -> Iterator[Groups]:
    """Yield assignments of units to groups `(U,)`, units of each kind permuted among themselves."""
    generator = np.random.default_rng(seed)
    kinds = ordered.with_positives + 2 * ordered.with_negatives
    of_kinds = [np.flatnonzero(kinds == kind) for kind in (1, 2, 3)]
    for _ in range(permutations):
        dealt = of_unit.copy()
        for members in of_kinds:
            dealt[members] = generator.permutation(of_unit[members])
        yield dealt


def _heterogeneity(areas: _Areas) -> float:
    """Return Cochran's Q."""
    weight = 1 / np.maximum(areas.variance, areas.least_variance)
    mean = (weight @ areas.area) / weight.sum()
    return float(weight @ (areas.area - mean) ** 2)


def _interval(areas: _Areas, group: int, *, level: float) -> tuple[float, float, float]:
    """Return one group's AUROC and the bounds of its interval."""
    area, least = float(areas.area[group]), float(areas.least_variance[group])
    variance = max(float(areas.variance[group]), least)
    # A perfect AUROC has no odds, so it counts as one that is less than perfect by the least error.
    inner = min(max(area, math.sqrt(least)), 1 - math.sqrt(least))
    odds = math.log(inner / (1 - inner))
    reach = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance) / (inner * (1 - inner))
    low, high = (1 / (1 + math.exp(-one)) for one in (odds - reach, odds + reach))
    return area, min(low, area), 1.0 if area > inner else max(high, area)


def _sort(positive: Flags, scores: Floats, patients: NDArray[np.generic], groups: Integers) -> tuple[_Sorted, Groups]:
    """Sort the images once; returns them and the group of every unit, `(U,)`."""
    names, units = np.unique(patients, return_inverse=True)
    order = np.argsort(scores, kind="stable")
    distinct, numbers = np.unique(scores[order], return_inverse=True)
    of_unit = np.zeros(len(names), dtype=np.int16)
    of_unit[units] = groups
    found = _Sorted(
        positive=positive[order],
        units=units[order],
        scores=None if len(distinct) == len(scores) else numbers,
        with_positives=np.bincount(units[positive], minlength=len(names)) > 0,
        with_negatives=np.bincount(units[~positive], minlength=len(names)) > 0,
    )
    return found, of_unit


def _measure(ordered: _Sorted, of_unit: Groups, *, groups: int) -> _Areas:
    """Compute every group's AUROC and its variance.

    The images are put group by group, in ascending order of score within each; so one pass serves all groups.
    """
    of_image = of_unit[ordered.units]
    order = np.argsort(of_image, kind="stable")
    group, positive, units = of_image[order], ordered.positive[order], ordered.units[order]
    positives = np.bincount(group[positive], minlength=groups).astype(np.float64)
    negatives = np.bincount(group[~positive], minlength=groups).astype(np.float64)
    ties = None if ordered.scores is None else ordered.scores[order]
    m, n = np.asarray(positives[group]), np.asarray(negatives[group])
    below = _count_below(~positive, negatives, group, ties)
    above = m - _count_below(positive, positives, group, ties)
    area = np.bincount(group[positive], weights=below[positive], minlength=groups) / (positives * negatives)
    # Structural components less the area, summed by unit; a unit's images are all in one group.
    component = np.where(positive, (below / n - area[group]) / m, (above / m - area[group]) / n)
    own, others = (
        np.bincount(units[flags], weights=component[flags], minlength=len(of_unit)).astype(np.float64)
        for flags in (positive, ~positive)
    )
    variance = (
        _spread(own**2, of_unit, ordered.with_positives, groups)
        + _spread(others**2, of_unit, ordered.with_negatives, groups)
        + 2 * _spread(own * others, of_unit, np.ones(len(of_unit), dtype=np.bool_), groups)
    )
    # As if one positive lay among the negatives: a perfect group is not known to be perfect elsewhere.
    return _Areas(area=area, variance=variance, least_variance=1 / (4 * positives * negatives))


def _spread(values: Floats, of_unit: Groups, flags: Flags, groups: int) -> Floats:
    """Sum values by group, times i / (i - 1) for the i flagged units of each, `(K,)`."""
    count = np.bincount(of_unit[flags], minlength=groups)
    return np.asarray(np.bincount(of_unit, weights=values, minlength=groups) * count / (count - 1))


def _count_below(flags: Flags, totals: Floats, group: Groups, ties: Integers | None) -> Floats:
    """Count the flagged images of its group that score below each image, `(N,)`; ties count one half.

    Images lie group by group; `totals` counts the flagged ones of every group.
    """
    counts = np.zeros(len(flags) + 1)
    np.cumsum(flags, out=counts[1:])
    before = (np.cumsum(totals) - totals)[group]
    if ties is None:
        return np.asarray(counts[:-1] - before)
    new = np.flatnonzero((np.diff(ties) != 0) | (np.diff(group) != 0)) + 1
    begins, ends = np.concatenate([[0], new]), np.concatenate([new, [len(flags)]])
    sizes = ends - begins
    return np.asarray(np.repeat((counts[begins] + counts[ends]) / 2, sizes) - before)
