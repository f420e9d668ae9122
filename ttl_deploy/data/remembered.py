"""Manifests of large data sets, kept in the cache so that a search over them begins at once.

A manifest is taken from here only where making it anew would give the same: what it was made from is known by the
SHA-256 of its content, or by the size and times of every file and folder below the data, and so is this package's own
code. Whatever is damaged, missing or in doubt counts as not remembered.
"""

import gc
import json
import os
import stat
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import msgspec

from ttl_deploy import __version__
from ttl_deploy.data.cache_root import cache_folder
from ttl_deploy.data.hashes import SETTLED_NS
from ttl_deploy.errors import StorageError
from ttl_deploy.files import publish_bytes, sha256_bytes
from ttl_deploy.records.data import DataFingerprint, Manifest

WORTH_IMAGES = 5_000
"""Manifests of fewer images are made anew every time."""
_KEPT_S = 90 * 86_400
_KIND = 0o170000  # the bits of a file's mode that tell what it is
_MOST_ENTRIES = 10  # per image; a tree with more holds other things, and looking at it all would take too long


def key_of(*parts: object) -> str:
    """Return the key of what a manifest is made from, and by which code."""
    content = msgspec.json.encode([__version__, _digest_code(), *parts])
    return sha256_bytes(content)[:32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A manifest and its fingerprint."""

    manifest: Manifest
    fingerprint: DataFingerprint


def recall(key: str) -> Remembered | None:
    """Return what was remembered under a key, if the folders that it depends on are as they were."""
    try:
        path = cache_folder("manifests") / key
        head, _, body = path.read_bytes().partition(b"\n")
        told = json.loads(head)
        if sha256(body).hexdigest() != told["sha256"]:
            return None
        if told["roots"] and _digest_trees(told["roots"], most=told["most"], before_ns=None) != told["trees"]:
            return None
        path.touch()
        with collection_paused():
            return msgspec.msgpack.decode(body, type=Remembered)
    except (OSError, ValueError, LookupError, TypeError, StorageError):
        return None


def remember(key: str, made: Remembered, *, roots: Sequence[Path] = (), began_ns: int = 0) -> None:
    """Keep a manifest that depends on what the key tells, and on everything below `roots`.

    Nothing is kept of a small one, nor where something there was changed shortly before `began_ns` or since.
    """
    images = len(made.manifest.samples)
    if images < WORTH_IMAGES:
        return
    most = _MOST_ENTRIES * images
    names = [str(root) for root in roots]
    trees = _digest_trees(names, most=most, before_ns=began_ns - SETTLED_NS) if names else ""
    if trees is None:
        return
    body = msgspec.msgpack.encode(made)
    head = {"sha256": sha256(body).hexdigest(), "roots": names, "most": most, "trees": trees}
    try:
        folder = cache_folder("manifests")
        folder.chmod(0o700)  # patients' ids and a table's other columns stand in it
        publish_bytes(folder / key, json.dumps(head).encode() + b"\n" + body)
        _prune(folder)
    except (OSError, StorageError):  # a cache that cannot be written costs time only
        return


@contextmanager
def collection_paused() -> Iterator[None]:
    """Keep Python from looking for cycles while very many small objects are made, which takes half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _digest_trees(roots: Sequence[str], *, most: int, before_ns: int | None) -> str | None:
    """Hash name, kind, size and times of all that lies below some folders, without opening any file.

    Returns None where it cannot be told: more than `most` entries, something that was changed at `before_ns` or
    later, or a link to a folder elsewhere, whose content may change unseen.
    """
    digest = sha256()
    left = most
    folders = [*roots]
    while folders:
        folder = folders.pop()
        names, facts, below = _list_folder(folder, roots)
        left -= len(names)
        if below is None or left < 0 or (before_ns is not None and len(facts) and max(facts[3::4]) >= before_ns):
            return None
        digest.update("\0".join((folder, *names)).encode(errors="surrogateescape"))
        digest.update(facts.tobytes())
        folders.extend(below)
    return digest.hexdigest()


def _list_folder(folder: str, roots: Sequence[str]) -> tuple[list[str], "array[int]", list[str] | None]:
    """Return names in a folder, four numbers for each, and the folders below; None for these where a link leads out."""
    names: list[str] = []
    facts = array("q")
    below: list[str] = []
    status = Path(folder).stat()
    facts.extend((status.st_mode, 0, status.st_mtime_ns, status.st_ctime_ns))
    with os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            names.append(entry.name)
            facts.extend((status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
            kind = status.st_mode & _KIND
            if kind == stat.S_IFREG:
                continue
            if kind == stat.S_IFDIR:
                below.append(entry.path)
            elif kind == stat.S_IFLNK:
                leads = Path(entry.path).resolve()
                names.append(str(leads))
                if leads.is_dir() and not any(leads.is_relative_to(root) for root in roots):
                    return names, facts, None
                if leads.exists():
                    status = leads.stat()
                    facts.extend((status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return names, facts, below


@cache
def _digest_code() -> str:
    """Hash the code that makes manifests: a changed reader or rule makes another one from the same files."""
    package = Path(__file__).resolve().parents[1]
    sources = [
        *(package / "data").rglob("*.py"),
        *(package / "records").glob("*.py"),
        *(package / "pixels").glob("*.py"),
    ]
    digest = sha256()
    for source in sorted((*sources, package / "plugins.py", package / "files.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _prune(folder: Path) -> None:
    """Delete what was not used for three months."""
    oldest_s = time.time() - _KEPT_S
    for path in folder.iterdir():
        if path.stat().st_mtime < oldest_s:
            path.unlink(missing_ok=True)
