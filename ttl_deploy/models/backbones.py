"""The convolutional networks that can be truncated: torchvision's classifiers, by name."""

from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ttl_deploy.errors import UnknownNameError
from ttl_deploy.models.torchvision_border import load_torchvision

# Transformers have tokens, or channels-last maps with attention between them, where we cut feature maps.
_TRANSFORMERS = ("vit_", "swin_", "maxvit_")

# Both were trained by another project on inputs scaled to -1..1. `transform_input` turns our
# ImageNet normalisation into that scale, as torchvision itself does with the pretrained weights;
# it stays on for random weights, so that a model's structure does not depend on its weights.
_INCEPTION_OPTIONS = {"aux_logits": False, "transform_input": True, "init_weights": True}
_OPTIONS: dict[str, dict[str, Any]] = {"googlenet": _INCEPTION_OPTIONS, "inception_v3": _INCEPTION_OPTIONS}


@lru_cache(maxsize=1)
def backbone_names() -> tuple[str, ...]:
    """Return the names of all torchvision classification networks that are convolutional, sorted."""
    models = load_torchvision().models
    return tuple(sorted(name for name in models.list_models(module=models) if not name.startswith(_TRANSFORMERS)))


def check_backbone(name: str) -> None:
    """Raise `UnknownNameError` unless `name` is a backbone's name."""
    if name in backbone_names():
        return
    remedy = ""
    if name.startswith(_TRANSFORMERS):
        remedy = f"{name} is a transformer; only convolutional networks can be cut"
    raise UnknownNameError("backbone", name, backbone_names(), remedy)


def build_backbone(name: str) -> nn.Module:
    """Build a backbone with random weights and its 1000 ImageNet classes, without auxiliary classifiers.

    Its input `(N, 3, H, W)` is normalised with ImageNet's mean and standard deviation.
    Raises `UnknownNameError`.
    """
    check_backbone(name)
    model: nn.Module = load_torchvision().models.get_model(name, weights=None, **_OPTIONS.get(name, {}))
    return model


def build_meta_backbone(name: str) -> nn.Module:
    """Build a backbone's structure in eval mode on the meta device: shapes without memory or values."""
    with _ParametersOnMeta():
        return build_backbone(name).to("meta").eval()


class _ParametersOnMeta(TorchFunctionMode):
    """Create parameters and buffers on the meta device.

    `torch.device("meta")` would also move the tensors with which RegNet computes its widths.
    """

    _FACTORIES = frozenset({torch.empty, torch.zeros, torch.ones})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in self._FACTORIES:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
