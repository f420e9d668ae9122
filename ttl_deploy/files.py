"""The disk's one owner: files appear whole or not at all, content is known by its hash, cells are no formulas."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ttl_deploy.errors import StorageError

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_LITTER = re.compile(r"^\..+\.(\d+)\.tmp$")


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Translate the operating system's write errors on `path` into `StorageError` (exit code 74)."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"cannot write {path}: {reason}. Free some space or choose a writable place, then type the command again"
        ) from error


def make_folder(path: Path) -> Path:
    """Create a folder and its parents; raises `StorageError` where that is not possible."""
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def publish(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that `path` holds either its old content or all of the new, even after SIGKILL.

    `write` receives a binary file open under a temporary name in the same folder; the file is
    flushed, fsynced and renamed. Raises `StorageError` when the disk refuses.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:  # an interruption leaves no litter either; raised again
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def publish_bytes(path: Path, content: bytes) -> None:
    """Publish `content` under `path` atomically."""
    publish(path, lambda file: file.write(content))


def publish_text(path: Path, content: str) -> None:
    """Publish UTF-8 text under `path` atomically."""
    publish_bytes(path, content.encode())


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable across a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, line: str) -> None:
    """Append one complete line with a single write and fsync it."""
    with storage_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            content = (line + "\n").encode()
            if os.write(descriptor, content) != len(content):
                raise OSError(28, "short write: the disk is full")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_litter(folder: Path) -> None:
    """Delete temporary files below `folder` whose writer is dead."""
    for path in folder.rglob(".*.tmp"):
        found = _LITTER.match(path.name)
        if found and not process_is_alive(int(found.group(1))):
            path.unlink(missing_ok=True)


def process_is_alive(pid: int) -> bool:
    """Tell whether a process of this id exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of `content`, 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def escape_cell(text: str) -> str:
    """Put an apostrophe before a CSV cell that a spreadsheet would run as a formula, or that begins with one."""
    starts = text.lstrip(" \n").startswith(_FORMULA_STARTS) or text.startswith("'")
    return f"'{text}" if starts else text


def unescape_cell(text: str) -> str:
    """Undo `escape_cell`."""
    return text.removeprefix("'")
