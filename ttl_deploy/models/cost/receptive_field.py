"""How much of the image one position of a feature map can depend on, found in the graph without any code per network.

The theoretical receptive field of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional
Neural Networks", Distill 2019: the border of the image does not cut it off. One pass in execution order
keeps, for every position along the height and along the width of a map, the interval of pixels that it
depends on. A table says for each operation what becomes of the intervals. Where an operation is not in
the table, or its arguments are beyond what is followed here, the field is not known from there on.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from ttl_deploy.models.cost import receptive_rules as rules
from ttl_deploy.models.cost.receptive_positions import WHOLE, Axis, Field, NotFollowed, Positions
from ttl_deploy.models.cost.receptive_rules import Call
from ttl_deploy.models.graph.measured import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceptiveFields:
    """What every node that carries image content depends on.

    Attributes:
        sides: in pixels, of the square of the image that one position depends on: the image's own side
            where it is all of it, None where it is not known. Gates do not widen it.
        gates: the nodes that scale a map by a summary of the whole image: squeeze-and-excitation, and
            normalisations with statistics of the very image.
    """

    sides: Mapping[fx.Node, int | None]
    gates: frozenset[fx.Node]


def find_receptive_fields(measured: Measured) -> ReceptiveFields:
    """Find the receptive field of every node that carries image content."""
    fields: dict[fx.Node, Field | None] = {}
    gates: set[fx.Node] = set()
    for node in measured.symbolic.graph.nodes:
        if node not in measured.activations:
            continue
        call = Call(measured=measured, node=node, fields=fields)
        fields[node] = _follow(call)
        if _scales_by_summary(call):
            gates.add(node)
    sides = {node: _read_side(field, measured.image_size) for node, field in fields.items()}
    return ReceptiveFields(sides=sides, gates=frozenset(gates))


_Rule = Callable[[Call], Field]


def _follow(call: Call) -> Field | None:
    if call.node.op == "placeholder":
        pixels = np.arange(call.measured.image_size)
        axis = Axis(low=pixels, high=pixels, step=1)
        return Positions(rows=axis, columns=axis, dims=(-2, -1))
    rule = _find_rule(call)
    fields = [call.fields[source] for source in call.sources]
    if rule is None or None in fields:
        return None
    if all(field == WHOLE for field in fields):
        return WHOLE
    try:
        return rule(call)
    except NotFollowed:
        return None


def _read_side(field: Field | None, image_size: int) -> int | None:
    if field is None:
        return None
    if not isinstance(field, Positions):
        return image_size
    return max(int((axis.high - axis.low).max()) + 1 for axis in (field.rows, field.columns))


def _scales_by_summary(call: Call) -> bool:
    """Tell whether a node scales positions by a summary of the whole image."""
    if isinstance(call.layer, nn.GroupNorm | nn.InstanceNorm2d | nn.BatchNorm2d):
        return not getattr(call.layer, "track_running_stats", False)
    if type(call.layer) is nn.LayerNorm:
        return any(-dim <= len(call.layer.normalized_shape) for dim in rules.dims_of(call.fields[call.sources[0]]))
    return call.is_product and any(rules.is_gate(call, source) for source in call.sources)


def _find_rule(call: Call) -> _Rule | None:
    if call.node.op == "call_method":
        return _RULES.get(call.node.target)
    called: Any = call.node.target if call.layer is None else type(call.layer)
    name = f"{called.__module__}.{called.__qualname__}" if hasattr(called, "__qualname__") else ""
    return _RULES.get(called) or _RULES.get(name)


_SWIN = "torchvision.models.swin_transformer"
_MAXVIT = "torchvision.models.maxvit"
_TIMM = "timm.layers"
_WAYS: dict[_Rule, tuple[Any, ...]] = {
    rules.follow_empty_block: (nn.Sequential,),
    rules.follow_convolution: (nn.Conv2d,),
    rules.follow_pooling: (nn.MaxPool2d, nn.AvgPool2d),
    rules.follow_functional_pooling: (functional.max_pool2d, functional.avg_pool2d),
    rules.follow_adaptive_pooling: (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, functional.adaptive_avg_pool2d),
    rules.follow_reduction: (torch.mean, torch.sum, torch.amax, "mean", "sum", "amax"),
    rules.follow_linear: (nn.Linear, f"{_TIMM}.linear.Linear"),
    rules.follow_attention: (nn.MultiheadAttention, functional.scaled_dot_product_attention),
    rules.follow_shifted_windows: (f"{_SWIN}.ShiftedWindowAttention", f"{_SWIN}.ShiftedWindowAttentionV2"),
    rules.follow_patch_merging: (f"{_SWIN}._patch_merging_pad",),
    rules.follow_partition: (f"{_MAXVIT}.WindowPartition",),
    rules.follow_departition: (f"{_MAXVIT}.WindowDepartition",),
    rules.follow_partition_attention: (f"{_MAXVIT}.RelativePositionalMultiHeadAttention",),
    rules.follow_concatenation: (torch.cat,),
    rules.follow_chunking: (torch.chunk, torch.split, "chunk", "split"),
    rules.follow_unbinding: (torch.unbind, "unbind"),
    rules.follow_indexing: (operator.getitem,),
    rules.follow_transposition: (torch.transpose, "transpose", f"{_MAXVIT}.SwapAxes"),
    rules.follow_permutation: (torch.permute, "permute", "torchvision.ops.misc.Permute"),
    rules.follow_reshaping: (
        *(torch.flatten, torch.reshape, torch.unsqueeze, torch.squeeze, nn.Flatten),
        *("flatten", "reshape", "view", "unsqueeze", "squeeze"),
    ),
    rules.follow_pointwise: (
        *rules.PRODUCTS,
        *(operator.add, operator.iadd, operator.sub, operator.truediv, operator.neg, torch.add, "add", "add_"),
        *(nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d, "torchvision.models.convnext.LayerNorm2d"),
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
        *(nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh),
        *(functional.relu, functional.relu6, functional.gelu, functional.silu, functional.hardswish),
        *(functional.leaky_relu, torch.relu, torch.sigmoid, torch.tanh, "relu", "relu_", "sigmoid", "tanh"),
        *(nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, "contiguous", "clone", "detach", "float"),
        "torchvision.ops.stochastic_depth.StochasticDepth",
        *(f"{_TIMM}.norm.LayerNorm", f"{_TIMM}.norm.LayerNorm2d", f"{_TIMM}.norm_act.BatchNormAct2d"),
        *(f"{_TIMM}.activations.GELU", f"{_TIMM}.activations.Sigmoid", f"{_TIMM}.drop.DropPath"),
    ),
}
_RULES: dict[Any, _Rule] = {called: rule for rule, ways in _WAYS.items() for called in ways}
"""What becomes of positions: by class of layer (never a subclass), function, name of a tensor's method, or full name.

The full name stands for what torchvision and timm define themselves: neither is imported for it.
"""
