"""What `ttl-deploy inspect` finds in a data set. Paths and patients' ids stay in this record."""

from dataclasses import dataclass

from ttl_deploy.records.data import DataWarning, Split, SplitCount


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Smallest, middle and largest of some numbers."""

    smallest: float
    median: float
    largest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSizes:
    """Sizes in pixels as the files have them, and how they compare with the size asked for.

    `enlarged` counts images whose longer side is below `image_size`: they gain pixels, and no detail.
    """

    width: Spread
    height: Spread
    distinct: int
    image_size: int
    enlarged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Brightness:
    """Grey values 0..255 of the images of a split and class, each scaled to 256 by 256 pixels.

    None where no image was looked at. `images` is how many were.
    """

    split: Split
    label: str
    images: int
    darkest: int | None
    brightest: int | None
    mean: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A file that does not decode, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactCopies:
    """Groups of byte-identical files; a group across splits would have stopped the inspection."""

    groups: int
    across_patients: int
    across_labels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NearPair:
    """Two files that differ and show nearly the same picture; `match` is 1 where nothing differs in detail."""

    paths: tuple[str, str]
    splits: tuple[Split, Split]
    labels: tuple[str, str]
    patients: tuple[str, str]
    match: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NearDuplicates:
    """Pairs of nearly the same picture in different splits, of different patients or with different labels.

    Attributes:
        images: distinct files that were compared; `blank` more show a single grey and were not.
        across_splits, across_patients, across_labels: pairs of each kind; a pair may be of several.
        pairs: the best matches, at most as many as are kept; the counts are of all.
        least_match: what it took to be reported; higher where all pictures of the set look alike.
        complete: False where the search ended early because there were too many.
    """

    images: int
    blank: int
    across_splits: int
    across_patients: int
    across_labels: int
    pairs: tuple[NearPair, ...]
    least_match: float
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TraitScore:
    """How well a trait that is not in the picture predicts the label: AUROC, macro for several classes.

    The bounds are those of the 95 % interval over patients; None where it is not known. `alarming` says
    that a network may learn the trait instead of the disease.
    """

    trait: str
    auroc: float
    low: float | None
    high: float | None
    alarming: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Confounding:
    """Traits, the most telling first, and how many images and patients they were examined on."""

    images: int
    patients: int
    traits: tuple[TraitScore, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """All that was found. `warnings` are those a search would give, then those of the inspection itself."""

    name: str
    root: str
    reader: str
    classes: tuple[str, ...]
    patients_known: bool
    splits: tuple[SplitCount, ...]
    images_per_patient: Spread
    sizes: ImageSizes
    file_types: dict[str, int]
    modes: dict[str, int]
    brightness: tuple[Brightness, ...]
    unreadable: tuple[Unreadable, ...]
    copies: ExactCopies
    near_duplicates: NearDuplicates
    confounding: Confounding
    warnings: tuple[DataWarning, ...]
