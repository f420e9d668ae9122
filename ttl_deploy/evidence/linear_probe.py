"""What a linear classifier reads from fixed features: ridge regression, its penalty found on the training images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import metrics

Floats = NDArray[np.float64]
FOLDS = 5
STRENGTHS = tuple(10.0**exponent for exponent in range(-3, 5))
"""Candidate penalties, relative to the number of images: features have a variance of one."""
_LEAST_SPREAD = 1e-8
_FACTORS = tuple(2.0 ** (quarter / 4) for quarter in range(-8, 29))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFit:
    """A fitted probe: one column of scores per class, which may leave 0..1; they sum to one if an image has one class.

    Attributes:
        weights: `(C, D)`, and `bias` `(C,)`: logits are `features @ weights.T + bias`, which are the scores
            times the factor that gives the training images, each scored by the other folds, the smallest
            cross-entropy with classes in balance.
        held_out: scores of the held-out images `(m, C)`.
        cv_auroc: macro AUROC of the training images, each scored by the other folds; None where undefined.
        strength: the penalty that gave the best of them, per image.
    """

    weights: Floats
    bias: Floats
    held_out: Floats
    cv_auroc: float | None
    strength: float


def fit_probe(
    features: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    held_out: ArrayLike,
    *,
    classes: int,
    folds: int = FOLDS,
    seed: int = 0,
) -> ProbeFit:
    """Fit least squares to the classes' indicators, with a penalty on the weights, and classes in balance.

    `features` `(n, D)`, `labels` `(n,)`, `groups` `(n,)` (patients: no group is in two folds) and `held_out`
    `(m, D)`. The penalty is the one with the best macro AUROC over the folds. Leaving a fold out needs no
    new fit: with H the matrix that maps targets to fitted values, the fold's residuals are
    `(I - H_FF)^-1` times those of the whole fit (Hastie, Tibshirani & Friedman 2009, section 7.10, for one
    row; the same holds for blocks). The features' mean and variance are those of all n images.

    With labels `(n, C)` of 1, 0 and -1 (several per image, not known) all images weigh the same, a label that is not
    known counts as its class's mean, which pulls at nothing, and the logits are 0 at each class's prevalence.

    Raises `DataError` for features that are not finite.
    """
    given, truth = np.asarray(features, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    other = np.asarray(held_out, dtype=np.float64)
    if not (np.isfinite(given).all() and np.isfinite(other).all()):
        raise DataError("features hold values that are not finite, so nothing can be read from them")
    ridge = _Ridge(given, truth, classes=classes)
    parts = _divide_groups(np.asarray(groups), folds=folds, seed=seed)
    fits = [(strength, ridge.cross_validate(strength * len(truth), parts)) for strength in STRENGTHS]
    aurocs = [metrics.evaluate("auroc", scores, truth).value for _, scores in fits]
    best = int(np.argmax([-np.inf if auroc is None else auroc for auroc in aurocs]))
    strength, scores = fits[best]
    weights, bias = ridge.fit(strength * len(truth))
    several = truth.ndim == 2
    factor = (
        _find_factor_of_several(scores - ridge.base, truth) if several else _find_factor(scores, truth, ridge.weights)
    )
    return ProbeFit(
        weights=factor * weights,
        bias=factor * (bias - ridge.base) if several else factor * bias,
        held_out=other @ weights.T + bias,
        cv_auroc=aurocs[best],
        strength=strength,
    )


class _Ridge:
    """Weighted ridge regression on standardised features, for many penalties from one decomposition."""

    def __init__(self, features: Floats, labels: NDArray[np.int64], *, classes: int) -> None:
        self._targets = _indicate(labels, classes=classes)
        self.weights = _balance(labels, classes=classes)
        self._mean = np.average(features, axis=0, weights=self.weights)
        spread = np.sqrt(np.average((features - self._mean) ** 2, axis=0, weights=self.weights))
        self._spread = np.where(spread > _LEAST_SPREAD, spread, np.inf)  # a constant feature says nothing
        self.base = np.average(self._targets, axis=0, weights=self.weights)
        self._root = np.sqrt(self.weights)[:, None]
        scaled = self._standardise(features) * self._root
        self._left, self._singular, self._right = _decompose(scaled)
        self._wanted = (self._targets - self.base) * self._root

    def _standardise(self, features: Floats) -> Floats:
        standardised: Floats = (features - self._mean) / self._spread
        return standardised

    def fit(self, penalty: float) -> tuple[Floats, Floats]:
        """Return weights `(C, D)` and bias `(C,)`: scores are `features @ weights.T + bias`, features as they are."""
        shrunk = self._singular / (self._singular**2 + penalty)
        coefficients = self._right.T @ (shrunk[:, None] * (self._left.T @ self._wanted))
        weights: Floats = (coefficients / self._spread[:, None]).T
        return weights, self.base - weights @ self._mean

    def cross_validate(self, penalty: float, parts: list[NDArray[np.intp]]) -> Floats:
        """Return scores `(n, C)`, those of each part from a fit without it."""
        shrunk = self._singular**2 / (self._singular**2 + penalty)
        residuals = self._wanted - self._left @ (shrunk[:, None] * (self._left.T @ self._wanted))
        scores = np.empty_like(self._targets)
        for part in parts:
            left = self._left[part]
            own = np.eye(len(part)) - (left * shrunk) @ left.T
            scores[part] = self._targets[part] - np.linalg.solve(own, residuals[part]) / self._root[part]
        return scores


def _indicate(labels: NDArray[np.int64], *, classes: int) -> Floats:
    """Return what is fitted, `(n, C)`: 1 for a class that an image has, 0 for one that it has not."""
    if labels.ndim == 1:
        return np.asarray(np.eye(classes)[labels])
    known = labels >= 0
    prevalence = (labels == 1).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.asarray(np.where(known, labels, prevalence))


def _balance(labels: NDArray[np.int64], *, classes: int) -> Floats:
    """Return a weight per image `(n,)`, 1 in the mean: classes in balance, or all the same for several labels each."""
    if labels.ndim == 2:
        return np.ones(len(labels))
    weights = 1.0 / np.bincount(labels, minlength=classes)[labels]
    return np.asarray(weights * (len(labels) / weights.sum()))


def _find_factor_of_several(centred: Floats, labels: NDArray[np.int64]) -> float:
    """Return by what to multiply centred scores `(n, C)` for the smallest cross-entropy, both marks in balance."""
    present, absent = labels == 1, labels == 0
    both = present.any(axis=0) & absent.any(axis=0)

    def loss(factor: float) -> float:
        logits = factor * centred[:, both]
        sides = ((np.logaddexp(0, -logits), present[:, both]), (np.logaddexp(0, logits), absent[:, both]))
        return float(sum(((values * of).sum(axis=0) / of.sum(axis=0)).mean() for values, of in sides))

    best: float = min(_FACTORS, key=loss) if both.any() else 1.0
    return best


def _find_factor(scores: Floats, labels: NDArray[np.int64], weights: Floats) -> float:
    """Return by what to multiply scores `(n, C)` so that, as logits, they have the smallest weighted cross-entropy."""

    def loss(factor: float) -> float:
        logits = factor * scores
        logits = logits - logits.max(axis=1, keepdims=True)
        own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
        return float(np.average(np.log(np.exp(logits).sum(axis=1)) - own, weights=weights))

    best: float = min(_FACTORS, key=loss)
    return best


def _decompose(matrix: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the thin singular value decomposition, by way of the smaller of the two Gram matrices.

    Directions whose singular value is lost in rounding are left out.
    """
    is_tall = matrix.shape[0] >= matrix.shape[1]
    gram = matrix.T @ matrix if is_tall else matrix @ matrix.T
    values, vectors = np.linalg.eigh(gram)
    kept = values > max(values[-1], 0.0) * len(values) * np.finfo(np.float64).eps
    singular, vectors = np.sqrt(values[kept]), vectors[:, kept]
    if is_tall:
        return (matrix @ vectors) / singular, singular, vectors.T
    return vectors, singular, (matrix.T @ vectors / singular).T


def _divide_groups(groups: NDArray[np.generic], *, folds: int, seed: int) -> list[NDArray[np.intp]]:
    """Return the positions of each fold; groups stay whole, and the folds are as even as that allows."""
    names, of_image, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    load = np.zeros(min(folds, len(names)))
    fold_of = np.empty(len(names), dtype=np.int64)
    for group in order:
        fold_of[group] = int(load.argmin())
        load[fold_of[group]] += sizes[group]
    return [np.flatnonzero(fold_of[of_image] == fold) for fold in range(len(load))]
