"""Whose weights a file seems to hold."""

from collections.abc import Mapping

import torch

from ttl_deploy.models.backbones import backbone_names
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.models.weights.backbone_state import read_state

_USUAL_SIZE = 224
_MOST = 0.9


def guess_backbone(tensors: Mapping[str, torch.Tensor]) -> str | None:
    """Return the backbone to which all, or nearly all, tensors of a file belong, or None."""
    likely, most = None, _MOST
    for name in _likely_family(tensors):
        own = read_state(name, _USUAL_SIZE)
        fitting = sum(key in own and own[key].shape == tensor.shape for key, tensor in tensors.items())
        share = fitting / max(len(tensors), 1)
        if share > most:
            likely, most = name, share
    return likely


def _likely_family(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the backbones of the torchvision module whose first network shares most names with the file."""
    models = load_torchvision().models
    families: dict[str, list[str]] = {}
    for name in (name for name in backbone_names() if ":" not in name):
        families.setdefault(models.get_model_builder(name).__module__, []).append(name)
    shared = {
        family: len(tensors.keys() & read_state(names[0], _USUAL_SIZE).keys()) for family, names in families.items()
    }
    return families[max(shared, key=lambda family: shared[family])]
