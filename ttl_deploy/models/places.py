"""Where a backbone can be cut, found in its fx graph without any code per network.

A cut is a place where everything computed later depends on one tensor, or on the parts of one
concatenation. Of neighbours with no convolution between them one stays: see `_choose`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby, takewhile
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from ttl_deploy.errors import UsageError
from ttl_deploy.models.cost.activation_memory import measure_peaks
from ttl_deploy.models.cost.receptive_field import find_receptive_fields
from ttl_deploy.models.cost.sizes import count_bytes, count_params
from ttl_deploy.models.graph.layouts import find_layout, read_features
from ttl_deploy.models.graph.measured import Measured, collect_ancestors, measure_backbone
from ttl_deploy.models.graph.tracing import Symbolic
from ttl_deploy.records.models import FULL, Layout

_CONVOLUTIONS = (nn.Conv2d, nn.Linear)
_NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)
_ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Softmax),
)
_ACTIVATION_FUNCTIONS = frozenset(
    {
        functional.relu,
        functional.relu6,
        functional.gelu,
        functional.silu,
        functional.hardswish,
        torch.relu,
        torch.sigmoid,
        torch.tanh,
    }
)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)
_GLOBAL_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
_DROPOUTS = (nn.Dropout, nn.Dropout2d)

_Chosen = tuple[fx.Node, tuple[fx.Node, ...], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A cut before its head is known: the node whose value the trunk returns, and the trunk's cost.

    Attributes:
        measured: the graph that `node` and `parts` belong to.
        node: for `full`, the input of the classification layer.
        parts: the tensors of the concatenation `node`, or `node` alone.
        targets: the layers and the single parameters of the trunk.
        inside_block: whether the cut lies within a block, as between the expansion and the
            projection of an inverted residual, and not at its end; a network's encoder is a block too.
        ends_block: whether it is the output of a block, be that within a larger one or not.
    """

    name: str
    measured: Measured
    node: fx.Node
    parts: tuple[fx.Node, ...]
    targets: frozenset[str]
    features: tuple[int, int, int]
    layout: Layout
    normalised: bool
    inside_block: bool
    ends_block: bool
    params: int
    weights_bytes: int
    peak_bytes: int
    macs: int
    layers: int
    receptive_field: int | None
    global_context: bool


@lru_cache(maxsize=8)
def find_places(backbone: str, image_size: int) -> tuple[Place, ...]:
    """Find a backbone's cuts, shallow to deep, and what each trunk costs for images of this size."""
    measured = measure_backbone(backbone, image_size)
    symbolic = measured.symbolic
    classifier = find_classifier(symbolic)
    bottlenecks = _find_bottlenecks(measured)
    features = classifier.all_input_nodes[0]
    if features not in bottlenecks:
        raise UsageError(
            f"{backbone} cannot be cut: what it returns does not depend on the input of its last layer, "
            f"{classifier.target}, alone, so that layer is no classifier"
        )
    nodes = _choose_nodes(measured, classifier, bottlenecks)
    chosen = _name_apart(symbolic, [(node, parts, _name(measured, node, parts)) for node, parts in nodes])
    chosen.append((features, (features,), FULL))
    return tuple(_measure_places(measured, chosen))


def find_classifier(symbolic: Symbolic) -> fx.Node:
    """Return the node of the classification layer: the last linear layer or convolution; raises `UsageError`."""
    layers = [node for node in symbolic.graph.nodes if isinstance(symbolic.module(node), _CONVOLUTIONS)]
    if not layers:
        raise UsageError(f"{symbolic.name} has no linear layer or convolution to classify with")
    last: fx.Node = layers[-1]
    return last


def _choose_nodes(
    measured: Measured, classifier: fx.Node, bottlenecks: Mapping[fx.Node, tuple[fx.Node, ...]]
) -> list[tuple[fx.Node, tuple[fx.Node, ...]]]:
    symbolic = measured.symbolic
    multiplications = 0
    numbered: list[tuple[int, fx.Node]] = []  # with how many convolutions and the like ran before
    for node in symbolic.graph.nodes:
        multiplications += node in measured.macs
        if node is classifier or (node in bottlenecks and _ends_features(measured, node)):
            break
        is_bare_dropout = isinstance(symbolic.module(node), _DROPOUTS) and not _ends_block(symbolic, node)
        if node not in bottlenecks or not multiplications or is_bare_dropout:
            continue
        if find_layout(measured, node) is not None:
            numbered.append((multiplications, node))
    runs = ([node for _, node in run] for _, run in groupby(numbered, key=lambda item: item[0]))
    return [(node, bottlenecks[node]) for node in (_choose(symbolic, run) for run in runs)]


