"""Is the file still the model that was trained? Probabilities, decisions and scores, side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ttl_deploy import plugins
from ttl_deploy.errors import DataError
from ttl_deploy.evidence.intervals import scores
from ttl_deploy.evidence.operating_point import count_near
from ttl_deploy.plugins import Session
from ttl_deploy.records.artifacts import Parity, VerifyReport
from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import Score
from ttl_deploy.runtime.artifact import Artifact
from ttl_deploy.runtime.inference import run_batches
from ttl_deploy.runtime.parity import PARITY_LIMIT, compare


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """What to verify with: images in any batching, and per image its label, patient and content hash.

    Attributes:
        images: uint8 `(N, H, W, 3)`, or batches of such; decoded with the artifact's settings.
        labels: indices into `classes`.
        sha256s: of the source files, by which the recorded references are found.
        split: which split of the data these are; `all` for everything, training images included.
    """

    images: NDArray[np.uint8] | Iterable[NDArray[np.uint8]]
    labels: Sequence[int]
    patients: Sequence[str]
    sha256s: Sequence[str]
    classes: tuple[str, ...]
    split: Split | Literal["all"]


def verify(
    artifact: Artifact,
    data: LabelledImages,
    *,
    target: str = "onnxruntime-cpu",
    threads: int = 1,
    limit: float = PARITY_LIMIT,
    extra_references: Mapping[str, NDArray[np.float32]] | None = None,
) -> VerifyReport:
    """Run the file over labelled images and compare it with the torch model's recorded probabilities.

    References are the artifact's own and `extra_references`, by content hash: what the model says at the file's
    temperature. Scores and flips rest on the decisions that the manifest prescribes. It passes when the
    golden images agree within `limit`, and so do all images that have a reference, no decision
    differing. Raises `DataError` where the data's classes are not the artifact's.
    """
    _check_data(artifact, data)
    session = plugins.load("targets", target)().open(artifact.model_path, threads=threads)
    golden = check_golden(artifact, session, limit=limit)
    probabilities = run_batches(session, data.images, max_batch=artifact.manifest.input.max_batch)
    if len(probabilities) != len(data.labels):
        raise DataError(
            f"{len(probabilities)} images came with {len(data.labels)} labels: one label per image is needed"
        )
    known = artifact.references() | dict(extra_references or {})
    rows = [i for i, sha256 in enumerate(data.sha256s) if sha256 in known]
    expected = np.stack([known[data.sha256s[i]] for i in rows]) if rows else None
    parity, threshold = None, artifact.manifest.threshold
    if expected is not None:
        words = f"the torch model's recorded probabilities, {len(rows)} of {len(data.labels)} images"
        parity = compare(probabilities[rows], expected, artifact.manifest, limit=limit, reference=words)
    return VerifyReport(
        artifact=artifact.manifest.name,
        artifact_sha256=artifact.model_sha256,
        target=f"{target} ({session.runtime}, {session.precision}, {threads} thread{'s' * (threads > 1)})",
        split=data.split,
        images=len(data.labels),
        parity=parity,
        file_scores=_scores(probabilities, data, threshold=threshold),
        model_scores=_scores(expected, data, rows, threshold=threshold),
        file_scores_with_reference=_scores(probabilities[rows], data, rows, threshold=threshold) if rows else (),
        passed=golden.passed and (parity is None or parity.passed),
        note=_note(golden, parity, data, found=len(rows)),
        threshold=threshold,
        near_threshold=count_near(probabilities, threshold, limit=limit),
        limit=limit,
    )


def check_golden(artifact: Artifact, session: Session, *, limit: float = PARITY_LIMIT) -> Parity:
    """Compare an opened model with what the torch model said of the artifact's synthetic images."""
    images, expected = artifact.golden()
    given = run_batches(session, images, max_batch=artifact.manifest.input.max_batch)
    words = f"the torch model's recorded probabilities, {len(images)} synthetic images"
    return compare(given, expected, artifact.manifest, limit=limit, reference=words, count_flips=False)


def _check_data(artifact: Artifact, data: LabelledImages) -> None:
    if data.classes != artifact.manifest.classes:
        raise DataError(
            f"the data's classes are {data.classes}, the artifact's {artifact.manifest.classes}: "
            "they must be the same, in the same order"
        )
    if not len(data.labels) == len(data.patients) == len(data.sha256s):
        raise DataError(
            f"{len(data.labels)} labels, {len(data.patients)} patients and {len(data.sha256s)} content hashes "
            "were given: one of each per image is needed"
        )
    if not len(data.labels):
        raise DataError(f"there are no images in the split {data.split!r}: choose another split")


def _scores(
    probabilities: NDArray[np.float32] | None,
    data: LabelledImages,
    rows: list[int] | None = None,
    *,
    threshold: float | None,
) -> tuple[Score, ...]:
    """Score probabilities of the images `rows`; `all` counts as `train`, because training images are among them."""
    if probabilities is None:
        return ()
    chosen = range(len(data.labels)) if rows is None else rows
    return scores(
        probabilities,
        [data.labels[i] for i in chosen],
        [data.patients[i] for i in chosen],
        split="train" if data.split == "all" else data.split,
        threshold=threshold,
    )


def _note(golden: Parity, parity: Parity | None, data: LabelledImages, *, found: int) -> str:
    sentences = []
    if not golden.passed:
        sentences.append(
            f"The golden images differ from the torch model by up to {golden.max_difference:.2g} "
            f"(allowed {golden.limit:g}): this runtime does not compute the exported model."
        )
    if parity is None:
        sentences.append(
            "No image of these data has a recorded reference, so decisions could not be compared with the torch "
            f"model's on them; only the artifact's {golden.images} synthetic golden images were."
        )
    elif found < len(data.labels):
        sentences.append(f"{len(data.labels) - found} of {len(data.labels)} images have no recorded reference.")
    if data.split == "all":
        sentences.append("All splits were used: where the model was trained on these data, the scores are too good.")
    return " ".join(sentences)
