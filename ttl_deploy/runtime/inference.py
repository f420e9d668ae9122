"""A model opened without danger, and many images through one session."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttl_deploy import plugins
from ttl_deploy.plugins import Session, Target
from ttl_deploy.runtime.isolated_session import IsolatedSession

REFERENCE_TARGET = "onnxruntime-cpu"
_OPEN_TIMEOUT_S = 300.0
_CALL_TIMEOUT_S = 300.0


def open_safely(
    target: str,
    model: Path,
    *,
    threads: int,
    precision: str | None = None,
    open_timeout_s: float = _OPEN_TIMEOUT_S,
    call_timeout_s: float = _CALL_TIMEOUT_S,
) -> Session:
    """Open a model file so that neither opening nor running it can take this process down.

    The reference target is opened here; any other in a child process that lives as long as the session.
    A crash there, or no answer in time to opening or to a call, is a `TargetUnavailableError` that names the
    target, the file, the signal and what to do. Also raises what `Target.open` raises.
    """
    if target == REFERENCE_TARGET:
        kind: type[Target] = plugins.load("targets", target)
        return kind().open(model, threads=threads, precision=precision)
    return IsolatedSession(
        target,
        model,
        threads=threads,
        precision=precision,
        open_timeout_s=open_timeout_s,
        call_timeout_s=call_timeout_s,
    )


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