def _find_bottlenecks(measured: Measured) -> dict[fx.Node, tuple[fx.Node, ...]]:
    """Find the nodes on which, alone or through their parts, everything computed later depends.

    One pass in execution order, with the set of values that are still needed later ("live").
    A concatenation that grows layer by layer keeps its parts even where the joined tensor is all
    that is left: the end of a dense block is also the state after its last layer.
    """
    order = {node: position for position, node in enumerate(measured.symbolic.graph.nodes)}
    last_use = {node: max((order[user] for user in node.users), default=-1) for node in order}
    found: dict[fx.Node, tuple[fx.Node, ...]] = {}
    states: set[tuple[fx.Node, ...]] = set()
    live: set[fx.Node] = set()
    for node, position in order.items():
        parts = _concatenated(node)
        joins_all = len(parts) > 1 and live == set(parts)
        live = {earlier for earlier in live if last_use[earlier] > position}
        if node in measured.activations and last_use[node] > position:
            live.add(node)
        if joins_all and (parts[:-1] in states or live != {node}):
            found[node] = parts
        elif live == {node}:
            found[node] = (node,)
        if node in found:
            states.add(found[node])
    return found


def _concatenated(node: fx.Node) -> tuple[fx.Node, ...]:
    """Return what a node joins along the channels, in the order of its arguments; empty for other nodes."""
    if node.target is not torch.cat:
        return ()
    dim: Any = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    return tuple(node.all_input_nodes) if dim in (1, -3) else ()


def _ends_features(measured: Measured, node: fx.Node) -> bool:
    """Tell whether the classifier part begins here: with a global pooling, or a flat vector per image."""
    is_flat = node in measured.shapes and len(measured.shapes[node]) <= 2
    return is_flat or isinstance(measured.symbolic.module(node), _GLOBAL_POOLS)


def _choose(symbolic: Symbolic, run: list[fx.Node]) -> fx.Node:
    """Choose one of neighbouring nodes with no convolution between them: the last that ends something.

    Ends are the outputs of whole blocks (a residual block after its add and ReLU, a dense block)
    and poolings. What follows the last of them (DenseNet's `norm5`, the BatchNorm and ReLU inside
    its transitions, ConvNeXt's LayerNorm before a downsampling) belongs to the next convolution.
    Without any end the last node is taken: the activation after a plain convolution.
    """
    ends = [node for node in run if isinstance(symbolic.module(node), _POOLS) or _ends_block(symbolic, node)]
    return (ends or run)[-1]


def _ends_block(symbolic: Symbolic, node: fx.Node) -> bool:
    return any(name != node.target for name in _known_modules(symbolic, node))


def _known_modules(symbolic: Symbolic, node: fx.Node) -> list[str]:
    """Return the modules whose output a node is, innermost first, without plain containers."""
    return [name for name in symbolic.outputs_of.get(node, ()) if not _is_plain_container(symbolic, name)]


