"""Content hashes of a data set's files, remembered by size and time stamps."""

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ttl_deploy.data.cache_root import cache_folder
from ttl_deploy.errors import UnreadableImageError
from ttl_deploy.files import publish_text, sha256_bytes, sha256_file
from ttl_deploy.plugins import Progress

_SETTLED_NS = 2_000_000_000  # a file younger than this may change again within one tick of its time stamp
_REPORT_EVERY = 64

Stamp = tuple[int, int, int]
"""Size in bytes, time of the last change of content and of anything, both in nanoseconds."""


def hash_files(root: Path, paths: Sequence[str], *, progress: Progress | None = None) -> list[str]:
    """Return the SHA-256 of every file, in order; `paths` are relative to `root`.

    A file whose size and time stamps are those of the last call is not read again. Raises
    `UnreadableImageError` where one cannot be read.
    """
    index_path = cache_folder("hashes") / f"{sha256_bytes(str(root).encode())[:32]}.json"
    index = _load_index(index_path)
    started_ns = time.time_ns()
    stamps = [_stamp(root / path) for path in paths]
    hashes: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        known = (index.get(path) for path in paths)
        for sha256 in pool.map(_hash, (root / path for path in paths), stamps, known):
            hashes.append(sha256)
            if progress and (len(hashes) % _REPORT_EVERY == 0 or len(hashes) == len(paths)):
                progress("hashing", len(hashes), len(paths))
    settled = {
        path: (*stamp, sha256)
        for path, stamp, sha256 in zip(paths, stamps, hashes, strict=True)
        if max(stamp[1:]) < started_ns - _SETTLED_NS
    }
    if settled != index:
        publish_text(index_path, json.dumps(settled))
    return hashes


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError as error:
        raise UnreadableImageError(f"{path} cannot be read: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash(path: Path, stamp: Stamp, known: tuple[int, int, int, str] | None) -> str:
    if known is not None and known[:3] == stamp:
        return known[3]
    try:
        return sha256_file(path)
    except OSError as error:
        raise UnreadableImageError(f"{path} cannot be read: {error.strerror}") from error


def _load_index(path: Path) -> dict[str, tuple[int, int, int, str]]:
    """Return the remembered hashes; a missing or damaged index is an empty one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: (int(size), int(mtime), int(ctime), str(sha)) for name, (size, mtime, ctime, sha) in content.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
