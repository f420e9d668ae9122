"""Weights for images of one channel in a network for three, and the other way round: exact on grey images."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from ttl_deploy.errors import WeightsError
from ttl_deploy.models.graph.tracing import Symbolic
from ttl_deploy.models.input_conventions import Feeding

_LOOKS = frozenset({"shape", "size", "dim", "getattr", "_assert", "ndim", "device", "dtype"})
"""What asks the image for its form and leaves it as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapted:
    """Tensors that fit the network's channels, and in words what was done to them (empty: nothing)."""

    tensors: Mapping[str, Tensor]
    note: str = ""


def count_file_channels(tensors: Mapping[str, Tensor], symbolic: Symbolic) -> int | None:
    """Return how many channels the images had, 1 or 3, for the network that the tensors are from; None if unknown."""
    for node in symbolic.graph.nodes:
        layer = symbolic.module(node)
        if isinstance(layer, nn.Conv2d):
            weight = tensors.get(f"{node.target}.weight")
            channels = weight.shape[1] * layer.groups if weight is not None and weight.ndim == 4 else 0
            return channels if channels in (1, 3) else None
    return None


def adapt_first_convolution(tensors: Mapping[str, Tensor], symbolic: Symbolic, feeding: Feeding) -> Adapted:
    """Adapt what sees the image where the file's network took another number of channels.

    From 1 to 3, each channel gets a third of the weights: the network computes on the channels' mean.
    From 3 to 1, the channels' weights are added, each with its own std folded in. Raises `WeightsError`
    where the image does not go into convolutions alone.
    """
    channels = count_file_channels(tensors, symbolic)
    if channels is None or channels == symbolic.channels:
        return Adapted(tensors=tensors)
    adapted, notes = dict(tensors), [f"first convolution adapted from {channels} to {_count(symbolic.channels)}"]
    for node in _find_readers(symbolic):
        name = f"{node.target}.weight"
        if name not in tensors or not tensors[name].is_floating_point():
            continue
        if channels == 1:
            adapted[name] = tensors[name].float().repeat(1, 3, 1, 1) / 3
        else:
            notes += _merge(adapted, symbolic, node, feeding)
    return Adapted(tensors=adapted, note=", ".join(dict.fromkeys(notes)))


def _count(channels: int) -> str:
    return f"{channels} channels" if channels > 1 else "1 channel"


def _find_readers(symbolic: Symbolic) -> list[fx.Node]:
    """Return the convolutions that the image goes into; raises `WeightsError` if it also goes elsewhere."""
    image = next(node for node in symbolic.graph.nodes if node.op == "placeholder")
    readers, waiting = [], list(image.users)
    while waiting:
        node = waiting.pop(0)
        layer = symbolic.module(node)
        if isinstance(layer, nn.Identity | nn.ZeroPad2d):
            waiting += node.users
        elif isinstance(layer, nn.Conv2d) and layer.groups == 1:
            readers.append(node)
        elif _name(node) not in _LOOKS:
            raise WeightsError(
                f"{symbolic.name} takes images of {_count(symbolic.channels)}, the weights another number, and they "
                f"cannot be adapted: the image goes into {symbolic.paths[node]} and not only into plain convolutions. "
                f"Give weights for {_count(symbolic.channels)}, or --weights none"
            )
    return readers


def _name(node: fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target))


def _merge(adapted: dict[str, Tensor], symbolic: Symbolic, node: fx.Node, feeding: Feeding) -> list[str]:
    """Put the weights of three channels into one; returns what is not exact about it.

    For a grey value g the file's network adds up W_c (g - m_c) / s_c over the channels c. Ours sees
    x = (g - m) / s, so g = s x + m, and the sum is x Σ W_c s / s_c plus the constant Σ W_c (m - m_c) / s_c.
    Where the padding is, x = 0 stands for the value m, and not for m_c as in the file's network.
    """
    name = f"{node.target}.weight"
    weight = adapted[name].double()  # (out, 3, height, width)
    means, stds = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (feeding.file.mean, feeding.file.std))
    mean, std = feeding.network.mean[0], feeding.network.std[0]
    adapted[name] = (weight * std / stds).sum(dim=1, keepdim=True).float()
    constant = (weight * (mean - means) / stds).sum(dim=(1, 2, 3))
    if all(abs(mean - other) < 1e-9 for other in feeding.file.mean):
        return []
    change = f"mean {mean:.4g} instead of {', '.join(f'{other:.4g}' for other in feeding.file.mean)}"
    if not _add(constant, adapted, symbolic, node):
        return [f"not exact: it sees {change}"]
    return [f"exact but at the image's border, where padding stands for {change}"] if _is_padded(symbolic, node) else []


def _add(constant: Tensor, adapted: dict[str, Tensor], symbolic: Symbolic, node: fx.Node) -> bool:
    """Add a constant per channel to a convolution's output, in its bias or the BatchNorm after it."""
    bias = f"{node.target}.bias"
    if bias in adapted:
        adapted[bias] = (adapted[bias].double() + constant).float()
        return True
    following = next(iter(node.users))
    running_mean = f"{following.target}.running_mean"
    alone = len(node.users) == 1 and isinstance(symbolic.module(following), nn.BatchNorm2d)
    if not alone or running_mean not in adapted:
        return False
    adapted[running_mean] = (adapted[running_mean].double() - constant).float()
    return True


def _is_padded(symbolic: Symbolic, node: fx.Node) -> bool:
    layer = symbolic.module(node)
    assert isinstance(layer, nn.Conv2d)
    before = symbolic.module(node.all_input_nodes[0])
    return layer.padding not in ((0, 0), "valid") or isinstance(before, nn.ZeroPad2d)
