"""Checkpoints of a running trial: atomic, checksummed, two generations, tensors and plain values only."""

import io
import logging
from pathlib import Path
from typing import Any

import torch

from ttl_deploy.files import publish_bytes, sha256_bytes, storage_errors

_LAST = "last.ckpt"
_PREVIOUS = "last.prev.ckpt"
_MAGIC = b"ttl-deploy checkpoint 1 "
_log = logging.getLogger(__name__)


def save(folder: Path, state: dict[str, Any]) -> None:
    """Publish `state` as the newest generation; the one before it is kept."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    newest = folder / _LAST
    with storage_errors(newest):
        if newest.exists():
            newest.replace(folder / _PREVIOUS)
    publish_bytes(newest, _MAGIC + sha256_bytes(payload).encode() + b"\n" + payload)


def load(folder: Path) -> dict[str, Any] | None:
    """Return the newest undamaged generation, or None; a damaged one is named in the log."""
    for name in (_LAST, _PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        header, _, payload = path.read_bytes().partition(b"\n")
        if header == _MAGIC + sha256_bytes(payload).encode():
            state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
            return state
        _log.warning("%s is damaged: going back to the generation before it", path)
    return None


def remove(folder: Path) -> None:
    """Delete the checkpoints of a finished trial."""
    for name in (_LAST, _PREVIOUS):
        (folder / name).unlink(missing_ok=True)
