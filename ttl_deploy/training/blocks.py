"""A model's blocks, bottom to top: the units in which strategies freeze and free it, without code per network.

The rule, applied to the whole network so that all its cuts have the same blocks:

1. What the deepest cut before `full` does not need (a last normalisation, the linear layers of a
   classifier) is one block with the head.
2. Of the rest, a module that holds nearly all parameters is opened (`features`, `encoder`), and so on
   within it. What is found then is in turn a module with parts (`layer1`, `features.denseblock1`), or
   a loose layer (`conv1`, a convolution of VGG).
3. Each module is a block. Neighbouring loose layers are one as long as their outputs have the same
   resolution: in a flat network a block ends where a pooling follows.
4. What multiplies nothing (a norm between two modules) belongs with what comes after it.
5. If that makes more blocks than `MOST_BLOCKS`, neighbours of the same resolution are joined. A network
   with fewer than three resolutions, such as a Vision Transformer, keeps a block for each of its layers.

For ResNet-50, DenseNet-121 and VGG-19 these are the blocks in the source code of BioTune, by the
group of Davila et al. (papers' section 3.2).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from torch import fx, nn

from ttl_deploy.models.graph.layouts import find_layout, read_features
from ttl_deploy.models.graph.measured import Measured
from ttl_deploy.models.places import find_places
from ttl_deploy.models.weights.backbone_state import list_prefixes
from ttl_deploy.records.models import ModelSpec

MOST_BLOCKS = 12
"""More blocks than these, the head's included, are joined by resolution."""
_NEARLY_ALL = 0.8  # torchvision's deepest single stages hold up to 0.73 of the tensors (ConvNeXt, Swin, ResNet-152)
_FEW_RESOLUTIONS = 3


@dataclass(slots=True)
class _Piece:
    """A module or a loose layer, with the resolution of what it computes last."""

    path: str
    loose: bool
    resolution: tuple[int, ...]
    multiplies: bool = False


def list_blocks(model: nn.Module, spec: ModelSpec) -> tuple[tuple[str, ...], ...]:
    """Return the names of the parameters in each block of a model built from `spec`, bottom to top, the head last.

    Every parameter is in exactly one block; blocks past the cut, of which nothing is left, are not listed.
    """
    body = _divide(spec.backbone, spec.image_size)
    block_of = {f"trunk.{path}": number for number, paths in enumerate(body) for path in paths}
    blocks: list[list[str]] = [[] for _ in (*body, "head")]
    for name, _ in model.named_parameters():
        blocks[next((block_of[path] for path in list_prefixes(name) if path in block_of), -1)].append(name)
    return tuple(tuple(block) for block in blocks if block)


@lru_cache(maxsize=8)
def _divide(backbone: str, image_size: int) -> tuple[tuple[str, ...], ...]:
    """Return the modules, layers and single parameters of each block below the head's, bottom to top."""
    places = find_places(backbone, image_size)
    measured = places[-1].measured
    below = places[-2].targets if len(places) > 1 else places[-1].targets
    names = [
        name for name, _ in measured.symbolic.model.named_parameters() if not below.isdisjoint(list_prefixes(name))
    ]
    blocks = _join_weightless(_runs(_find_pieces(measured, below, names)))
    if len(blocks) + 1 > MOST_BLOCKS:
        blocks = _join_by_resolution(blocks)
    return tuple(tuple(piece.path for piece in block) for block in blocks)


def _find_pieces(measured: Measured, below: frozenset[str], names: Sequence[str]) -> list[_Piece]:
    """Return what rule 2 finds, in the order in which it runs, without what has no parameters."""
    opened = _find_opened(names)
    with_parameters = {prefix for name in names for prefix in list_prefixes(name)}
    pieces: dict[str, _Piece] = {}
    resolution: tuple[int, ...] = ()
    for node in measured.symbolic.graph.nodes:
        target = str(node.target)
        if node.op not in ("call_module", "get_attr") or target not in below:
            continue
        if node.op == "call_module":  # a parameter used directly counts as of the resolution before it
            resolution = _resolution(measured, node)
        path = next(path for path in list_prefixes(target) if path not in opened or path == target)
        if path in with_parameters:
            piece = pieces.setdefault(path, _Piece(path, path == target, resolution))
            piece.resolution = resolution
            piece.multiplies |= node in measured.macs
    return list(pieces.values())


def _find_opened(names: Sequence[str]) -> set[str]:
    """Return the modules that hold nearly all parameters, counted as tensors."""
    held = Counter(prefix for name in names for prefix in list_prefixes(name)[:-1])
    return {module for module, count in held.items() if count > _NEARLY_ALL * len(names)}


def _resolution(measured: Measured, node: fx.Node) -> tuple[int, ...]:
    layout = find_layout(measured, node)
    shape = measured.shapes.get(node, ())
    return shape if layout is None else read_features(shape, layout)[1:]


def _runs(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Yield each module alone, and neighbouring loose layers of one resolution together."""
    for _, run in groupby(pieces, key=lambda piece: piece.resolution if piece.loose else piece.path):
        yield list(run)


def _join_weightless(runs: Iterable[list[_Piece]]) -> list[list[_Piece]]:
    """Return runs that multiply, each with what multiplies nothing before it; what comes last is left to the head."""
    joined: list[list[_Piece]] = []
    waiting: list[_Piece] = []
    for run in runs:
        waiting += run
        if any(piece.multiplies for piece in run):
            joined.append(waiting)
            waiting = []
    return joined


def _join_by_resolution(blocks: list[list[_Piece]]) -> list[list[_Piece]]:
    """Join neighbours of one resolution, unless the network has too few resolutions to be divided by them."""
    groups = [list(group) for _, group in groupby(blocks, key=lambda block: block[-1].resolution)]
    if len(groups) < _FEW_RESOLUTIONS:
        return blocks
    return [[piece for block in group for piece in block] for group in groups]
