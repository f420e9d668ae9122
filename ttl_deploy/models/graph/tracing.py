"""From a backbone to its fx graph, with a readable path for every node."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from ttl_deploy.errors import UsageError
from ttl_deploy.models.backbones import build_meta_backbone

_DROPOUTS: Mapping[Any, type[nn.Module]] = {
    functional.dropout: nn.Dropout,
    functional.dropout2d: nn.Dropout2d,
    functional.alpha_dropout: nn.AlphaDropout,
}
_PROBABILITY_LAYERS = (nn.Softmax, nn.LogSoftmax, nn.Sigmoid, nn.LogSigmoid)
_TO_PROBABILITIES: frozenset[Any] = frozenset(
    {
        *(functional.softmax, functional.log_softmax, functional.sigmoid, functional.logsigmoid),
        *(torch.softmax, torch.log_softmax, torch.sigmoid, "softmax", "log_softmax", "sigmoid"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbolic:
    """A backbone's graph without any sizes. The graph is shared: copy from it, never change it.

    Attributes:
        model: the structure, on the meta device.
        paths: a unique readable path per node: `layer3.3.relu_2` is the third call of `layer3.3.relu`.
        outputs_of: the modules whose output a node is, innermost first; the network itself left out.
        channels: how many channels the network's images have, 1 or 3.
        added: layers that stand for functional calls; a built network needs them before it runs the graph.
    """

    name: str
    model: nn.Module
    graph: fx.Graph
    paths: Mapping[fx.Node, str]
    outputs_of: Mapping[fx.Node, tuple[str, ...]]
    channels: int
    added: Mapping[str, nn.Module]

    def module(self, node: fx.Node) -> nn.Module | None:
        """Return the layer that a node calls, or None where it calls a function."""
        return self.model.get_submodule(str(node.target)) if node.op == "call_module" else None


@lru_cache(maxsize=4)
def trace_backbone(name: str, image_size: int) -> Symbolic:
    """Trace a backbone without weights; raises `UsageError` where fx cannot, and what `find_backbone` raises."""
    model = _build(name, image_size)
    tracer, graph, added = _trace_for_both_modes(name, model)
    _end_in_logits(name, graph, model)
    return Symbolic(
        name=name,
        model=model,
        graph=graph,
        paths=tracer.paths,
        outputs_of={node: tuple(modules) for node, modules in tracer.outputs_of.items()},
        channels=_count_channels(name, graph, model),
        added=added,
    )


def _build(name: str, image_size: int) -> nn.Module:
    try:
        return build_meta_backbone(name, image_size=image_size)
    except (ValueError, AssertionError, RuntimeError) as error:  # patches that do not divide the image
        raise UsageError(f"{name} cannot be built for images of {image_size} x {image_size} pixels: {error}") from error


def _trace_for_both_modes(name: str, model: nn.Module) -> "tuple[_PathTracer, fx.Graph, dict[str, nn.Module]]":
    """Trace so that the graph is that of training and of evaluation.

    fx keeps for ever what a forward decides by `self.training` when it is traced. Where the two modes
    differ in the switch of a functional dropout, that becomes a layer; a module that differs in
    something else, or cannot be traced, is kept whole, as if it were a layer.
    """
    whole: set[str] = set()
    while True:
        evaluating, training = _PathTracer(whole), _PathTracer(whole)
        graph = _trace(name, evaluating, model.eval())
        other = _trace(name, training, model.train()) if graph else None
        model.eval()
        if graph is None or other is None:
            whole |= evaluating.failed | training.failed
            continue
        differing = _find_differing(graph, other)
        others = {evaluating.inside.get(node, "") for node in differing if node.target not in _DROPOUTS}
        if not others:
            return evaluating, graph, _insert_dropouts(evaluating, graph, model, differing)
        if "" in others:
            raise UsageError(f"{name} cannot be cut: in training its forward does something else than in evaluation")
        whole |= others


def _trace(name: str, tracer: "_PathTracer", model: nn.Module) -> fx.Graph | None:
    """Trace a network, or return None where a module inside it, now in `tracer.failed`, cannot be traced."""
    try:
        return tracer.trace(model)
    except Exception as error:  # the user's own forward runs here, and may raise anything
        if tracer.failed:
            return None
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"{name} cannot be cut: its forward cannot be traced by torch.fx ({type(error).__name__}: {reason}). "
            "It must not branch on values or sizes of tensors, and takes one tensor (N, C, H, W)"
        ) from error


def _find_differing(graph: fx.Graph, other: fx.Graph) -> list[fx.Node]:
    """Return the nodes that differ in another trace of the same network; the first alone where the rest is shifted."""
    differing = []
    for node, twin in zip(graph.nodes, other.nodes, strict=False):
        if (node.op, node.target, str(node.all_input_nodes)) != (twin.op, twin.target, str(twin.all_input_nodes)):
            return [node]
        if (str(node.args), str(node.kwargs)) != (str(twin.args), str(twin.kwargs)):
            differing.append(node)
    return differing if len(graph.nodes) == len(other.nodes) else [graph.output_node()]


def _insert_dropouts(
    tracer: "_PathTracer", graph: fx.Graph, model: nn.Module, nodes: list[fx.Node]
) -> dict[str, nn.Module]:
    """Replace functional dropouts by layers, which switch with the mode; returns the layers by their new paths."""
    added: dict[str, nn.Module] = {}
    for node in nodes:
        images = node.all_input_nodes[0]
        rate: Any = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
        path = f"{tracer.inside[node]}.functional_dropout_{len(added)}".lstrip(".")
        added[path] = _DROPOUTS[node.target](rate)
        model.set_submodule(path, added[path])
        with graph.inserting_after(node):
            layer = graph.call_module(path, (images,))
        node.replace_all_uses_with(layer)
        tracer.paths[layer] = path
        tracer.outputs_of[layer] = tracer.outputs_of.get(node, [])
        graph.erase_node(node)
    return added


def _end_in_logits(name: str, graph: fx.Graph, model: nn.Module) -> None:
    """Make the graph end before a final softmax or sigmoid: losses take logits, and ours has a softmax of its own."""
    output = graph.output_node()
    result = output.args[0]
    if not isinstance(result, fx.Node):
        raise UsageError(f"{name} returns a {type(result).__name__}: it must return one tensor of logits (N, classes)")
    while _turns_into_probabilities(result, model):
        last, result = result, result.all_input_nodes[0]
        output.args = (result,)
        graph.erase_node(last)


def _turns_into_probabilities(node: fx.Node, model: nn.Module) -> bool:
    layer = model.get_submodule(str(node.target)) if node.op == "call_module" else None
    return isinstance(layer, _PROBABILITY_LAYERS) or node.target in _TO_PROBABILITIES


def _count_channels(name: str, graph: fx.Graph, model: nn.Module) -> int:
    for node in graph.nodes:
        layer = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.Conv2d):
            if layer.in_channels not in (1, 3):
                raise UsageError(
                    f"{name} takes images of {layer.in_channels} channels: 1 (grey) or 3 (RGB) are allowed"
                )
            return layer.in_channels
    return 3


class _PathTracer(fx.Tracer):
    """Trace down to torch's own layers and to any without parts, and note where each node comes from.

    Layers without parts stay whole even where they are not torch's own: what they do depends on the
    mode (StochasticDepth) or on shapes (LayerNorm2d), or is of no interest from within.
    """

    def __init__(self, whole: set[str]) -> None:
        super().__init__()
        self._whole = frozenset(whole)
        self._inside = [""]
        self._calls: Counter[str] = Counter()
        self.failed: set[str] = set()
        self.paths: dict[fx.Node, str] = {}
        self.inside: dict[fx.Node, str] = {}
        self.outputs_of: dict[fx.Node, list[str]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        has_parts = next(m.children(), None) is not None
        return module_qualified_name in self._whole or not has_parts or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        path = self.path_of_module(m)
        self._inside.append(path)
        try:
            output = super().call_module(m, forward, args, kwargs)
        except Exception:  # the user's own forward runs here; noted, and raised again
            self.failed = self.failed or {path}  # the innermost comes first
            raise
        finally:
            self._inside.pop()
        if isinstance(output, fx.Proxy):
            self.outputs_of.setdefault(output.node, []).append(path)
        return output

    def create_node(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: Any = None, type_expr: Any = None
    ) -> Any:
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        self.paths[node] = self._unique_path(node)
        self.inside[node] = self._inside[-1]
        return node

    def _unique_path(self, node: fx.Node) -> str:
        if node.op == "call_module":
            path = str(node.target)
        else:
            operator = getattr(node.target, "__name__", None) or str(node.target).rpartition(".")[2]
            path = ".".join(part for part in (self._inside[-1], operator) if part)
        self._calls[path] += 1
        earlier = self._calls[path] - 1
        return f"{path}_{earlier}" if earlier else path
