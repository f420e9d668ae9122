"""What is known of a data set: samples, their splits, how pixels are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ttl_deploy.records.grey import parse_grey

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Fit = Literal["pad", "stretch", "crop"]
Finding = Literal["present", "absent", "uncertain", "blank"]
"""What a source says of one finding of an image that can have several; `blank` where it says nothing."""
Uncertain = Literal["ones", "zeros", "ignore"]
Blank = Literal["zeros", "ignore"]
PRESENT, ABSENT, UNKNOWN = 1, 0, -1
Label = int | tuple[int, ...]
"""The number of an image's class; or, where it can have several, `PRESENT`, `ABSENT` or `UNKNOWN` for every class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSettings:
    """How a file becomes pixels `(image_size, image_size, 3)` uint8 RGB.

    `fit` says what happens to the aspect ratio: `pad` keeps it and fills with black, `stretch`
    ignores it, `crop` keeps it and cuts the longer side. `grey` says how grey values of more than
    8 bits become 8: `auto` (the window in a DICOM file, else by the file's range), `full` (the whole
    range of the file's bits), `window=CENTRE/WIDTH` or `percentile=LOW/HIGH`.
    """

    image_size: int
    fit: Fit = "pad"
    grey: str = "auto"

    def __post_init__(self) -> None:
        if not 8 <= self.image_size <= 2048:
            raise ValueError(f"image_size must lie in 8..2048 pixels, not {self.image_size}")
        parse_grey(self.grey)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a source's rows become labelled images.

    The columns of a table are named, or recognised where they are empty. `labels` are those to keep: one makes
    a task of two classes, several a task of several labels per image. `uncertain` and `blank` say what becomes of
    findings that the source calls uncertain, or says nothing of; ignored ones are masked and never count as absent.
    `classes` renames and groups classes, old name to new; an empty new name leaves the class out. `image_root` is
    where the images lie if not beside the table. `max_bad` is the share of unreadable images from which on the
    data are refused; below it they are left out by name.
    """

    image_col: str = ""
    label_col: str = ""
    patient_col: str = ""
    split_col: str = ""
    labels: tuple[str, ...] = ()
    uncertain: Uncertain = "ignore"
    blank: Blank = "zeros"
    classes: Mapping[str, str] = field(default_factory=dict)
    image_root: str = ""
    max_bad: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"max_bad = {self.max_bad}; allowed are shares from 0 to 1")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels names one twice: {', '.join(self.labels)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image of the data set. `path` is relative to the manifest's root, with forward slashes.

    `label` indexes `Manifest.classes`, or marks every one of them; `extra` keeps the table's other columns for
    subgroups.
    """

    path: str
    label: Label
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

    With `multilabel` an image can have several of the classes, or none, and its label has a mark for each. Else it
    has one, and of two classes class 1 is the positive one. `patients_known` is False where the source has no
    patient ids: then every distinct image counts as a patient of its own.
    """

    name: str
    root: str
    reader: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    patients_known: bool
    multilabel: bool = False
    warnings: tuple[DataWarning, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise ValueError(f"a classification task needs at least two classes, not {self.classes}")

    def of_split(self, split: Split) -> tuple[int, ...]:
        """Return the positions in `samples` that belong to `split`, in order."""
        return tuple(i for i, sample in enumerate(self.samples) if sample.split == split)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCount:
    """Size of one split: images, patients, and images per class in class order.

    Where an image can have several classes, `per_class` counts those it is known to have, and `unknown` the images
    of which it is not known.
    """

    split: Split
    images: int
    patients: int
    per_class: tuple[int, ...]
    unknown: tuple[int, ...] = ()


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
    multilabel: bool = False
