"""MedMNIST: one `.npz` with images and labels of three splits."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttl_deploy.data.readers.medmnist_names import CLASSES
from ttl_deploy.data.readers.npz_arrays import NpzFile, open_npz
from ttl_deploy.data.readers.table_files import list_folder
from ttl_deploy.data.readers.unpacked import key_of, room_for, unpack
from ttl_deploy.errors import DataError, LabelError, UsageError
from ttl_deploy.plugins import Progress, RawData, RawSample
from ttl_deploy.records.data import SPLITS, Finding, Reading, Split

_LARGEST_SIDE = 4096
_LARGEST_COUNT = 10_000_000
_PNG_OVERHEAD = 1024  # headers, and what incompressible rows grow by
_MARKS: tuple[Finding, Finding] = ("absent", "present")


class MedmnistReader:
    """Reads `{train,val,test}_{images,labels}` of an `.npz`, or of the only one in a folder.

    Images are `(N, S, S)` grey or `(N, S, S, 3)` colour, uint8; they are unpacked once as PNG. Labels are `(N, 1)`
    classes, or `(N, L)` ones and zeros, which are findings. Classes have the names of the MedMNIST set that
    the file is called after, such as `bloodmnist_64.npz`, else their numbers. Patients are not known.
    """

    def recognises(self, data: str) -> bool:
        """Accept an `.npz` file."""
        return _file_of(Path(data)) is not None

    def read(self, data: str, reading: Reading, *, progress: Progress | None = None) -> RawData:
        """Unpack the images if need be and read the labels; raises `DataError` where the arrays do not fit."""
        for option in ("image_col", "label_col", "patient_col", "split_col", "image_root"):
            if given := getattr(reading, option):
                raise UsageError(f"--{option.replace('_', '-')} {given}: {data} has no columns, so leave it out")
        path = _file_of(Path(data)) or Path(data)
        with open_npz(path) as file:
            sets = _check(file)
            names = _class_names(path, sets)
            samples = [sample for one in sets for sample in _samples(file, one, names)]
            size_bytes = sum(room_for(one.images, one.image_bytes + _PNG_OVERHEAD) for one in sets)
            root = unpack(
                key_of([path], progress=progress),
                (image for one in sets for image in _images(file, one)),
                count=sum(one.images for one in sets),
                size_bytes=size_bytes,
                progress=progress,
            )
        return RawData(name=path.stem, root=root, samples=tuple(samples))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Set:
    """The arrays of one split; `findings` is 0 where there is one class per image."""

    split: Split
    images: int
    image_bytes: int
    findings: int


def _file_of(data: Path) -> Path | None:
    if data.is_dir():
        found = [name for name, is_folder in list_folder(data) if name.lower().endswith(".npz") and not is_folder]
        return data / found[0] if len(found) == 1 else None
    return data if data.suffix.lower() == ".npz" and data.is_file() else None


def _check(file: NpzFile) -> list[_Set]:
    """Return the splits that the file has; raises `DataError` for arrays of other shapes."""
    sets = [_check_split(file, split) for split in SPLITS if f"{split}_images" in file.names]
    if not sets:
        has = ", ".join(sorted(file.names)[:10]) or "no arrays"
        raise DataError(f"{file.path} has {has}; expected are train_images and train_labels, also for val and test")
    if len({one.findings for one in sets}) > 1:
        raise DataError(f"{file.path}: the splits have labels of different shapes")
    return sets


def _check_split(file: NpzFile, split: Split) -> _Set:
    if f"{split}_labels" not in file.names:
        raise DataError(f"{file.path} has {split}_images and no {split}_labels")
    images, labels = file.header(f"{split}_images"), file.header(f"{split}_labels")
    shape = images.shape
    flat = len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)
    if images.dtype != np.uint8 or not flat or not all(1 <= side <= _LARGEST_SIDE for side in shape[1:]):
        kind = "volumes, which no 2-D network takes" if len(shape) > 3 else "no images"
        allowed = "allowed are uint8 (N, S, S) and (N, S, S, 3)"
        raise DataError(f"{file.path}: {split}_images are {kind}: {images.dtype} {shape}; {allowed}")
    if labels.dtype.kind not in "biu" or len(labels.shape) > 2 or labels.shape[0] != shape[0]:
        raise DataError(f"{file.path}: {split}_labels are {labels.dtype} {labels.shape} for {shape[0]} images")
    if shape[0] > _LARGEST_COUNT:
        raise DataError(
            f"{file.path}: {split}_images announces {shape[0]:,} images; at most {_LARGEST_COUNT:,} are read"
        )
    columns = labels.shape[1] if len(labels.shape) == 2 else 1
    if columns < 1 or labels.row_bytes > 8 * _LARGEST_SIDE:
        raise DataError(f"{file.path}: {split}_labels have {columns} columns")
    return _Set(split=split, images=shape[0], image_bytes=images.row_bytes, findings=columns if columns > 1 else 0)


def _class_names(path: Path, sets: Sequence[_Set]) -> tuple[str, ...]:
    """Return the names of the set that a file is called after; none where they are not known."""
    stem = re.sub(r"_\d+$", "", path.stem.lower())
    names = CLASSES.get(stem, ())
    findings = sets[0].findings
    return names if not findings or len(names) == findings else tuple(str(i) for i in range(findings))


def _samples(file: NpzFile, one: _Set, names: Sequence[str]) -> Iterator[RawSample]:
    known: dict[tuple[int, ...], str | Mapping[str, Finding]] = {}
    number = 0
    for labels in file.rows(f"{one.split}_labels"):
        for label in map(tuple, labels.reshape(len(labels), -1).tolist()):
            if label not in known:
                known[label] = _findings(file, label, names) if one.findings else _class(file, label[0], names)
            yield RawSample(path=_path(one.split, number), label=known[label], split=one.split)
            number += 1


def _class(file: NpzFile, number: int, names: Sequence[str]) -> str:
    if not names:
        return str(int(number))
    if not 0 <= number < len(names):
        raise LabelError(f"{file.path} has the label {number}; the set has the classes 0 to {len(names) - 1}")
    return names[number]


def _findings(file: NpzFile, marks: Sequence[int], names: Sequence[str]) -> dict[str, Finding]:
    if not set(marks) <= {0, 1}:
        raise LabelError(f"{file.path} has the label {list(marks)}; allowed for several findings are 0 and 1")
    return {name: _MARKS[mark] for name, mark in zip(names, marks, strict=True)}


def _images(file: NpzFile, one: _Set) -> Iterator[tuple[str, bytes]]:
    number = 0
    for images in file.rows(f"{one.split}_images"):
        for image in images:
            yield _path(one.split, number), _png(image)
            number += 1


def _path(split: str, number: int) -> str:
    return f"{split}/{number:07d}.png"


def _png(image: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG", compress_level=1)
    return content.getvalue()
