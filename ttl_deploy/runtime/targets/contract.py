"""What all targets ask of images, threads and precisions, and the words in which they refuse."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import ArtifactError, UsageError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")
"""The words for what a convolution or a matrix product was computed in."""


def check_images(images: NDArray[np.uint8], *, height: int, width: int) -> None:
    """Refuse with `UsageError` what is not uint8 `(N, height, width, 3)` with N of at least 1."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, 3) or len(images) == 0:
        raise UsageError(
            f"the model was given {images.dtype} {images.shape}; it takes uint8 RGB images "
            f"(N, {height}, {width}, 3): decode them with the artifact's own settings"
        )


def check_threads(threads: int) -> None:
    """Refuse fewer than one thread with `UsageError`."""
    if threads < 1:
        raise UsageError(f"threads = {threads}: at least 1 is needed")


def check_request(precision: str | None, *, target: str, can: tuple[str, ...]) -> None:
    """Refuse with `UsageError` a precision that a target cannot run on this machine, whatever the file."""
    if precision is not None and precision not in can:
        raise UsageError(f"{target} cannot run {precision} on this machine: it can run {', '.join(can)}")


def check_ran(precision: str | None, *, ran: str, model: Path, target: str, can: tuple[str, ...]) -> None:
    """Refuse with `UsageError` a file that runs in another precision than was asked for.

    `can` are those in which the target would run this file.
    """
    if precision is not None and precision != ran:
        raise UsageError(
            f"{target} runs {model} in {ran}, and {precision} was asked for: there this file can run in "
            f"{' or '.join(can)}; for {precision} use another target, or a file that was exported for it"
        )


def main_precision(layers: Mapping[str, int]) -> str:
    """Name the precision of most executed layers; of two that are level, the finer one; fp32 for no layers."""
    return max(PRECISIONS, key=lambda precision: layers.get(precision, 0))


def check_answers(answers: NDArray[np.float32], *, images: int, told_by: str) -> None:
    """Refuse with `ArtifactError` what is not one row of finite numbers per image."""
    remedy = "this runtime does not compute the exported model. Run it on onnxruntime-cpu, or export it again"
    if answers.ndim != 2 or len(answers) != images:
        raise ArtifactError(f"{told_by} gave an array {answers.shape} for {images} images, not a row each: {remedy}")
    broken = int(np.sum(~np.isfinite(answers).all(axis=1)))
    if broken:
        raise ArtifactError(f"{told_by} gave NaN or infinity for {broken} of {images} images: {remedy}")
