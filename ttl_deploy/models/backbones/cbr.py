"""CBR: the small convolutional networks that Raghu et al. 2019 (Transfusion) train from scratch.

`cbr:large-t`, `cbr:large-w`, `cbr:small`, `cbr:tiny`, each with options such as `cbr:tiny?kernel=7&widths=64-128`.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from torch import nn

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.models.backbones.backbone import Backbone
from ttl_deploy.options import split_options

_CLASSES = 1000  # as torchvision's networks have; a truncated model brings its own
_LARGEST_KERNEL = 31
_LARGEST_WIDTH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What the four networks differ in: side of all kernels, channels of each unit, a max-pool at the very end."""

    kernel: int
    widths: tuple[int, ...]
    last_pool: bool


# By the descriptions of the paper's appendix, Tiny (4.31 M parameters) is larger than Small (2.11 M).
# That is why everything they differ in is an option.
_NETWORKS: Mapping[str, Architecture] = MappingProxyType(
    {
        "large-t": Architecture(kernel=7, widths=(32, 64, 128, 256, 512), last_pool=False),
        "large-w": Architecture(kernel=7, widths=(64, 128, 256, 512), last_pool=True),
        "small": Architecture(kernel=7, widths=(32, 64, 128, 256), last_pool=True),
        "tiny": Architecture(kernel=5, widths=(64, 128, 256, 512), last_pool=True),
    }
)
_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "kernel": f"1..{_LARGEST_KERNEL}",
        "widths": "CHANNELS-CHANNELS-… (one per unit)",
        "last-pool": "yes|no",
    }
)


class CbrFamily:
    """The four CBR networks, and any other of their kind through options."""

    def names(self) -> tuple[str, ...]:
        """Return the four published ones."""
        return tuple(_NETWORKS)

    def find(self, name: str) -> Backbone:
        """Return a network; no weights are published. Raises `UnknownNameError`, or `UsageError` for options."""
        network, options = split_options(name, _OPTIONS)
        if network not in _NETWORKS:
            raise UnknownNameError("CBR network", network, _NETWORKS)
        architecture = _change(_NETWORKS[network], options)
        return Backbone(name=f"cbr:{name}", build=partial(_build, architecture), builds_on_meta=True)


class Unit(nn.Sequential):
    """Convolution without padding, BatchNorm, ReLU, and a 3 x 3 max-pool of stride 2 where the unit has one."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, pool: bool) -> None:
        layers: list[tuple[str, nn.Module]] = [
            ("conv", nn.Conv2d(inputs, outputs, kernel)),
            ("norm", nn.BatchNorm2d(outputs)),
            ("relu", nn.ReLU(inplace=True)),
        ]
        if pool:
            layers.append(("pool", nn.MaxPool2d(3, stride=2)))
        super().__init__(OrderedDict(layers))


class Cbr(nn.Sequential):
    """Units, global average pooling, one linear layer; RGB images `(N, 3, H, W)` to logits `(N, 1000)`.

    Layer by layer from the code of Peng et al. (TTL), with which two descriptions of Raghu et al.'s
    appendix agree. How their weights start is not known; here it is torch's own default. TTL's
    Dropout of 0.1 before the linear layer is an option of the head: cut at the last unit, where the
    model has the size of `full`, with dropout 0.1.
    """

    def __init__(self, architecture: Architecture) -> None:
        units = len(architecture.widths)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = 3
        for number, width in enumerate(architecture.widths, start=1):
            pool = number < units or architecture.last_pool
            layers[f"unit{number}"] = Unit(inputs, width, kernel=architecture.kernel, pool=pool)
            inputs = width
        layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["fc"] = nn.Linear(inputs, _CLASSES)
        super().__init__(layers)


def _build(architecture: Architecture, _image_size: int) -> nn.Module:
    return Cbr(architecture)


def _change(architecture: Architecture, options: Mapping[str, str]) -> Architecture:
    if "kernel" in options:
        architecture = replace(architecture, kernel=_read_number("kernel", options["kernel"], _LARGEST_KERNEL))
    if "widths" in options:
        widths = tuple(_read_number("widths", width, _LARGEST_WIDTH) for width in options["widths"].split("-"))
        architecture = replace(architecture, widths=widths)
    if "last-pool" in options:
        architecture = replace(architecture, last_pool=_read_yes("last-pool", options["last-pool"]))
    return architecture


def _read_number(option: str, text: str, largest: int) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= largest):
        form = "whole numbers joined by -, such as 32-64-128, each" if option == "widths" else "a whole number"
        raise UsageError(f"{option} of a CBR network: got {text!r}, give {form} from 1 to {largest}")
    return int(text)


def _read_yes(option: str, text: str) -> bool:
    if text not in ("yes", "no"):
        raise UsageError(f"{option} of a CBR network: got {text!r}, give yes or no")
    return text == "yes"
