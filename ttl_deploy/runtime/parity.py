"""How far two sets of probabilities for the same images lie apart."""

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.records.artifacts import ArtifactManifest, Parity
from ttl_deploy.runtime.artifact import decide

PARITY_LIMIT = 1e-4


def compare(
    given: NDArray[np.float32],
    expected: NDArray[np.float32],
    manifest: ArtifactManifest,
    *,
    limit: float = PARITY_LIMIT,
    reference: str,
    count_flips: bool = True,
) -> Parity:
    """Compare probabilities `(N, classes)` with the reference's; `reference` says in words what that is.

    A value that is not finite counts as a difference of 1. Without `count_flips` only differences
    count: for synthetic images, which may lie on a decision's edge and mean nothing there.
    """
    difference = np.abs(given.astype(np.float64) - expected.astype(np.float64))
    difference = np.where(np.isfinite(difference), difference, 1.0)
    flipped = int(np.sum(decide(given, manifest) != decide(expected, manifest))) if count_flips else 0
    return Parity(
        images=len(given),
        max_difference=float(difference.max(initial=0.0)),
        mean_difference=float(difference.mean()) if difference.size else 0.0,
        decisions_flipped=flipped,
        limit=limit,
        reference=reference,
    )
