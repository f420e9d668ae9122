"""Scores of a file whose weights are no longer exactly the trained model's."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.evidence.answers import are_grades
from ttl_deploy.evidence.intervals import scores
from ttl_deploy.evidence.operating_point import with_scores
from ttl_deploy.plugins import Proof
from ttl_deploy.records.artifacts import ArtifactManifest


def rescore(manifest: ArtifactManifest, probabilities: NDArray[np.float32], proof: Proof) -> ArtifactManifest:
    """Return the manifest with the file's own scores, from its `probabilities` `(n, classes)` of the proof's images.

    They are on validation only. The trained model's go, those on test too: the file was never asked about test images.
    """
    own = scores(
        probabilities,
        proof.labels,
        proof.patients,
        split="val",
        threshold=manifest.threshold,
        graded=are_grades(manifest.classes),
    )
    point = manifest.operating_point
    return replace(manifest, scores=own, operating_point=point and with_scores(point, own))
