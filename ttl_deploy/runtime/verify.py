"""Is the file still the model that was trained? Probabilities, decisions and scores, side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import DataError
from ttl_deploy.evidence.intervals import scores
from ttl_deploy.evidence.operating_point import count_near
from ttl_deploy.plugins import Session
from ttl_deploy.records.artifacts import ArtifactManifest, Parity, VerifyReport
from ttl_deploy.records.data import Label, Split
from ttl_deploy.records.scores import Score
from ttl_deploy.runtime.artifact import Artifact, precision_to_ask
from ttl_deploy.runtime.inference import open_safely, run_batches
from ttl_deploy.runtime.parity import PARITY_LIMIT, Truth, compare, describe


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """What to verify with: images in any batching, and per image its label, patient and content hash.

    Attributes:
        images: uint8 `(N, H, W, 3)`, or batches of such; decoded with the artifact's settings.
        labels: indices into `classes`, or a mark for each of them.
        sha256s: of the source files, by which the recorded references are found.
        split: which split of the data these are; `all` for everything, training images included.
    """

    images: NDArray[np.uint8] | Iterable[NDArray[np.uint8]]
    labels: Sequence[Label]
    patients: Sequence[str]
    sha256s: Sequence[str]
    classes: tuple[str, ...]
    split: Split | Literal["all"]


def verify(
    artifact: Artifact,
    data: LabelledImages,
    *,
    target: str | None = None,
    threads: int = 1,
    limit: float = PARITY_LIMIT,
    extra_references: Mapping[str, NDArray[np.float32]] | None = None,
) -> VerifyReport:
    """Run the file over labelled images and compare it with the torch model's recorded probabilities.

    References are the artifact's own and `extra_references`, by content hash: what the model says at the file's
    temperature. Scores and flips rest on the decisions that the manifest prescribes. Without a `target` it is the
    artifact's own. A file in single precision passes when the golden images agree within `limit`, and so do all
    images that have a reference, no decision differing. One of lower precision passes when the golden images agree
    with what this very file said of them at its export, and the manifest's gate holds on the images that have a
    reference, of which there must be some. Raises `DataError` where the data's classes are not the
    artifact's, and what `open_safely` raises.
    """
    _check_data(artifact, data)
    manifest, target = artifact.manifest, target or artifact.default_target
    session = open_safely(target, artifact.model_path, threads=threads, precision=precision_to_ask(manifest))
    executed = describe(session, target)
    golden = check_golden(artifact, session, limit=limit, target=target)
    probabilities = run_batches(session, data.images, max_batch=artifact.manifest.input.max_batch)
    if len(probabilities) != len(data.labels):
        raise DataError(
            f"{len(probabilities)} images came with {len(data.labels)} labels: one label per image is needed"
        )
    known = artifact.references() | dict(extra_references or {})
    rows = [i for i, sha256 in enumerate(data.sha256s) if sha256 in known]
    expected = np.stack([known[data.sha256s[i]] for i in rows]) if rows else None
    parity, threshold = None, manifest.threshold
    if expected is not None:
        words = f"the torch model's recorded probabilities, {len(rows)} of {len(data.labels)} images"
        parity = compare(
            probabilities[rows],
            expected,
            manifest,
            limit=limit,
            reference=words,
            truth=_truth(data, rows),
            gate=manifest.gate,
            executed=executed,
        )
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
        passed=golden.passed and (manifest.gate is None if parity is None else parity.passed),
        note=_note(golden, parity, data, manifest, found=len(rows)),
        threshold=threshold,
        near_threshold=count_near(probabilities, threshold, limit=limit, multilabel=manifest.decision == "each"),
        limit=limit,
        precision=manifest.precision,
        executed=executed,
        golden=golden,
    )


def check_golden(
    artifact: Artifact, session: Session, *, limit: float = PARITY_LIMIT, target: str | None = None
) -> Parity:
    """Compare an opened model with what was recorded of the artifact's synthetic images, as `expect_golden` says.

    `target` is what the session was opened on, by default the artifact's own.
    """
    images, _ = artifact.golden()
    given = run_batches(session, images, max_batch=artifact.manifest.input.max_batch)
    return compare_golden(artifact, given, target=target, limit=limit)


def compare_golden(
    artifact: Artifact, given: NDArray[np.float32], *, target: str | None = None, limit: float = PARITY_LIMIT
) -> Parity:
    """Compare answers to the synthetic images, given on `target`, with the recorded ones."""
    expected, limit, reference = expect_golden(artifact, target=target, limit=limit)
    return compare(given, expected, artifact.manifest, limit=limit, reference=reference, count_flips=False)


def expect_golden(
    artifact: Artifact, *, target: str | None = None, limit: float = PARITY_LIMIT
) -> tuple[NDArray[np.float32], float, str]:
    """Return what is expected of the synthetic images on `target` `(n, classes)`, how near, and whose answers they are.

    In single precision that is what the torch model said of them. Below, it is what this very file said at its
    export, within limits that the manifest holds: a wrong file shows there long before decisions change.
    """
    images, expected = artifact.golden()
    own, gate = artifact.golden_of_file(), artifact.manifest.gate
    if own is None or gate is None:
        return expected, limit, f"the torch model's recorded probabilities, {len(images)} synthetic images"
    at_home = artifact.manifest.executed is None or artifact.manifest.executed.target == (
        target or artifact.default_target
    )
    words = f"what this file said at its export, {len(images)} synthetic images"
    return own, gate.golden_limit if at_home else gate.foreign_golden_limit, words


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


def _truth(data: LabelledImages, rows: list[int]) -> Truth:
    return Truth(
        labels=[data.labels[i] for i in rows],
        patients=[data.patients[i] for i in rows],
        split="train" if data.split == "all" else data.split,
    )


def _note(
    golden: Parity, parity: Parity | None, data: LabelledImages, manifest: ArtifactManifest, *, found: int
) -> str:
    sentences = []
    if parity is not None and not parity.passed and manifest.gate is not None:
        sentences.append(f"The gate does not hold: {'; '.join(parity.failures)}.")
    if parity is None and manifest.gate is not None:
        sentences.append(
            f"A file in {manifest.precision} is judged by images with a recorded reference: "
            "verify it with the data it was trained on."
        )
    if not golden.passed:
        sentences.append(
            f"The golden images differ from {golden.reference.partition(',')[0]} by up to {golden.max_difference:.2g} "
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
