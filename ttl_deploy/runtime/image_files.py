"""The image files of folders of any size: found one by one, in an order that stays the same."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ttl_deploy.errors import UsageError
from ttl_deploy.pixels import is_suffixless_dicom

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom"})


def find_images(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the given files, and for each folder the image files below it, sorted by the parts of their paths.

    DICOM files count without a suffix too: those are told by their content.
    Only the names in one folder, and in those above it, are in memory at a time. Linked files are
    followed, linked folders are not. Raises `UsageError` for a folder that cannot be read, and at
    the end where nothing was found.
    """
    return map(Path, _find(paths, ordered=True))


def count_images(paths: Sequence[Path]) -> int:
    """Count what `find_images` would yield; raises `UsageError` as it does."""
    return sum(1 for _ in _find(paths, ordered=False))


def _find(paths: Sequence[Path], *, ordered: bool) -> Iterator[str]:
    found = False
    for path in paths:
        for name in _walk(os.fspath(path), ordered=ordered) if path.is_dir() else (os.fspath(path),):
            found = True
            yield name
    if not found:
        given = ", ".join(map(str, paths)) or "nothing"
        raise UsageError(
            f"no images in {given}: give image files, or folders that hold PNG, JPEG, TIFF, WebP, BMP or DICOM files"
        )


def _walk(folder: str, *, ordered: bool) -> Iterator[str]:
    for name, is_folder in _entries(folder, ordered=ordered):
        path = os.path.join(folder, name)  # noqa: PTH118  # a Path for every file takes most of the walk's time
        if is_folder:
            yield from _walk(path, ordered=ordered)
        else:
            yield path


def _entries(folder: str, *, ordered: bool) -> Iterator[tuple[str, bool]]:
    """Yield the names of a folder's images and folders, and which they are; all names at once only to sort them."""
    try:
        with os.scandir(folder) as entries:
            wanted = (
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if entry.is_dir(follow_symlinks=False) or _is_image(entry)
            )
            yield from sorted(wanted) if ordered else wanted
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be read: {error.strerror or error}") from error


def _is_image(entry: "os.DirEntry[str]") -> bool:
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  # as above
    return entry.is_file() and (suffix in IMAGE_SUFFIXES or is_suffixless_dicom(entry.path))
