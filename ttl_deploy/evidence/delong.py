"""DeLong's variance of AUROCs on the same images, by midranks; for independent cases only.

DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44:837) give the covariance of several AUROCs as that
of their structural components: for each positive the share of negatives below it, for each negative
the share of positives above it. Sun and Xu 2014 (IEEE Signal Processing Letters 21:1389, section III) read the
components off midranks, which takes one sort instead of all pairs. Several images of one patient are no
independent cases; for them there is the bootstrap over patients (`intervals`).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttl_deploy.errors import DataError
from ttl_deploy.evidence.answers import Floats


def compare(labels01: ArrayLike, scores: ArrayLike, reference_scores: ArrayLike) -> tuple[float, float]:
    """Return the difference of two AUROCs on the same images, scores minus reference, and its standard error.

    `labels01` is `(N,)`; both scores are `(N,)`, or `(seeds, N)`: then it is the difference of the means over
    seeds of each seed's AUROC. Errors as of `covariance`.
    """
    own, others = (np.atleast_2d(np.asarray(one, dtype=np.float64)) for one in (scores, reference_scores))
    if own.shape[1] != others.shape[1]:
        raise DataError(f"{own.shape[1]} scores and {others.shape[1]} of the reference: give the same images to both")
    contrast = np.concatenate([np.full(len(own), 1 / len(own)), np.full(len(others), -1 / len(others))])
    areas, covariances = covariance(labels01, np.concatenate([own, others]))
    variance = float(contrast @ covariances @ contrast)
    # Rounding can leave a variance of zero just below it.
    return float(contrast @ areas), float(np.sqrt(max(variance, 0.0)))


def covariance(labels01: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Return the AUROCs `(M,)` of M models' scores `(M, N)` on the same images, and their covariance `(M, M)`.

    Raises `DataError` where the shapes do not fit, or without two positives and two negatives: one case has
    no variance.
    """
    labels, values = np.asarray(labels01), np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or labels.shape != values.shape[1:] or not np.isin(labels, (0, 1)).all():
        raise DataError(
            f"labels {labels.shape} and scores {values.shape} do not fit: give one label, 0 or 1, per image, "
            "and scores (models, images)"
        )
    positives = int((labels == 1).sum())
    if min(positives, len(labels) - positives) < 2:
        raise DataError(f"{positives} of {len(labels)} images are positive: DeLong's variance needs two of each class")
    of_positives, of_negatives = components(labels == 1, values)
    found = np.cov(of_positives) / of_positives.shape[1] + np.cov(of_negatives) / of_negatives.shape[1]
    return of_positives.mean(axis=1), np.atleast_2d(found)


def components(positive: NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    """Return the structural components of positives `(M, P)` and negatives `(M, N - P)`; ties count one half.

    For a positive it is the share of negatives that score below it, for a negative the share of positives above it.
    """
    ranks = np.stack([midranks(row) for row in scores])
    above = np.stack([midranks(row) for row in scores[:, positive]])
    below = np.stack([midranks(row) for row in scores[:, ~positive]])
    found = (ranks[:, positive] - above) / below.shape[1]
    missed = (ranks[:, ~positive] - below) / above.shape[1]
    return found, 1 - missed


def midranks(values: Floats) -> Floats:
    """Return the ranks 1…N of `(N,)`, tied ones sharing the mean of theirs."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[group], dtype=np.float64)
