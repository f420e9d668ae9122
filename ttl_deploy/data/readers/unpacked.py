"""Images that came inside of one file, unpacked once as files into the cache folder."""

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from filelock import FileLock

from ttl_deploy.data.cache_root import cache_errors, cache_folder, require_space
from ttl_deploy.data.hashes import hash_files
from ttl_deploy.files import make_folder, sha256_bytes, sync_folder
from ttl_deploy.plugins import Progress

_VERSION = 1  # of the files' names and contents: another one is another folder
_BLOCK_BYTES = 4096  # small files take a block of the disk each
_REPORT_EVERY = 64

Images = Iterable[tuple[str, bytes]]
"""Paths relative to the folder, and the content of the files."""


def key_of(paths: Sequence[Path], *, progress: Progress | None = None) -> str:
    """Return what names the contents of files of one folder, whatever they are called; hashes are remembered."""
    hashes = hash_files(paths[0].parent, [path.name for path in paths], progress=progress)
    return sha256_bytes(" ".join([str(_VERSION), *hashes]).encode())[:32]


def room_for(images: int, image_bytes: int) -> int:
    """Return the bytes on the disk that so many files of at most this size take."""
    return images * (-(-image_bytes // _BLOCK_BYTES) * _BLOCK_BYTES)


def unpack(key: str, images: Images, *, count: int, size_bytes: int, progress: Progress | None = None) -> Path:
    """Return the folder with the images, written if it is not there; it appears whole or not at all.

    Raises `StorageError` before anything is written where the disk has no room for `size_bytes`.
    """
    folder = cache_folder("unpacked") / key
    if not folder.exists():
        with cache_errors(folder), FileLock(folder.with_name(f".{key}.lock")):
            if not folder.exists():
                require_space(folder.parent, size_bytes)
                stage = f"unpacking up to {size_bytes / 1e6:,.0f} MB into the cache"
                _build(folder, images, lambda done: progress(stage, done, count) if progress else None)
    return folder


def _build(folder: Path, images: Images, report: Callable[[int], None]) -> None:
    """Write into a temporary folder and rename it; the caller holds the lock, so older temporaries are litter."""
    for litter in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(litter)
    temporary = make_folder(folder.parent / f".{folder.name}.{os.getpid()}.tmp")
    try:
        _fill(temporary, images, report)
        temporary.replace(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(folder: Path, images: Images, report: Callable[[int], None]) -> None:
    made: set[Path] = set()
    done = 0
    for done, (name, content) in enumerate(images, start=1):
        path = folder / name
        if path.parent not in made:
            made.add(make_folder(path.parent))
        path.write_bytes(content)
        if done % _REPORT_EVERY == 0:
            report(done)
    report(done)
