"""Where drawn phantoms, content hashes, decoded pixels and measured latencies are kept between runs."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ttl_deploy.errors import StorageError

VARIABLE = "TTL_DEPLOY_CACHE"


def cache_folder(kind: str) -> Path:
    """Return the folder of one kind of cached things, created if need be and writable.

    It lies in `$TTL_DEPLOY_CACHE`, else `$XDG_CACHE_HOME/ttl-deploy`, else `~/.cache/ttl-deploy`.
    Raises `StorageError` where it cannot be written.
    """
    folder = cache_root() / kind
    with cache_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "no permission to write")
    return folder


@contextmanager
def cache_errors(folder: Path) -> Iterator[None]:
    """Translate the operating system's errors below the cache folder into a `StorageError` with a remedy."""
    try:
        yield
    except OSError as error:
        raise StorageError(_complaint(folder, error.strerror or str(error))) from error


def require_space(folder: Path, size_bytes: int, *, remedy: str = "") -> None:
    """Raise `StorageError`, also with a `remedy`, unless `folder`'s disk has room for `size_bytes` and a little."""
    free = shutil.disk_usage(folder).free
    needed = size_bytes + (16 << 20)
    if free < needed:
        raise StorageError(
            _complaint(folder, f"{needed / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free")
            + (f"; {remedy}" if remedy else "")
        )


def cache_root() -> Path:
    """Return the folder of all cached things, which need not exist; raises `StorageError` where there is no home."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser().absolute()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).absolute() / "ttl-deploy"
    try:
        return Path.home() / ".cache" / "ttl-deploy"
    except RuntimeError as error:
        raise StorageError(f"there is no home folder to cache in: set {VARIABLE} to a writable folder") from error


def _complaint(folder: Path, reason: str) -> str:
    return f"cannot cache in {folder}: {reason}. Set {VARIABLE} to a folder on a disk that is writable and has room"
