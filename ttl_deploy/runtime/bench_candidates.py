"""What a benchmark measures: every artifact on every target at every batch size, with its images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import UsageError
from ttl_deploy.runtime.artifact import Artifact
from ttl_deploy.runtime.measurement import CALL, END_TO_END, ImageFiles, Measurement


@dataclass(slots=True)
class Candidate:
    """A model with its images for one call, and what was found of it so far: measurements, or why there are none."""

    name: str
    sha256: str
    path: Path
    target: str
    batch: int
    images: NDArray[np.uint8] | ImageFiles
    measured: list[Measurement] = field(default_factory=list)
    failure: str = ""

    @property
    def boundary(self) -> str:
        """Say what a call begins and ends with."""
        return END_TO_END if isinstance(self.images, ImageFiles) else CALL


def list_candidates(
    artifacts: Sequence[Artifact], *, targets: Sequence[str], batches: Sequence[int], files: tuple[Path, ...]
) -> Iterator[Candidate]:
    """Yield what is measured side by side; image `files` add a candidate that begins with them.

    No targets means each artifact's own. Raises `UsageError` for a batch that an artifact does not take.
    """
    for artifact in artifacts:
        manifest = artifact.manifest
        for target in targets or (_own_target(artifact),):
            for batch in batches:
                if batch > manifest.input.max_batch:
                    allowed = f"1 to {manifest.input.max_batch}"
                    raise UsageError(f"batch {batch} is more than {manifest.name} takes: {allowed}")
                sources: list[NDArray[np.uint8] | ImageFiles] = [_golden(artifact, batch)]
                if files:
                    sources.append(ImageFiles(paths=files, decode=manifest.decode, batch=batch))
                for images in sources:
                    yield Candidate(
                        name=manifest.name,
                        sha256=artifact.model_sha256,
                        path=artifact.model_path,
                        target=target,
                        batch=batch,
                        images=images,
                    )


def _own_target(artifact: Artifact) -> str:
    """Return the target that the artifact is for, with the precision where the file alone does not say it."""
    asked = artifact.manifest.precision == "bf16"
    return f"{artifact.default_target}:bf16" if asked else artifact.default_target


def _golden(artifact: Artifact, batch: int) -> NDArray[np.uint8]:
    golden, _ = artifact.golden()
    return golden[np.arange(batch) % len(golden)]
