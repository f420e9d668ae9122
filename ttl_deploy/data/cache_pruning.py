"""Which decoded images are deleted: those that nobody has opened for three months.

A store is the images of one kind: one size, one way to fit, one version of the rules. It is kept or deleted as a
whole. Deleted are stores, the lists of rows in those that stay, and caches of earlier versions, if they were not
opened (earlier versions': not made) for `KEPT_DAYS`. Nothing is deleted that another process is writing, and a file
that is deleted while somebody reads it stays readable to them.
"""

import shutil
import time
from pathlib import Path

from filelock import FileLock, Timeout

KEPT_DAYS = 90
_MARK = "used"
_DAY_S = 86_400


def mark_used(folder: Path, view: Path | None = None) -> None:
    """Remember that a store is opened now, and the list of rows by which."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARK).touch()
    if view is not None:
        view.touch()


def prune(current: Path) -> None:
    """Delete what has not been used for long beside and in the store `current`; the caller holds its lock."""
    oldest_s = time.time() - KEPT_DAYS * _DAY_S
    for view in current.glob("*.view"):
        if view.stat().st_mtime < oldest_s:
            view.unlink(missing_ok=True)
    for folder in current.parent.iterdir():
        if folder == current or not folder.is_dir():
            continue
        mark = folder / (_MARK if (folder / _MARK).exists() else "index.json")
        if mark.exists() and mark.stat().st_mtime < oldest_s:
            _delete(folder)


def _delete(folder: Path) -> None:
    """Delete a folder unless somebody holds its lock."""
    inside = folder / ".lock"
    lock = FileLock(inside if inside.exists() else folder.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()
        folder.with_suffix(".lock").unlink(missing_ok=True)
