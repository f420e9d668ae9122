"""The networks that can be cut, by name; each origin is one file, in `plugins`' table `backbones`.

A name is a torchvision name (`densenet121`), a family's name and a name in it (`cbr:tiny`,
`timm:resnet18`), or the user's own `package.module:function`.
"""

from functools import lru_cache

import torch
from torch import nn

from ttl_deploy import plugins
from ttl_deploy.errors import UnknownNameError
from ttl_deploy.models.backbones.backbone import Backbone, Family
from ttl_deploy.models.backbones.meta_device import ParametersOnMeta
from ttl_deploy.models.backbones.own import find_own

_BARE = "torchvision"
"""The family whose names need no prefix."""


@lru_cache(maxsize=1)
def backbone_names() -> tuple[str, ...]:
    """Return the names of all backbones that can be listed, torchvision's first, without the user's own."""
    listed = [(prefix, _family(prefix).names()) for prefix in plugins.names("backbones")]
    return tuple(name if prefix == _BARE else f"{prefix}:{name}" for prefix, names in listed for name in names)


@lru_cache(maxsize=64)
def find_backbone(name: str) -> Backbone:
    """Return the backbone of this name.

    Raises `UnknownNameError`, `UsageError` for options or own code that do not fit, and
    `MissingExtraError` where the family's package is not installed.
    """
    prefix, colon, rest = name.partition(":")
    if not colon:
        if name not in (bare := _family(_BARE).names()):
            raise UnknownNameError("backbone", name, bare, _other_ways())
        return _family(_BARE).find(name)
    if prefix in plugins.names("backbones") and prefix != _BARE:
        return _family(prefix).find(rest)
    return find_own(name)


def build_backbone(name: str, *, image_size: int) -> nn.Module:
    """Build a backbone with random weights and its own classes; only some need to know the image's side in pixels.

    Its input is `(N, C, H, W)`, normalised. Raises what `find_backbone` raises.
    """
    return find_backbone(name).build(image_size)


def build_meta_backbone(name: str, *, image_size: int) -> nn.Module:
    """Build a backbone's structure in eval mode on the meta device: shapes without values.

    Leaves the state of torch's random numbers as it was.
    """
    backbone = find_backbone(name)
    with torch.random.fork_rng(devices=[]):
        if not backbone.builds_on_meta:
            return backbone.build(image_size).to("meta").eval()
        with ParametersOnMeta():
            return backbone.build(image_size).to("meta").eval()


def _family(prefix: str) -> Family:
    family: Family = plugins.load("backbones", prefix)()
    return family


def _other_ways() -> str:
    prefixes = ", ".join(f"{prefix}:NAME" for prefix in plugins.names("backbones") if prefix != _BARE)
    return f"Besides torchvision's names there are {prefixes}, and package.module:function for a network of your own"
