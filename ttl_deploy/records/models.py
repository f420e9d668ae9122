"""Backbones, cuts, and the description from which a truncated model is rebuilt."""

from dataclasses import dataclass, field, replace
from typing import Literal

Pool = Literal["avg", "max", "avgmax", "gem", "flatten"]
FULL = "full"
"""The name of the cut that is the whole network, its last layer resized to the task's classes."""
Layout = Literal["map", "map-last", "tokens"]
"""How features lie in memory: `(N, C, H, W)`, `(N, H, W, C)` as in Swin, or `(N, tokens, C)` as in ViT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputConvention:
    """How a network wants its images: `(value - mean) / std` per channel, for pixel values in 0..1.

    With three entries channels are red, green, blue; a single entry holds for every channel, be it
    one (grey) or three.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise ValueError(f"mean {self.mean} and std {self.std} must both have one entry, or three")
        if not all(value > 0 for value in self.std):
            raise ValueError(f"std {self.std} must be above 0")


IMAGENET_INPUT = InputConvention(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""ImageNet's statistics, with which torchvision's networks were trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowLayer:
    """How one layer of a narrowed model differs from the same layer at full width.

    Attributes:
        name: module path in the model, such as `trunk.features.conv0`.
        sizes: attributes of the module that are numbers: `in_channels`, `out_channels`, `groups`, …
        shapes: of its own parameters and buffers.
    """

    name: str
    sizes: dict[str, int] = field(default_factory=dict, hash=False)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """All that is needed to rebuild a model's structure; its weights live in a safetensors file.

    `cut` is a cut's name, or `full`. With `multilabel` every class is answered by itself (sigmoid), else one of
    them (softmax). `image_size` in pixels; inputs are RGB. With `exits` it is one
    network with a head at each of these cuts, shallow to deep, the last of which is `cut`. `width` is the
    share of channels that pruning leaves; `layers` is what that makes of the layers, none at full width.
    """

    backbone: str
    cut: str
    classes: int
    image_size: int
    pool: Pool = "avg"
    dropout: float = 0.0
    exits: tuple[str, ...] = ()
    multilabel: bool = False
    width: float = 1.0
    layers: tuple[NarrowLayer, ...] = ()

    @property
    def at_full_width(self) -> "ModelSpec":
        """The model that this one was narrowed from."""
        return replace(self, width=1.0, layers=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A place where a backbone can be cut, with the cost of the model that is left.

    Attributes:
        name: module path a person knows, such as `layer3.3`; `full` for the whole network.
        nodes: the fx node whose output is taken, or the parts of one concatenation.
        stage: whether it is the last cut at its resolution (what `--cuts stages` takes); not in the
            middle of a block, and not where it would be the same network as `full`.
        depth: position among all cuts of the backbone, counted from 1.
        channels, height, width: shape of the features at the cut, for the given image size; tokens
            are counted in `height`, with `width` 1.
        layout: in which order the trunk returns them.
        normalised: False where the head must start with a normalisation.
        params: parameters of trunk and head together.
        macs: multiply-accumulates of convolutions and linear layers for one image, head included.
        layers: convolutions and linear layers that run, head included.
        params_share, macs_share: the same relative to the full network with as many classes.
        weights_bytes: size of the model's parameters and buffers in single precision: about that of
            the exported file.
        peak_bytes: largest size of the tensors alive at once while the trunk runs layer by layer on
            one image in single precision, the image included to the end; what a layer needs inside is
            not counted.
        receptive_field: side in pixels of the square that one position at the cut can depend on, where
            that is known: the image's side where every position sees everything; otherwise not clipped
            to the image, so it may be larger. Gates (squeeze-and-excitation) are not counted.
        global_context: whether gates, or a normalisation by the image's own statistics, let the trunk see
            a summary of the whole image as well.
    """

    name: str
    nodes: tuple[str, ...]
    stage: bool
    depth: int
    channels: int
    height: int
    width: int
    layout: Layout
    normalised: bool
    params: int
    macs: int
    layers: int
    params_share: float
    macs_share: float
    weights_bytes: int
    peak_bytes: int
    receptive_field: int | None
    global_context: bool
