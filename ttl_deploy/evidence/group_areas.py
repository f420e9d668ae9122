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

PERMUTATIONS = 2000
_CHUNK_ELEMENTS = 2**21  # permutations × images worked on at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sorted:
    """Images in ascending order of score, and where each one's group of ties begins and ends.

    `positive` and `units` are `(N,)`; `first` and `last` `(N,)` are positions in `0..N` of the counts before
    the ties and behind them. `by_unit` sorts the images by unit, `begins` `(U,)` says where each unit begins there.
    """

    order: Integers
    positive: Flags
    units: Integers
    first: Integers
    last: Integers
    by_unit: Integers
    begins: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What each unit adds to the AUROC of one group, for R assignments.

    `area` is `(R,)`; `of_positives` and `of_negatives` `(R, U)` are sums of components less the area, divided by the
    number of positive images, and of negative ones. The last three count the group's units, all and with such
    images, `(R,)`.
    """

    area: Floats
    of_positives: Floats
    of_negatives: Floats
    least_variance: Floats
    units: Floats
    units_positive: Floats
    units_negative: Floats


def compare_with_rest(
    positive: Flags, scores: Floats, patients: NDArray[np.generic], inside: Flags, *, level: float
) -> tuple[float, float, float]:
    """Return AUROC of the images `inside` minus that of the others, and the bounds of its interval at `level`.

    All `(N,)`; no patient has images in both, and either has two patients or more with positive images, and with
    negative ones. Each AUROC gets an interval on the scale of log odds, and the difference's is put together from their
    lower and upper reaches (Zou and Donner 2008, Statistics in Medicine 27:1693), because close to 1 the usual
    symmetric one covers too little.
    """
    ordered = _sort(positive, scores, np.unique(patients, return_inverse=True)[1])
    flags = inside[ordered.order][None]
    (own, low, high), (others, others_low, others_high) = (
        _interval(_parts(ordered, one), level=level) for one in (flags, ~flags)
    )
    value = own - others
    return (
        value,
        value - math.hypot(own - low, others_high - others),
        value + math.hypot(high - own, others - others_low),
    )


def _interval(parts: _Parts, *, level: float) -> tuple[float, float, float]:
    """Return one group's AUROC and the bounds of its interval."""
    area, least = float(parts.area[0]), float(parts.least_variance[0])
    variance = max(float(_variance(parts)[0]), least)
    # A perfect AUROC has no odds, so it counts as one that is less than perfect by the least error.
    inner = min(max(area, math.sqrt(least)), 1 - math.sqrt(least))
    odds = math.log(inner / (1 - inner))
    reach = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance) / (inner * (1 - inner))
    low, high = (1 / (1 + math.exp(-one)) for one in (odds - reach, odds + reach))
    return area, min(low, area), 1.0 if area > inner else max(high, area)


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
    names, units = np.unique(patients, return_inverse=True)
    ordered = _sort(positive, scores, units)
    of_unit = np.zeros(len(names), dtype=np.int64)
    of_unit[units] = groups
    observed = _heterogeneity(ordered, of_unit[None])[0]
    kinds = np.bincount(units[positive], minlength=len(names)).astype(bool) + 2 * np.bincount(
        units[~positive], minlength=len(names)
    ).astype(bool)
    drawn = np.concatenate(
        [_heterogeneity(ordered, dealt) for dealt in _deal(of_unit, kinds, len(positive), permutations, seed)]
    )
    # Equal statistics can differ by rounding.
    return float((1 + np.count_nonzero(drawn >= observed * (1 - 1e-9))) / (1 + len(drawn)))


