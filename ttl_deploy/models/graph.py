"""The fx graph of a backbone, and what one pass over it measures: shapes, parameters, MACs."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import fx, nn

from ttl_deploy.errors import UsageError
from ttl_deploy.models.backbones import build_meta_backbone
from ttl_deploy.models.torchvision_border import load_torchvision

LARGEST_IMAGE_SIZE = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Symbolic:
    """A backbone's graph without any sizes. The graph is shared: copy from it, never change it.

    Attributes:
        model: the structure, on the meta device.
        paths: a unique readable path per node: `layer3.3.relu_2` is the third call of `layer3.3.relu`.
        outputs_of: the modules whose output a node is, innermost first; the network itself left out.
    """

    model: nn.Module
    graph: fx.Graph
    paths: Mapping[fx.Node, str]
    outputs_of: Mapping[fx.Node, tuple[str, ...]]

    def module(self, node: fx.Node) -> nn.Module | None:
        """Return the layer that a node calls, or None where it calls a function."""
        return self.model.get_submodule(str(node.target)) if node.op == "call_module" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A backbone's graph with the sizes it has for one image of `image_size` pixels.

    `shapes` holds the nodes whose value is a tensor; `macs` the convolutions and linear layers;
    `activations` the nodes that carry image content: tensors and their tuples (`chunk`), no sizes,
    no parameters.
    """

    symbolic: Symbolic
    image_size: int
    shapes: Mapping[fx.Node, tuple[int, ...]]
    macs: Mapping[fx.Node, int]
    activations: frozenset[fx.Node]


@lru_cache(maxsize=4)
def trace_backbone(name: str) -> Symbolic:
    """Trace a backbone without weights; raises `UnknownNameError`."""
    model = build_meta_backbone(name)
    tracer = _PathTracer()
    graph = tracer.trace(model)
    outputs_of = {node: tuple(modules) for node, modules in tracer.outputs_of.items()}
    return Symbolic(model=model, graph=graph, paths=tracer.paths, outputs_of=outputs_of)


@lru_cache(maxsize=8)
def measure_backbone(name: str, image_size: int) -> Measured:
    """Run a backbone's graph once on the meta device; raises `UsageError` where the image is too small."""
    symbolic = trace_backbone(name)
    try:
        run = _run(symbolic, image_size)
    except RuntimeError as error:
        smallest = _smallest_image_size(symbolic, image_size)
        raise UsageError(
            f"{name} cannot take images of {image_size} x {image_size} pixels: "
            f"its deep layers would have nothing left; the smallest is --image-size {smallest}"
        ) from error
    return Measured(
        symbolic=symbolic,
        image_size=image_size,
        shapes=run.shapes,
        macs=run.macs,
        activations=frozenset(run.activations),
    )


def layer_macs(layer: nn.Module | None, output: tuple[int, ...]) -> int:
    """Return the multiply-accumulates of a convolution or linear layer for its output shape, batch included."""
    if isinstance(layer, nn.Conv2d):
        return prod(output) * layer.in_channels // layer.groups * prod(layer.kernel_size)
    if isinstance(layer, nn.Linear):
        return prod(output) * layer.in_features
    return 0


def collect_ancestors(node: fx.Node, known: Iterable[fx.Node] = ()) -> set[fx.Node]:
    """Return the nodes that `node` is computed from, itself included, less those already `known`."""
    seen, found, waiting = set(known), set(), [node]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            found.add(node)
            waiting.extend(node.all_input_nodes)
    return found


def extract_graph(symbolic: Symbolic, output: fx.Node) -> fx.Graph:
    """Copy the part of a graph that computes `output` from the image, and nothing else."""
    return _copy_nodes(symbolic, collect_ancestors(output), into=fx.Graph(), copies={}, output=output)


def extract_rest(symbolic: Symbolic, features: fx.Node) -> fx.Graph:
    """Copy the part of a graph after `features`, which becomes its input.

    Everything after `features` must depend on it alone.
    """
    result = symbolic.graph.output_node().args[0]
    assert isinstance(result, fx.Node)
    after = collect_ancestors(result, known=collect_ancestors(features))
    graph = fx.Graph()
    copies = {features: graph.placeholder("features")}
    return _copy_nodes(symbolic, after, into=graph, copies=copies, output=result)


def _copy_nodes(
    symbolic: Symbolic, nodes: set[fx.Node], *, into: fx.Graph, copies: dict[fx.Node, fx.Node], output: fx.Node
) -> fx.Graph:
    for node in symbolic.graph.nodes:
        if node in nodes:
            copies[node] = into.node_copy(node, copies.__getitem__)
    into.output(copies[output])
    into.lint()
    return into


class _PathTracer(fx.Tracer):
    """Trace down to torch's own layers, and note where in the module tree each node comes from.

    Layers that decide in their forward between training and evaluation, or look at shapes there,
    stay whole: fx would keep for ever the mode that the model had when it was traced.
    """

    def __init__(self) -> None:
        super().__init__()
        torchvision = load_torchvision()
        self._whole = (torchvision.ops.StochasticDepth, torchvision.models.convnext.LayerNorm2d)
        self._inside = [""]
        self._calls: Counter[str] = Counter()
        self.paths: dict[fx.Node, str] = {}
        self.outputs_of: dict[fx.Node, list[str]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._whole) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        path = self.path_of_module(m)
        self._inside.append(path)
        try:
            output = super().call_module(m, forward, args, kwargs)
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


class _Measure(fx.Interpreter):
    """Run a graph and keep the shape of each tensor and the MACs of each layer."""

    def __init__(self, symbolic: Symbolic) -> None:
        super().__init__(symbolic.model, graph=symbolic.graph)
        self._symbolic = symbolic
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.macs: dict[fx.Node, int] = {}
        self.activations: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        from_image = n.op == "placeholder" or any(source in self.activations for source in n.all_input_nodes)
        if from_image and n.op != "output" and _holds_tensor(value):
            self.activations.add(n)
        if isinstance(value, torch.Tensor):
            self.shapes[n] = tuple(value.shape)
            macs = layer_macs(self._symbolic.module(n), self.shapes[n])
            if macs:
                self.macs[n] = macs
        return value


def _holds_tensor(value: Any) -> bool:
    values = value if isinstance(value, tuple | list) else (value,)
    return any(isinstance(item, torch.Tensor) for item in values)


@torch.no_grad()
def _run(symbolic: Symbolic, image_size: int) -> _Measure:
    run = _Measure(symbolic)
    run.run(torch.empty(1, 3, image_size, image_size, device="meta"))
    return run


def _smallest_image_size(symbolic: Symbolic, too_small: int) -> int:
    low, high = too_small, LARGEST_IMAGE_SIZE
    _run(symbolic, high)  # fails here where the size was not the reason
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _run(symbolic, middle)
        except RuntimeError:
            low = middle
        else:
            high = middle
    return high
