"""An artifact's folder: made in a hidden place, and put where it belongs in one step."""

import ctypes
import io
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import GateError, UsageError
from ttl_deploy.files import make_folder, process_is_alive, publish_bytes, sha256_file, storage_errors, sync_folder
from ttl_deploy.records.artifacts import ArtifactManifest, FileEntry
from ttl_deploy.records.engines import FLAVOURS
from ttl_deploy.runtime.artifact import FILES, GOLDEN, MANIFEST, MODEL_CARD, PARITY, REFERENCE
from ttl_deploy.runtime.kit.writing import KIT, SCRIPT, TRTEXEC_ENGINE
from ttl_deploy.runtime.tensorrt.trust import engine_path, manifest_path

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_ENGINES = tuple(engine_path(Path(), flavour) for flavour in FLAVOURS)
_CONTENT = frozenset(
    {
        *(MANIFEST, REFERENCE, GOLDEN, PARITY, MODEL_CARD),
        *(SCRIPT, KIT, TRTEXEC_ENGINE),
        *(name for names in FILES.values() for name in names),
        *(path.name for engine in _ENGINES for path in (engine, manifest_path(engine))),
    }
)


def check_arguments(
    manifest: ArtifactManifest,
    folder: Path,
    *,
    images: NDArray[np.uint8],
    references: tuple[Sequence[str], NDArray[np.float32]],
) -> None:
    """Raise `GateError` for images or references that do not fit the manifest, and what `refuse_foreign_files` does."""
    height, width = manifest.input.height, manifest.input.width
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, 3) or len(images) == 0:
        raise GateError(
            f"the check needs real uint8 images (n, {height}, {width}, 3), not {images.dtype} {images.shape}"
        )
    if references[1].shape != (len(references[0]), len(manifest.classes)):
        raise GateError(
            f"{len(references[0])} reference images came with probabilities {references[1].shape}, "
            f"not ({len(references[0])}, {len(manifest.classes)})"
        )
    refuse_foreign_files(folder)


def refuse_foreign_files(folder: Path) -> None:
    """Raise `UsageError` where a folder that would be replaced holds anything else than an artifact."""
    if folder.exists() and (foreign := sorted(p.name for p in folder.iterdir() if p.name not in _CONTENT)):
        raise UsageError(f"{folder} holds other files ({', '.join(foreign[:5])}): choose a new or empty folder")


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Publish arrays as one compressed file, without pickles."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    publish_bytes(path, content.getvalue())


def describe_file(path: Path) -> FileEntry:
    """Return name, size and content hash of a file."""
    return FileEntry(name=path.name, size_bytes=path.stat().st_size, sha256=sha256_file(path))


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Give a hidden folder beside `folder` to work in; it is gone afterwards, whatever happened.

    Raises `StorageError` where the disk is full or not writable meanwhile.
    """
    make_folder(folder.parent)
    for path in folder.parent.iterdir():
        if path.name.startswith(f".{folder.name}.") and path.suffix == ".partial":
            pid = path.name.split(".")[-2]
            if pid.isdigit() and not process_is_alive(int(pid)):
                shutil.rmtree(path)
    stage = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    make_folder(stage)
    try:
        with storage_errors(folder):
            yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def put_in_place(stage: Path, folder: Path) -> None:
    """Rename the finished folder; an older artifact there is swapped out, in one step where the system can."""
    with storage_errors(folder):
        if not folder.exists():
            stage.rename(folder)
        elif not _exchange(stage, folder):
            old = folder.with_name(f".{folder.name}.old.{os.getpid()}.partial")
            folder.rename(old)
            stage.rename(folder)
            shutil.rmtree(old)
    sync_folder(folder.parent)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two folders atomically (Linux `renameat2`); False where the system or file system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0)
