"""Why a depth is enough: how alike networks are at each depth, what a position sees there, where a model looks."""

from dataclasses import dataclass
from typing import Literal

from ttl_deploy.records.data import Split

ANALYSIS_FILE = "analysis.json"
CAM_FOLDER = "analysis"
"""Where, in a run folder, the record and the pictures of patients' images lie."""
Pair = Literal["full-start", "cut-start", "cut-full", "full-random", "cut-random", "random-random"]
PAIR_WORDS: dict[Pair, str] = {
    "full-start": "the full network after and before finetuning",
    "cut-start": "the truncated model after finetuning and what it began with",
    "cut-full": "the truncated model and the full network, both finetuned",
    "full-random": "the finetuned full network and a random one",
    "cut-random": "the finetuned truncated model and a random network",
    "random-random": "two random networks",
}
Against = Literal["initial", "full", "random"]
AGAINST: tuple[Against, ...] = ("initial", "full", "random")
CamKind = Literal["both right", "only the full network right", "only the truncated model right", "both wrong"]
SETTLED_WITHIN = 0.01
"""A training has settled at the first epoch whose validation AUROC is this close to its best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSimilarity:
    """How alike two networks are at one cut.

    Attributes:
        samples: positions of maps, over all images, that SVCCA was computed from.
        directions: how many singular directions of each network's features were kept.
        svcca: mean canonical correlation of these; None where it is undefined, and `svcca_reason` says why.
        svcca_noise: the same of Gaussian noise in as many directions and samples.
        noise_edge: the largest coefficient that such noise is expected to have.
        cka: debiased linear CKA of features averaged over the map, one sample per image; it can be a little below
            0. None where it is undefined, and `cka_reason` says why.
    """

    pair: Pair
    cut: str
    samples: int
    directions: tuple[int, int]
    svcca: float | None
    svcca_noise: float | None
    noise_edge: float | None
    svcca_reason: str = ""
    cka: float | None
    cka_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """A cut that networks were compared at; fields as in `Cut`. `positions` of its map were used, of each image."""

    cut: str
    depth: int
    channels: int
    height: int
    width: int
    positions: int
    macs_share: float
    receptive_field: int | None
    global_context: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """A trial's validation AUROC, for each of its epochs; None where it is undefined."""

    key: str
    epochs: tuple[int, ...]
    val_auroc: tuple[float | None, ...]

    @property
    def settled_epoch(self) -> int | None:
        """The first epoch within `SETTLED_WITHIN` of the best; None where no score is defined."""
        known = [(epoch, value) for epoch, value in zip(self.epochs, self.val_auroc, strict=True) if value is not None]
        best = max((value for _, value in known), default=None)
        return next((epoch for epoch, value in known if best is not None and value >= best - SETTLED_WITHIN), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CamImage:
    """One image with the Grad-CAM maps of two models for the class `label`.

    Attributes:
        file: the picture, in the run folder: the image, the full network's map, the truncated model's.
        image: the image's path in the data.
        full, cut: the probability of `label` that each model gave.
    """

    file: str
    image: str
    split: Split
    label: str
    kind: CamKind
    full: float
    cut: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cams:
    """Grad-CAM of the full and the truncated model; the layers are the last maps before each one's pooling.

    `full_grid` and `cut_grid` are the height and width of these maps.
    """

    full_layer: str
    full_grid: tuple[int, int]
    cut_layer: str
    cut_grid: tuple[int, int]
    seed: int
    images: tuple[CamImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """`analysis.json` of a run folder.

    Attributes:
        model, reference: keys of the trials of the truncated and the full model; None where there is nothing to
            compare it with.
        images: how many of the split's images were used, drawn by `image_seed`.
        position_seed: of the draw of positions; a map's are the same in every image and network.
        random_seeds: of the random networks' weights.
        variance_share: of each network's features that SVCCA keeps.
        lesion_px: side of the smallest finding, in pixels of the images as the network gets them, if it was given.
        depths: shallow to deep; `similarities` in the order of their pairs, each shallow to deep.
        seconds: how long it took in all.
    """

    backbone: str
    weights: str
    image_size: int
    cut: str
    model: str
    reference: str | None
    split: Split
    images: int
    split_images: int
    image_seed: int
    position_seed: int
    random_seeds: tuple[int, ...]
    variance_share: float
    lesion_px: float | None
    depths: tuple[Depth, ...]
    similarities: tuple[LayerSimilarity, ...]
    curves: tuple[Convergence, ...]
    cams: Cams | None
    notes: tuple[str, ...]
    device: str
    seconds: float
    created: str

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs that were compared, each once."""
        return tuple(dict.fromkeys(one.pair for one in self.similarities))

    def similarity(self, pair: Pair, cut: str) -> LayerSimilarity | None:
        """Return what was found of a pair at a cut; None where the cut is not in both."""
        return next((one for one in self.similarities if (one.pair, one.cut) == (pair, cut)), None)
