"""The structure of a narrowed model as plain numbers: read from a pruned model, and brought into a new one.

A pruned model is rebuilt from its description and a safetensors file, without the library that pruned it.
"""

from collections.abc import Sequence

import torch
from torch import nn

from ttl_deploy.errors import DataError
from ttl_deploy.records.models import NarrowLayer

_SIZES = ("in_channels", "out_channels", "groups", "in_features", "out_features", "num_features", "num_parameters")


def describe_layers(narrow: nn.Module, wide: nn.Module) -> tuple[NarrowLayer, ...]:
    """Return the layers in which two models of the same modules differ, in the models' order."""
    pairs = zip(narrow.named_modules(), wide.modules(), strict=True)
    described = (_describe(name, own, other) for (name, own), other in pairs)
    return tuple(layer for layer in described if layer.sizes or layer.shapes)


def resize_layers(model: nn.Module, layers: Sequence[NarrowLayer]) -> None:
    """Give layers of a model their narrow sizes, in place; their tensors become new ones with small random values,
    running statistics ones.

    Raises `DataError` where the model has no such layer.
    """
    for layer in layers:
        try:
            module = model.get_submodule(layer.name)
        except AttributeError as error:
            raise DataError(f"the structure names a layer {layer.name!r} that this model does not have") from error
        for name, size in layer.sizes.items():
            setattr(module, name, size)
        if isinstance(module, nn.LayerNorm):
            module.normalized_shape = layer.shapes["weight"]
        for name, shape in layer.shapes.items():
            _replace_tensor(module, name, shape)


def _describe(name: str, own: nn.Module, other: nn.Module) -> NarrowLayer:
    sizes = {key: int(getattr(own, key)) for key in _SIZES if hasattr(own, key)}
    shapes = {key: tuple(tensor.shape) for key, tensor in _own_tensors(own).items()}
    before = {key: tuple(tensor.shape) for key, tensor in _own_tensors(other).items()}
    return NarrowLayer(
        name=name,
        sizes={key: size for key, size in sizes.items() if size != getattr(other, key)},
        shapes={key: shape for key, shape in shapes.items() if shape != before[key]},
    )


def _own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])


def _replace_tensor(module: nn.Module, name: str, shape: Sequence[int]) -> None:
    old = _own_tensors(module)[name]
    new = torch.ones(*shape, dtype=old.dtype, device=old.device)
    if isinstance(old, nn.Parameter):
        setattr(module, name, nn.Parameter(nn.init.normal_(new, std=0.02), requires_grad=old.requires_grad))
    else:
        module.register_buffer(name, new)