def _deal(
    of_unit: Integers, kinds: NDArray[np.integer], images: int, permutations: int, seed: int
) -> Iterator[Integers]:
    """Yield assignments of units to groups `(r, U)`, units of each kind permuted among themselves."""
    found = np.unique(kinds)
    # One generator for each kind: then the draws do not depend on how many are made at a time.
    generators = np.random.default_rng(seed).spawn(len(found))
    size = max(1, _CHUNK_ELEMENTS // images)
    for start in range(0, permutations, size):
        dealt = np.repeat(of_unit[None], min(size, permutations - start), axis=0)
        for kind, generator in zip(found, generators, strict=True):
            members = np.flatnonzero(kinds == kind)
            dealt[:, members] = generator.permuted(dealt[:, members], axis=1)
        yield dealt


def _heterogeneity(ordered: _Sorted, of_units: Integers) -> Floats:
    """Return Cochran's Q `(R,)` for assignments of units to groups `(R, U)`."""
    areas, weights = [], []
    of_images = of_units[:, ordered.units]
    for group in range(int(of_units.max()) + 1):
        parts = _parts(ordered, of_images == group)
        areas.append(parts.area)
        weights.append(1 / np.maximum(_variance(parts), parts.least_variance))
    area, weight = np.stack(areas), np.stack(weights)
    mean = (weight * area).sum(axis=0) / weight.sum(axis=0)
    return np.asarray((weight * (area - mean) ** 2).sum(axis=0))


def _variance(parts: _Parts) -> Floats:
    """Return Obuchowski's variance `(R,)`."""
    i, i10, i01 = parts.units, parts.units_positive, parts.units_negative
    return np.asarray(
        i10 / (i10 - 1) * (parts.of_positives**2).sum(axis=1)
        + i01 / (i01 - 1) * (parts.of_negatives**2).sum(axis=1)
        + 2 * i / (i - 1) * (parts.of_positives * parts.of_negatives).sum(axis=1)
    )


def _sort(positive: Flags, scores: Floats, units: Integers) -> _Sorted:
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    owners = units[order]
    by_unit = np.argsort(owners, kind="stable")
    return _Sorted(
        order=order,
        positive=positive[order],
        units=owners,
        first=np.searchsorted(ascending, ascending, side="left"),
        last=np.searchsorted(ascending, ascending, side="right"),
        by_unit=by_unit,
        begins=np.searchsorted(owners[by_unit], np.arange(int(units.max()) + 1), side="left"),
    )


def _parts(ordered: _Sorted, inside: Flags) -> _Parts:
    """Compute one group's components; `inside` `(R, N)` flags its images in ascending order of score."""
    found, missed = inside & ordered.positive, inside & ~ordered.positive
    positives, negatives = found.sum(axis=1).astype(np.float64), missed.sum(axis=1).astype(np.float64)
    below = _count_below(missed, ordered)
    above = positives[:, None] - _count_below(found, ordered)
    area = np.where(found, below, 0.0).sum(axis=1) / (positives * negatives)
    centre = area[:, None]
    of_positives = np.where(found, below / negatives[:, None] - centre, 0.0) / positives[:, None]
    of_negatives = np.where(missed, above / positives[:, None] - centre, 0.0) / negatives[:, None]
    return _Parts(
        area=area,
        of_positives=_sum_by_unit(of_positives, ordered),
        of_negatives=_sum_by_unit(of_negatives, ordered),
        # As if one positive lay among the negatives: a perfect group is not known to be perfect elsewhere.
        least_variance=1 / (4 * positives * negatives),
        units=_count_units(inside, ordered),
        units_positive=_count_units(found, ordered),
        units_negative=_count_units(missed, ordered),
    )


def _count_below(flags: Flags, ordered: _Sorted) -> Floats:
    """Count the flagged images that score below each image, `(R, N)`; ties count one half."""
    counts = np.zeros((flags.shape[0], flags.shape[1] + 1))
    np.cumsum(flags, axis=1, out=counts[:, 1:])
    return np.asarray((counts[:, ordered.first] + counts[:, ordered.last]) / 2)


def _sum_by_unit(values: Floats, ordered: _Sorted) -> Floats:
    return np.asarray(np.add.reduceat(values[:, ordered.by_unit], ordered.begins, axis=1))


def _count_units(flags: Flags, ordered: _Sorted) -> Floats:
    return np.asarray(
        np.logical_or.reduceat(flags[:, ordered.by_unit], ordered.begins, axis=1).sum(axis=1), dtype=np.float64
    )
