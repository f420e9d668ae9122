"""Backbones, cuts, and the description from which a truncated model is rebuilt."""

from dataclasses import dataclass
from typing import Literal

Pool = Literal["avg", "max", "avgmax", "gem", "flatten"]
FULL = "full"
"""The name of the cut that is the whole network, its last layer resized to the task's classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """All that is needed to rebuild a model's structure; its weights live in a safetensors file.

    `cut` is a cut's name, or `full`. `image_size` in pixels; inputs are RGB.
    """

    backbone: str
    cut: str
    classes: int
    image_size: int
    pool: Pool = "avg"
    dropout: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A place where a backbone can be cut, with the cost of the model that is left.

    Attributes:
        name: module path a person knows, such as `layer3.3`; `full` for the whole network.
        nodes: the fx node whose output is taken, or the parts of one concatenation.
        stage: whether it is the last cut at its resolution (what `--cuts stages` takes); not in the
            middle of a block, and not where it would be the same network as `full`.
        depth: position among all cuts of the backbone, counted from 1.
        channels, height, width: shape of the features at the cut, for the given image size.
        normalised: False where the head must start with BatchNorm and ReLU.
        params: parameters of trunk and head together.
        macs: multiply-accumulates of convolutions and linear layers for one image, head included.
        layers: convolutions and linear layers that run, head included.
        params_share, macs_share: the same relative to the full network with as many classes.
    """

    name: str
    nodes: tuple[str, ...]
    stage: bool
    depth: int
    channels: int
    height: int
    width: int
    normalised: bool
    params: int
    macs: int
    layers: int
    params_share: float
    macs_share: float
