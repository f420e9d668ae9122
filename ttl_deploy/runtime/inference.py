"""Many images through one session: batching, and the same in a child process."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttl_deploy import plugins
from ttl_deploy.plugins import Session


def split_batches(images: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    """Yield `images` in contiguous batches of at most `size`."""
    for start in range(0, len(images), size):
        yield np.ascontiguousarray(images[start : start + size])


def run_batches(
    session: Session, images: NDArray[np.uint8] | Iterable[NDArray[np.uint8]], *, max_batch: int
) -> NDArray[np.float32]:
    """Return the probabilities `(N, classes)` of an array of images, or of batches of them, in order."""
    parts = [images] if isinstance(images, np.ndarray) else images
    answers = [session.run(batch) for part in parts for batch in split_batches(part, max_batch)]
    return np.concatenate(answers) if answers else np.zeros((0, 0), np.float32)


def infer_file(target: str, model: Path, images: NDArray[np.uint8], batch: int, threads: int) -> NDArray[np.float32]:
    """Open a model file on a target and return the images' probabilities; made to run in a child process."""
    session = plugins.load("targets", target)().open(model, threads=threads)
    return run_batches(session, images, max_batch=batch)
