"""Slim hybrids: a pretrained bottom at full width under a narrower top that starts random.

`slim:resnet50?keep=layer2.3`, `slim:densenet201?keep=features.transition1`, with `factor=2` and
`copy=bottom` unless given. Raghu et al. 2019 (Transfusion) call it "Slim": ResNet-50, everything up
to stage 2 pretrained, the channels of the rest halved. Peng et al. (TTL) compare with it as "TF". Both
have ResNets of bottlenecks, TTL DenseNets too; ResNet-18, ResNet-34 and MobileNetV2
(`slim:mobilenet_v2?keep=features.6`) become narrower by the same rules here, which no paper has.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Literal

from torch import nn

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.models.backbones.backbone import Backbone
from ttl_deploy.models.backbones.meta_device import ParametersOnMeta
from ttl_deploy.models.backbones.narrowing import DenseNetTop, MobileNetTop, ResNetTop, Top
from ttl_deploy.models.backbones.torchvision_models import TorchvisionFamily
from ttl_deploy.options import split_options

# Without ResNeXt: whether its groups or the channels in a group should become fewer, no paper says.
_RESNETS = ("resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2", "resnet18", "resnet34")
_TOPS: Mapping[str, Top] = MappingProxyType(
    {
        **dict.fromkeys(_RESNETS, ResNetTop()),
        **dict.fromkeys(("densenet121", "densenet161", "densenet169", "densenet201"), DenseNetTop()),
        "mobilenet_v2": MobileNetTop(),
    }
)
_COPIES = ("bottom", "matching")
_FACTORS = ("2", "4", "8")  # powers of two that divide every width and growth of these networks
_ANY_SIZE = 224  # the structure of these networks is the same for all images
_PUBLISHED = (
    *(f"resnet50?keep=layer{stage}" for stage in (1, 2, 3)),
    *(f"densenet201?keep=features.transition{number}" for number in (1, 2, 3)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hybrid:
    """One slim network.

    Attributes:
        parent: the torchvision network whose bottom it keeps.
        keep: the deepest unit that stays at full width.
        factor: what widths above are divided by.
        matching: whether weights are copied tensor by tensor wherever shapes match, not by depth.
    """

    parent: str
    keep: str
    factor: int
    matching: bool


class SlimFamily:
    """Slim hybrids of torchvision's DenseNets, ResNets and MobileNetV2.

    What is taken from the parent's weights is the option `copy`; the classification layer never is:

    `bottom`: every tensor up to `keep`, running statistics included. Above, convolutions start from
    `kaiming_normal_` by fan-out. This is TTL's code by blocks; what is known of Raghu et al.'s Slim agrees.

    `matching`: every parameter that the parent has under the same name in the same shape, above
    `keep` too, and no running statistics: they start at 0 and 1. Other convolutions start from
    `kaiming_normal_` by fan-in. This is TTL's code by bottlenecks, for ResNet-50.

    BatchNorm above starts at scale 1 and shift 0 either way. How TTL's DenseNets start above the cut
    is not known; they do as the ResNets by blocks.
    """

    def names(self) -> tuple[str, ...]:
        """Return TTL's six hybrids by blocks; there are many more."""
        return _PUBLISHED

    def find(self, name: str) -> Backbone:
        """Return a hybrid; raises `UnknownNameError` for its parent, `UsageError` for options that do not fit."""
        hybrid = _read(name)
        published = TorchvisionFamily().find(hybrid.parent).published
        return Backbone(
            name=f"slim:{name}",
            build=partial(_build, hybrid),
            published=published,
            weights_of=hybrid.parent,
            takes=partial(_takes, hybrid),
            builds_on_meta=True,
        )


def _read(name: str) -> Hybrid:
    allowed = {"keep": "UNIT (required)", "factor": "|".join(_FACTORS), "copy": "|".join(_COPIES)}
    parent, options = split_options(name, allowed)
    if parent not in _TOPS:
        raise UnknownNameError("network to slim", parent, _TOPS, f"allowed: {', '.join(_TOPS)}")
    return Hybrid(
        parent=parent,
        keep=_find_unit(name, parent, options.get("keep", "")),
        factor=int(_choose(name, "factor", options.get("factor", "2"), _FACTORS)),
        matching=_choose(name, "copy", options.get("copy", "bottom"), _COPIES) == "matching",
    )


def _choose(name: str, option: str, given: str, allowed: Collection[str]) -> str:
    if given not in allowed:
        raise UsageError(f"slim:{name}: cannot use {option}={given}; give one of {', '.join(allowed)}")
    return given


def _find_unit(name: str, parent: str, given: str) -> str:
    """Return the unit that `keep` means: its own name, or a stage's for its last unit."""
    units = _TOPS[parent].list_units(_parent_structure(parent))
    stages = {unit.rpartition(".")[0]: unit for unit in units if unit.startswith("layer")}
    if given in units:
        return given
    if given in stages:
        return stages[given]
    problem = f"has no unit {given!r} to keep" if given else "does not say what stays at full width"
    raise UsageError(
        f"slim:{name} {problem}: give slim:{parent}?keep=UNIT, the deepest one that does, "
        f"where UNIT is one of {', '.join([*units, *stages])}"
    )


@lru_cache(maxsize=4)
def _parent_structure(parent: str) -> nn.Module:
    """Build a parent on the meta device: shapes without values."""
    with ParametersOnMeta():
        return TorchvisionFamily().find(parent).build(_ANY_SIZE)


def _list_above(hybrid: Hybrid) -> tuple[str, ...]:
    return _TOPS[hybrid.parent].list_above(_parent_structure(hybrid.parent), hybrid.keep)


def _build(hybrid: Hybrid, image_size: int) -> nn.Module:
    model = TorchvisionFamily().find(hybrid.parent).build(image_size)
    above = _list_above(hybrid)
    _TOPS[hybrid.parent].narrow(model, above, hybrid.factor)
    for path in above:
        for layer in model.get_submodule(path).modules():
            if isinstance(layer, nn.Conv2d):  # BatchNorm starts at scale 1 and shift 0 by itself
                mode: Literal["fan_in", "fan_out"] = "fan_in" if hybrid.matching else "fan_out"
                nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
    return model


def _takes(hybrid: Hybrid, name: str) -> bool:
    if hybrid.matching:
        return name in _matching_parameters(hybrid)
    return not any(name.startswith(f"{path}.") for path in _list_above(hybrid))


@lru_cache(maxsize=8)
def _matching_parameters(hybrid: Hybrid) -> frozenset[str]:
    """Return the parameters that have the shape they have in the parent, but for the classification layer's."""
    with ParametersOnMeta():
        own = dict(_build(hybrid, _ANY_SIZE).named_parameters())
    parents = _parent_structure(hybrid.parent).state_dict()
    classifier = f"{_TOPS[hybrid.parent].classifier}."
    return frozenset(
        name
        for name, parameter in own.items()
        if parameter.shape == parents[name].shape and not name.startswith(classifier)
    )
