"""Class folders: `root/<class>/**` or `root/<split>/<class>/**`."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ttl_deploy.data.splits import SPLIT_WORDS
from ttl_deploy.errors import DataError, LabelError, UsageError
from ttl_deploy.pixels import is_suffixless_dicom
from ttl_deploy.plugins import Progress, RawData, RawSample
from ttl_deploy.records.data import DataWarning, Reading, Split

IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".dcm", ".dicom")
)
_SILENTLY_IGNORED = frozenset(("thumbs.db", "desktop.ini"))


class FolderReader:
    """Takes the names of folders as labels, and as splits where they all are split words.

    Symbolic links are not followed; hidden files and files without an image's suffix are left out.
    Both are counted in a warning. A file with an image's suffix is always a sample, and so is DICOM without one.
    """

    def recognises(self, data: str) -> bool:
        """Accept any folder; so this reader is asked last."""
        return Path(data).is_dir()

    def read(self, data: str, reading: Reading, *, progress: Progress | None = None) -> RawData:
        """List the images; raises `LabelError` where a file's class cannot be told from its folder."""
        for option in ("image_col", "label_col", "patient_col", "split_col", "image_root"):
            if given := getattr(reading, option):
                flag = f"--{option.replace('_', '-')} {given}"
                raise UsageError(f"{flag}: {data} has class folders and no table, so leave the option out")
        root = Path(data).resolve()
        left_out: Counter[str] = Counter()
        paths = sorted(_image_paths(root, left_out))
        if not paths:
            raise DataError(_nothing_found(root, left_out))
        samples = tuple(_samples(root, paths))
        warnings = (DataWarning(kind="left-out", message=f"left out: {_counted(left_out)}"),) if left_out else ()
        return RawData(name=root.name, root=root, samples=samples, warnings=warnings)


def _image_paths(root: Path, left_out: Counter[str]) -> Iterator[str]:
    """Yield image paths relative to `root`, counting what was not taken."""
    for folder, subfolders, files in os.walk(root, followlinks=False, onerror=_refuse):
        here = Path(folder)
        linked = [name for name in subfolders if (here / name).is_symlink()]
        left_out.update(["symbolic links"] * len(linked))
        subfolders[:] = [name for name in subfolders if not name.startswith(".") and name not in linked]
        for name in files:
            suffix = Path(name).suffix.lower()
            if name.startswith(".") or name.lower() in _SILENTLY_IGNORED:
                continue
            if (here / name).is_symlink():
                left_out["symbolic links"] += 1
            elif suffix in IMAGE_SUFFIXES or is_suffixless_dicom(here / name):
                yield (here / name).relative_to(root).as_posix()
            else:
                left_out[f"{suffix or 'suffixless'} files"] += 1


def _refuse(error: OSError) -> None:
    raise DataError(f"cannot list {error.filename}: {error.strerror}") from error


def _samples(root: Path, paths: list[str]) -> Iterator[RawSample]:
    tops = {path.partition("/")[0] for path in paths if "/" in path}
    as_splits = {top for top in tops if top.lower() in SPLIT_WORDS}
    if as_splits and as_splits != tops:
        raise LabelError(
            f"{root} holds both split folders ({', '.join(sorted(as_splits))}) and others "
            f"({', '.join(sorted(tops - as_splits))}): put all class folders into split folders, or none"
        )
    for path in paths:
        *folders, _ = path.split("/")
        split: Split | None = SPLIT_WORDS[folders.pop(0).lower()] if as_splits and folders else None
        if not folders:
            raise LabelError(f"{root / path} lies in no class folder: move it into a folder named after its class")
        yield RawSample(path=path, label=folders[0], split=split)


def _nothing_found(root: Path, left_out: Counter[str]) -> str:
    seen = f" (left out: {_counted(left_out)})" if left_out else ""
    return (
        f"{root} holds no images{seen}. Expected are folders named after the classes, with or without train, val "
        "and test above them, or a labels.csv with the columns path and label"
    )


def _counted(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(left_out.items()) if count)
