"""What is known of a data set: samples, their splits, how pixels are made."""

from dataclasses import dataclass, field
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Fit = Literal["pad", "stretch", "crop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSettings:
    """How a file becomes pixels `(image_size, image_size, 3)` uint8 RGB.

    `fit` says what happens to the aspect ratio: `pad` keeps it and fills with black, `stretch`
    ignores it, `crop` keeps it and cuts the longer side.
    """

    image_size: int
    fit: Fit = "pad"

    def __post_init__(self) -> None:
        if not 8 <= self.image_size <= 2048:
            raise ValueError(f"image_size must lie in 8..2048 pixels, not {self.image_size}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image of the data set. `path` is relative to the manifest's root, with forward slashes.

    `label` indexes `Manifest.classes`; `extra` keeps the table's other columns for subgroups.
    """

    path: str
    label: int
    patient_id: str
    split: Split
    sha256: str
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataWarning:
    """Something a reader of the results should know about the data; `kind` is a stable word."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A labelled data set with its splits fixed and its leakage checks passed.

    For two classes, class 1 is the positive one. `patients_known` is False where the source has no
    patient ids: then every distinct image counts as a patient of its own.
    """

    name: str
    root: str
    reader: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    patients_known: bool
    warnings: tuple[DataWarning, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(f"a classification task needs at least two classes, not {self.classes}")

    def of_split(self, split: Split) -> tuple[int, ...]:
        """Return the positions in `samples` that belong to `split`, in order."""
        return tuple(i for i, sample in enumerate(self.samples) if sample.split == split)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCount:
    """Size of one split: images, patients, and images per class in class order."""

    split: Split
    images: int
    patients: int
    per_class: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFingerprint:
    """What identifies a data set in results and artifacts; holds no path and no patient id.

    `sha256` covers, sorted, every sample's content hash, label, split and (hashed) patient.
    """

    name: str
    reader: str
    sha256: str
    classes: tuple[str, ...]
    counts: tuple[SplitCount, ...]
    patients_known: bool
