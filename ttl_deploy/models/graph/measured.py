"""A backbone's graph with sizes: what one pass over it on the meta device measures, and how parts are copied."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import fx
from torch.utils.flop_counter import FlopCounterMode

from ttl_deploy.errors import UsageError
from ttl_deploy.models.graph.tracing import Symbolic, trace_backbone

LARGEST_IMAGE_SIZE = 2048
_TOO_SMALL = (RuntimeError, AssertionError, ValueError, IndexError)
"""What layers raise where nothing is left of a map, or patches do not divide it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A backbone's graph with the sizes it has for one image of `image_size` pixels.

    Attributes:
        shapes: of the nodes whose value is a tensor.
        macs: of the nodes that multiply: half of what torch's own counter says, for convolutions,
            linear layers and the products of attention.
        storages: which blocks of memory each node's value lies in; views share theirs.
        storage_bytes: size of each block.
        activations: the nodes that carry image content: tensors and their tuples (`chunk`), no sizes,
            no parameters.
    """

    symbolic: Symbolic
    image_size: int
    shapes: Mapping[fx.Node, tuple[int, ...]]
    macs: Mapping[fx.Node, int]
    storages: Mapping[fx.Node, frozenset[int]]
    storage_bytes: Mapping[int, int]
    activations: frozenset[fx.Node]


@lru_cache(maxsize=8)
def measure_backbone(name: str, image_size: int) -> Measured:
    """Run a backbone's graph once on the meta device; raises `UsageError` where the images do not suit it."""
    symbolic = trace_backbone(name, image_size)
    try:
        run = _run(symbolic, image_size)
    except _TOO_SMALL as error:
        raise UsageError(
            f"{name} cannot take images of {image_size} x {image_size} pixels: {_explain(symbolic, image_size, error)}"
        ) from error
    result = symbolic.graph.output_node().all_input_nodes[0]
    if len(run.shapes.get(result, ())) != 2:
        raise UsageError(f"{name} returns {run.shapes.get(result)} for one image: a classifier returns (1, classes)")
    return Measured(
        symbolic=symbolic,
        image_size=image_size,
        shapes=run.shapes,
        macs=run.macs,
        storages=run.storages,
        storage_bytes={number: storage.nbytes() for number, storage in run.blocks.items()},
        activations=frozenset(run.activations),
    )


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
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    _copy_nodes(symbolic, collect_ancestors(output), into=graph, copies=copies)
    return _end_with(graph, copies[output])


def extract_outputs(measured: Measured, outputs: Sequence[fx.Node]) -> fx.Graph:
    """Copy the part of a graph that computes all of `outputs`, which it returns as a tuple in their order.

    An output that later layers overwrite in place (ReLU) is copied before they do.
    """
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    ancestors = set[fx.Node]().union(*map(collect_ancestors, outputs))
    returned: dict[fx.Node, fx.Node] = {}
    for node in measured.symbolic.graph.nodes:
        if node not in ancestors:
            continue
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if node in outputs:
            shared = _shares_memory_later(measured, node)
            returned[node] = graph.call_method("clone", (copies[node],)) if shared else copies[node]
    return _end_with(graph, tuple(returned[output] for output in outputs))


def _shares_memory_later(measured: Measured, node: fx.Node) -> bool:
    later = list(measured.symbolic.graph.nodes)
    later = later[later.index(node) + 1 :]
    mine = measured.storages.get(node, frozenset())
    return any(not mine.isdisjoint(measured.storages.get(other, frozenset())) for other in later)


def extract_rest(symbolic: Symbolic, features: fx.Node) -> fx.Graph:
    """Copy the part of a graph after `features`, which becomes its input.

    Everything after `features` must depend on it alone.
    """
    result = symbolic.graph.output_node().args[0]
    assert isinstance(result, fx.Node)
    after = collect_ancestors(result, known=collect_ancestors(features))
    graph = fx.Graph()
    copies = {features: graph.placeholder("features")}
    _copy_nodes(symbolic, after, into=graph, copies=copies)
    return _end_with(graph, copies[result])


def _copy_nodes(symbolic: Symbolic, nodes: set[fx.Node], *, into: fx.Graph, copies: dict[fx.Node, fx.Node]) -> None:
    for node in symbolic.graph.nodes:
        if node in nodes:
            copies[node] = into.node_copy(node, copies.__getitem__)


def _end_with(graph: fx.Graph, returned: fx.Node | tuple[fx.Node, ...]) -> fx.Graph:
    graph.output(returned)
    graph.lint()
    return graph


class _Measure(fx.Interpreter):
    """Run a graph and keep the shape of each tensor, where it lies, and the MACs of each layer."""

    def __init__(self, symbolic: Symbolic, counter: FlopCounterMode) -> None:
        super().__init__(symbolic.model, graph=symbolic.graph)
        self._counter = counter
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.macs: dict[fx.Node, int] = {}
        self.storages: dict[fx.Node, frozenset[int]] = {}
        self.blocks: dict[int, torch.UntypedStorage] = {}  # kept, so that no two get the same number
        self.activations: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        before = self._counter.get_total_flops()
        value = super().run_node(n)
        macs = (self._counter.get_total_flops() - before) // 2
        from_image = n.op == "placeholder" or any(source in self.activations for source in n.all_input_nodes)
        tensors = _tensors_in(value)
        if from_image and n.op != "output" and tensors:
            self.activations.add(n)
            self._note_storages(n, tensors)
        if isinstance(value, torch.Tensor):
            self.shapes[n] = tuple(value.shape)
        if macs:
            self.macs[n] = macs
        return value

    def _note_storages(self, node: fx.Node, tensors: list[torch.Tensor]) -> None:
        blocks = {storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in tensors)}
        self.blocks |= blocks
        self.storages[node] = frozenset(blocks)


def _tensors_in(value: Any) -> list[torch.Tensor]:
    values = value if isinstance(value, tuple | list) else (value,)
    return [item for item in values if isinstance(item, torch.Tensor)]


@torch.no_grad()
def _run(symbolic: Symbolic, image_size: int) -> _Measure:
    with FlopCounterMode(display=False) as counter:
        run = _Measure(symbolic, counter)
        run.run(torch.empty(1, symbolic.channels, image_size, image_size, device="meta"))
    return run


def _explain(symbolic: Symbolic, image_size: int, error: Exception) -> str:
    """Say what to do about images that do not suit a network: the smallest size, if size is the matter."""
    smallest = _smallest_image_size(symbolic, image_size)
    if smallest is not None:
        return f"its deep layers would have nothing left; the smallest is --image-size {smallest}"
    reason, _, _ = " ".join(str(error).split()).partition(" While executing")
    return reason[:300] or type(error).__name__


def _smallest_image_size(symbolic: Symbolic, too_small: int) -> int | None:
    low, high = too_small, LARGEST_IMAGE_SIZE
    if not _runs(symbolic, high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if _runs(symbolic, middle):
            high = middle
        else:
            low = middle
    return high


def _runs(symbolic: Symbolic, image_size: int) -> bool:
    try:
        _run(symbolic, image_size)
    except _TOO_SMALL:
        return False
    return True
