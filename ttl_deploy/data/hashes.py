"""Content hashes of a data set's files, remembered by size and time stamps."""

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from ttl_deploy.data.cache_root import cache_folder
from ttl_deploy.errors import UnreadableImageError
from ttl_deploy.files import publish_bytes, sha256_bytes, sha256_file
from ttl_deploy.plugins import Progress

SETTLED_NS = 2_000_000_000
"""A file younger than this may change again within one tick of its time stamp."""
_AT_ONCE = 64

Stamp = tuple[int, int, int]
"""Size in bytes, time of the last change of content and of anything, both in nanoseconds."""
_Index = dict[str, tuple[int, int, int, str]]


def hash_files(root: Path, paths: Sequence[str], *, progress: Progress | None = None) -> list[str]:
    """Return the SHA-256 of every file, in order; `paths` are relative to `root`.

    A file whose size and time stamps are those of the last call is not read again. Raises
    `UnreadableImageError` where one cannot be read.
    """
    index_path = cache_folder("hashes") / f"{sha256_bytes(str(root).encode())[:32]}.json"
    index = _load_index(index_path)
    started_ns = time.time_ns()
    stamps = _stamp_files(root, paths)
    hashes = {path: known[3] for path in paths if (known := index.get(path)) is not None and known[:3] == stamps[path]}
    missing = [path for path in stamps if path not in hashes]
    for path, sha256 in _hash_anew(root, missing):
        hashes[path] = sha256
        if progress and (len(hashes) % _AT_ONCE == 0 or len(hashes) == len(stamps)):
            progress("hashing", len(hashes), len(stamps))
    settled = {
        path: (*stamp, hashes[path]) for path, stamp in stamps.items() if max(stamp[1:]) < started_ns - SETTLED_NS
    }
    if settled != index:
        publish_bytes(index_path, msgspec.json.encode(settled))
    return [hashes[path] for path in paths]


def _hash_anew(root: Path, paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Read files and yield their hashes, in order; many per thread at a time."""
    parts = [paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part, found in zip(parts, pool.map(lambda part: [_hash(root / path) for path in part], parts), strict=True):
            yield from zip(part, found, strict=True)


def _stamp_files(root: Path, paths: Sequence[str]) -> dict[str, Stamp]:
    """Return the stamp of every file; folders are listed, which takes a fraction of asking for each path."""
    names_of: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for path in paths:
        folder, _, name = path.rpartition("/")
        names_of[folder][name] = path
    stamps: dict[str, Stamp] = {}
    for folder, names in names_of.items():
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    if entry.name in names:
                        status = entry.stat()
                        stamps[names[entry.name]] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except OSError:
            continue  # the files are asked for one by one below, which names the first that is missing
    return {path: stamps[path] if path in stamps else _stamp(root / path) for path in paths}


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError as error:
        raise UnreadableImageError(f"{path} cannot be read: {error.strerror}") from error
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise UnreadableImageError(f"{path} cannot be read: {error.strerror}") from error


def _load_index(path: Path) -> _Index:
    """Return the remembered hashes; a missing or damaged index is an empty one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Index)
    except (OSError, msgspec.DecodeError):
        return {}
