"""What operations do to positions: a rule for each kind, from a node of the graph to the field of its output.

A rule is called only where the fields of all inputs are known and not all of them are the whole image.
"""

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from ttl_deploy.models.cost.receptive_positions import WHOLE, Axis, Field, NotFollowed, Positions
from ttl_deploy.models.graph.measured import Measured

PRODUCTS = frozenset({operator.mul, operator.imul, torch.mul, "mul", "mul_"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A node, with the fields of what it is computed from."""

    measured: Measured
    node: fx.Node
    fields: Mapping[fx.Node, Field | None]

    @property
    def layer(self) -> Any:
        return self.measured.symbolic.module(self.node)

    @property
    def is_product(self) -> bool:
        return self.node.op != "call_module" and self.node.target in PRODUCTS

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape_of(self.node)

    @property
    def sources(self) -> list[fx.Node]:
        return [source for source in self.node.all_input_nodes if source in self.fields]

    @property
    def source_shape(self) -> tuple[int, ...]:
        return self._shape_of(self.sources[0])

    @property
    def only(self) -> Positions:
        """Return the field of the only input that carries image content."""
        field, *others = (self.fields[source] for source in self.sources)
        if others or not isinstance(field, Positions):
            raise NotFollowed
        return field

    def _shape_of(self, node: fx.Node) -> tuple[int, ...]:
        if node not in self.measured.shapes:  # a tuple of tensors
            raise NotFollowed
        return self.measured.shapes[node]

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return a constant argument; raises `NotFollowed` for one that is computed."""
        given = self.node.args[position] if len(self.node.args) > position else self.node.kwargs.get(name, default)
        if isinstance(given, fx.Node):
            raise NotFollowed
        return given

    def dim(self, given: Any) -> int:
        """Return a dimension of the input, counted from the end; raises `NotFollowed` for one that is computed."""
        if not isinstance(given, int):
            raise NotFollowed
        return given - len(self.source_shape) if given >= 0 else given


def is_gate(call: Call, node: fx.Node) -> bool:
    """Tell whether a value that depends on the whole image has one entry where its partners have a map."""
    shape = call.measured.shapes[node]
    dims = [dim for source in call.sources for dim in dims_of(call.fields[source])]
    return call.fields[node] == WHOLE and bool(dims) and all(-dim > len(shape) or shape[dim] == 1 for dim in dims)


def dims_of(field: Field | None) -> tuple[int, ...]:
    """Return the dimensions that positions lie in; empty where all of them see the same, or it is not known."""
    return field.dims if isinstance(field, Positions) else ()


def follow_pointwise(call: Call) -> Field:
    """Follow what computes each position from the same position of its inputs; gates do not count."""
    return _unite(call.fields[node] for node in call.sources if not (call.is_product and is_gate(call, node)))


def follow_empty_block(call: Call) -> Field:
    """Follow a `Sequential` without layers, as many a residual network has for its shortcut."""
    if len(call.layer):
        raise NotFollowed
    return call.only


def _unite(fields: Iterator[Field | None]) -> Field:
    united, *others = fields
    for field in others:
        if not isinstance(united, Positions) or not isinstance(field, Positions):
            return WHOLE
        if (united.dims, united.form, united.window) != (field.dims, field.form, field.window):
            raise NotFollowed
        united = replace(united, rows=united.rows.unite(field.rows), columns=united.columns.unite(field.columns))
    assert united is not None
    return united


def _slide(
    call: Call, *, kernel: Any, stride: Any = (1, 1), padding: Any = (0, 0), dilation: Any = (1, 1), last: int = -1
) -> Positions:
    """Follow a window that slides over a map whose width is dimension `last`."""
    field = call.only
    if field.form != "map" or field.dims != (last - 1, last):
        raise NotFollowed
    windows = zip(_pair(kernel), _pair(stride), _pair(padding), _pair(dilation), field.dims, strict=True)
    rows, columns = (
        axis.slide(kernel=size, stride=step, padding=edge, dilation=spread, length=call.shape[dim])
        for axis, (size, step, edge, spread, dim) in zip((field.rows, field.columns), windows, strict=True)
    )
    return replace(field, rows=rows, columns=columns)


def _pair(given: Any) -> tuple[int, int]:
    height, width = (*given, *given)[:2] if isinstance(given, tuple | list) else (given, given)
    if not isinstance(height, int) or not isinstance(width, int):
        raise NotFollowed
    return height, width


def follow_convolution(call: Call) -> Field:
    """Follow a convolution of a map."""
    layer: nn.Conv2d = call.layer
    if layer.padding_mode == "circular":  # the far side of the image comes in
        raise NotFollowed
    padding: Any = layer.padding
    if isinstance(padding, str):
        spread = zip(layer.kernel_size, layer.dilation, strict=True)
        padding = tuple((size - 1) * step // 2 if padding == "same" else 0 for size, step in spread)
    return _slide(call, kernel=layer.kernel_size, stride=layer.stride, padding=padding, dilation=layer.dilation)


def follow_pooling(call: Call) -> Field:
    """Follow a pooling layer; the shape of its output says how `ceil_mode` rounds."""
    layer: Any = call.layer
    dilation = getattr(layer, "dilation", 1)
    return _slide(call, kernel=layer.kernel_size, stride=layer.stride, padding=layer.padding, dilation=dilation)


def follow_functional_pooling(call: Call) -> Field:
    """Follow a call of `max_pool2d` or `avg_pool2d`."""
    kernel = call.argument(1, "kernel_size")
    dilation = call.argument(4, "dilation", 1) if call.node.target is functional.max_pool2d else 1
    stride = call.argument(2, "stride") or kernel
    return _slide(call, kernel=kernel, stride=stride, padding=call.argument(3, "padding", 0), dilation=dilation)


def follow_adaptive_pooling(call: Call) -> Field:
    """Follow a pooling to a fixed size of map, by default 1 × 1."""
    field, (height, width) = call.only, call.shape[-2:]
    if field.dims != (-2, -1):
        raise NotFollowed
    if height == width == 1:
        return WHOLE
    is_even = len(field.rows.low) % height == len(field.columns.low) % width == 0
    rows, columns = field.rows.pool(height), field.columns.pool(width)
    return replace(field, rows=rows, columns=columns, form=field.form if is_even else "scattered")


def follow_patch_merging(call: Call) -> Field:
    """Follow Swin's merging of 2 × 2 positions in `(N, H, W, C)`; an odd last one is padded."""
    return _slide(call, kernel=2, stride=2, last=-2)


def follow_reduction(call: Call) -> Field:
    """Follow a mean, sum or the like over dimensions: over all positions, or over none."""
    given: Any = call.argument(1, "dim", call.node.kwargs.get("axis"))
    given = given if isinstance(given, tuple | list) else () if given is None else (given,)
    field, reduced = call.only, {call.dim(dim) for dim in given}
    if not reduced or reduced >= set(field.dims):
        return WHOLE
    if reduced & set(field.dims):
        raise NotFollowed
    lost = set() if call.argument(2, "keepdim", False) else reduced
    return replace(field, dims=tuple(dim + sum(other > dim for other in lost) for dim in field.dims))


def follow_unbinding(call: Call) -> Field:
    """Follow a split into a tuple along one dimension, which is lost: over channels or the like."""
    field, lost = call.only, call.dim(call.argument(1, "dim", 0))
    if lost in field.dims:
        raise NotFollowed
    return replace(field, dims=tuple(dim + (lost > dim) for dim in field.dims))


def follow_chunking(call: Call) -> Field:
    """Follow a split into a tuple of parts: over channels or the like."""
    if call.dim(call.argument(2, "dim", 0)) in call.only.dims:
        raise NotFollowed
    return call.only


def follow_concatenation(call: Call) -> Field:
    """Follow the joining of tensors, over channels or the like."""
    joined = _unite(call.fields[source] for source in call.sources)
    is_along_positions = call.dim(call.argument(1, "dim", 0)) in dims_of(joined)
    # A class token, which carries nothing of the image, may stand beside the others.
    if is_along_positions and (len(call.sources) > 1 or dims_of(joined)[1:]):
        raise NotFollowed
    return joined


def follow_indexing(call: Call) -> Field:
    """Follow `x[:, 0]`, strided slices such as `x[..., 0::2, :]`, and taking one of a tuple's tensors."""
    if call.sources[0] not in call.measured.shapes:
        return call.only
    field, index = call.only, call.argument(1, "index")
    index = index if isinstance(index, tuple) else (index,)
    slices = _spread_index(index, len(call.source_shape))
    if any(not isinstance(slices[dim], slice) for dim in field.dims):
        raise NotFollowed
    lost = [dim for dim, item in slices.items() if isinstance(item, int)]
    dims = tuple(dim + sum(other > dim for other in lost) for dim in field.dims)
    if all(slices[dim] == slice(None) for dim in field.dims):
        return replace(field, dims=dims)
    if lost or field.form != "map":
        raise NotFollowed
    rows, columns = (slices[dim].indices(call.source_shape[dim]) for dim in field.dims)
    return _slide(call, kernel=1, stride=(rows[2], columns[2]), padding=(-rows[0], -columns[0]), last=field.dims[1])


def _spread_index(index: Sequence[Any], rank: int) -> dict[int, Any]:
    """Return what an index takes of each dimension, these counted from the end."""
    if index.count(...) > 1 or not all(isinstance(item, int | slice) or item is ... for item in index):
        raise NotFollowed
    bounds = [(part.start, part.stop, part.step) for part in index if isinstance(part, slice)]
    if any(isinstance(bound, fx.Node) for part in bounds for bound in part):
        raise NotFollowed
    before = list(index[: index.index(...)] if ... in index else index)
    after = list(index[index.index(...) + 1 :] if ... in index else ())
    spread = [*before, *[slice(None)] * (rank - len(before) - len(after)), *after]
    return {position - rank: item for position, item in enumerate(spread)}


def follow_permutation(call: Call) -> Field:
    """Follow a new order of all dimensions."""
    given: Any = call.layer.dims if call.layer is not None else call.node.args[1:]
    order = given[0] if given and isinstance(given[0], tuple | list) else given
    return _reorder(call, [call.dim(dim) for dim in order])


def follow_transposition(call: Call) -> Field:
    """Follow two dimensions that change places."""
    layer = call.layer
    first, second = _pair((call.argument(1, "dim0"), call.argument(2, "dim1")) if layer is None else (layer.a, layer.b))
    order = list(range(-len(call.source_shape), 0))
    order[first], order[second] = call.dim(second), call.dim(first)
    return _reorder(call, order)


def _reorder(call: Call, order: list[int]) -> Field:
    if len(order) != len(call.source_shape):
        raise NotFollowed
    return replace(call.only, dims=tuple(order.index(dim) - len(order) for dim in call.only.dims))


def follow_reshaping(call: Call) -> Field:
    """Follow a view that keeps the dimensions of positions, merges them into tokens, or flattens everything."""
    field, shape = call.only, call.source_shape
    kept = [_find_dim(call, size=shape[dim], last=dim) for dim in field.dims]
    dims = tuple(dim for dim in kept if dim is not None)
    if len(set(dims)) == len(field.dims):
        return replace(field, dims=dims)
    if max(call.shape) == prod(call.shape):
        return WHOLE  # one vector of all positions
    if field.form in ("map", "scattered") and field.dims[0] + 1 == field.dims[1]:
        tokens = _find_dim(call, size=shape[field.dims[0]] * shape[field.dims[1]], last=field.dims[1])
        if tokens is not None:
            return replace(field, dims=(tokens,), form="tokens")
    raise NotFollowed


def _find_dim(call: Call, *, size: int, last: int) -> int | None:
    """Return the output's dimension of this size with as many values behind it as behind the input's `last`.

    Of several (where sizes are 1) it is the one that stands where `last` stood.
    """
    after = _size_after(call.source_shape, last)
    dims = range(-len(call.shape), 0)
    fitting = [dim for dim in dims if call.shape[dim] == size and _size_after(call.shape, dim) == after]
    return min(fitting, key=lambda dim: abs(dim - last), default=None)


def _size_after(shape: Sequence[int], dim: int) -> int:
    return prod(shape[dim + 1 :]) if dim < -1 else 1


def follow_linear(call: Call) -> Field:
    """Follow a linear layer, which mixes what lies in the last dimension: channels, or all tokens."""
    if -1 not in call.only.dims:
        return call.only
    if call.only.form != "tokens":
        raise NotFollowed
    return WHOLE


def follow_attention(call: Call) -> Field:
    """Follow attention of all tokens to all tokens."""
    dim = -3 if isinstance(call.layer, nn.MultiheadAttention) and not call.layer.batch_first else -2
    if any(dims_of(call.fields[source]) not in ((), (dim,)) for source in call.sources):
        raise NotFollowed
    return WHOLE


def follow_shifted_windows(call: Call) -> Field:
    """Follow Swin's attention within windows: what a shift carries around the border is masked, so not seen."""
    field = call.only
    if field.form != "map" or field.dims != (-3, -2):
        raise NotFollowed
    sides = zip((field.rows, field.columns), call.layer.window_size, call.layer.shift_size, strict=True)
    rows, columns = (_unite_shifted(axis, window, shift) for axis, window, shift in sides)
    return replace(field, rows=rows, columns=columns)


def _unite_shifted(axis: Axis, window: int, shift: int) -> Axis:
    fits_one_window = len(axis.low) <= window  # then torchvision does not shift
    return axis.unite_within((np.arange(len(axis.low)) - (0 if fits_one_window else shift)) // window)


def follow_partition(call: Call) -> Field:
    """Follow MaxViT's division of `(N, C, H, W)` into `(N, windows, places within, C)`."""
    if call.only.form != "map" or call.only.dims != (-2, -1):
        raise NotFollowed
    window, _ = _pair(call.argument(1, "p"))
    return replace(call.only, dims=(-3, -2), form="windows", window=window)


def follow_departition(call: Call) -> Field:
    """Follow MaxViT's way back to `(N, C, H, W)`."""
    if call.only.dims != (-3, -2) or call.only.window != call.argument(1, "p"):
        raise NotFollowed
    return replace(call.only, dims=(-2, -1), form="map", window=0)


def follow_partition_attention(call: Call) -> Field:
    """Follow MaxViT's attention: within a window, or, with the dimensions swapped, to one place of every window."""
    field = call.only
    if field.form != "windows" or -2 not in field.dims:
        raise NotFollowed
    number = np.mod if field.dims[0] == -2 else np.floor_divide
    rows, columns = (
        axis.unite_within(number(np.arange(len(axis.low)), field.window)) for axis in (field.rows, field.columns)
    )
    return replace(field, rows=rows, columns=columns)
