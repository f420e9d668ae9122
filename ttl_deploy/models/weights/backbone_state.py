"""What a backbone's state dict holds: names, shapes and types, without values."""

from collections.abc import Mapping
from functools import cache
from itertools import accumulate

import torch

from ttl_deploy.models.backbones import build_meta_backbone


@cache
def read_state(backbone: str, image_size: int) -> Mapping[str, torch.Tensor]:
    """Return a backbone's state dict on the meta device."""
    return build_meta_backbone(backbone, image_size=image_size).state_dict()


def list_prefixes(name: str) -> list[str]:
    """Return `layer1`, `layer1.0`, `layer1.0.conv1` … for a dotted name, itself last."""
    return list(accumulate(name.split("."), "{}.{}".format))