def _is_plain_container(symbolic: Symbolic, module: str) -> bool:
    return type(symbolic.model.get_submodule(module)) in (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def _is_inside_block(symbolic: Symbolic, node: fx.Node) -> bool:
    """Tell whether a node lies within a block that is not finished there."""
    *parents, _ = accumulate(symbolic.paths[node].split("."), "{}.{}".format)
    finished = symbolic.outputs_of.get(node, ())
    return any(name not in finished and not _is_plain_container(symbolic, name) for name in parents)


def _name(measured: Measured, node: fx.Node, parts: tuple[fx.Node, ...]) -> str:
    """Name a cut after the outermost block whose output it is; inside a dense block, after its newest part's.

    Behind functional layers, and in the middle of a block (a transformer's after its attention was
    added), it is what multiplied last: the part of the block, or a layer.
    """
    symbolic = measured.symbolic
    order = {known: position for position, known in enumerate(symbolic.graph.nodes)}
    for candidate in (node, max(parts, key=order.__getitem__)):
        known = _known_modules(symbolic, candidate)
        if known:
            return known[-1]
    inside = symbolic.paths[node].rpartition(".")[0]
    before = list(_multiplied_before(measured, node))
    within = [path.removeprefix(f"{inside}.") for path in before if path.startswith(f"{inside}.")]
    return f"{inside}.{within[-1].partition('.')[0]}" if within else before[-1]


def _name_apart(symbolic: Symbolic, chosen: list[_Chosen]) -> list[_Chosen]:
    """Give a cut whose name another has already the path of its node instead, which no other has."""
    names = Counter(name for _, _, name in chosen)
    return [(node, parts, name if names[name] == 1 else symbolic.paths[node]) for node, parts, name in chosen]


def _multiplied_before(measured: Measured, node: fx.Node) -> Iterator[str]:
    """Yield the paths of what multiplied before a node, in execution order."""
    for earlier in takewhile(lambda other: other is not node, measured.symbolic.graph.nodes):
        if earlier in measured.macs:
            yield measured.symbolic.paths[earlier]


def _find_normalised(measured: Measured) -> set[fx.Node]:
    """Find the values that need no BatchNorm and ReLU before they are pooled.

    Those are outputs of normalisations and activations, and whatever pooling, adding, scaling or
    joining makes of such values alone. So a linear bottleneck (MobileNetV2, EfficientNet), which
    ends in a BatchNorm on purpose without activation, counts as normalised: a ReLU would lose
    what it was built to keep. The bare convolutions that DenseNet joins and pools do not, nor does
    ConvNeXt's residual sum.
    """
    symbolic = measured.symbolic
    found: set[fx.Node] = set()
    for node in symbolic.graph.nodes:
        layer = symbolic.module(node)
        inputs = [value for value in node.all_input_nodes if value.op != "get_attr"]
        if node in measured.macs:
            continue
        is_bounded = isinstance(layer, _NORMS + _ACTIVATIONS) or node.target in _ACTIVATION_FUNCTIONS
        if is_bounded or all(value in found for value in inputs):
            found.add(node)
    return found


def _measure_places(measured: Measured, chosen: list[_Chosen]) -> Iterator[Place]:
    symbolic = measured.symbolic
    normalised = _find_normalised(measured)
    before: set[fx.Node] = set()
    targets: set[str] = set()
    params = weights_bytes = macs = layers = 0
    peaks = measure_peaks(measured, [node for node, _, _ in chosen])
    receptive = find_receptive_fields(measured)
    for (node, parts, name), peak_bytes in zip(chosen, peaks, strict=True):
        new = collect_ancestors(node, known=before)
        before |= new
        added = {str(item.target) for item in new if item.op in ("call_module", "get_attr")} - targets
        targets |= added
        held = [_find_target(symbolic.model, target) for target in added]
        params += sum(count_params(layer) for layer in held)
        weights_bytes += sum(count_bytes(layer) for layer in held)
        macs += sum(measured.macs.get(item, 0) for item in new)
        layers += sum(item in measured.macs for item in new)
        layout = find_layout(measured, node) or "map"
        yield Place(
            name=name,
            measured=measured,
            node=node,
            parts=parts,
            targets=frozenset(targets),
            features=read_features(measured.shapes[node], layout),
            layout=layout,
            normalised=name == FULL or node in normalised,
            inside_block=_is_inside_block(symbolic, node),
            ends_block=_ends_block(symbolic, node),
            params=params,
            weights_bytes=weights_bytes,
            peak_bytes=peak_bytes,
            macs=macs,
            layers=layers,
            receptive_field=receptive.sides[node],
            global_context=not receptive.gates.isdisjoint(before),
        )


def _find_target(model: nn.Module, target: str) -> nn.Module | torch.Tensor:
    """Return a layer, or a single parameter or buffer that a block uses directly."""
    parent, _, last = target.rpartition(".")
    found: nn.Module | torch.Tensor = getattr(model.get_submodule(parent), last)
    return found
