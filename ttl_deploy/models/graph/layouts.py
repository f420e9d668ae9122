"""How the features at a node lie in memory: maps with channels first or last, or tokens."""

from torch import fx, nn

from ttl_deploy.models.graph.measured import Measured
from ttl_deploy.records.models import Layout

_CHANNELS_FIRST = (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm, nn.MultiheadAttention)


def find_layout(measured: Measured, node: fx.Node) -> Layout | None:
    """Return how a node's features lie; None where it is no map and no sequence of tokens.

    Images are square, so in a map the two equal sizes are height and width. Where all three are
    equal, the last layer before says where it keeps the channels.
    """
    shape = measured.shapes.get(node, ())
    if len(shape) == 3:
        return "tokens" if _has_channels_last(measured, node) else None
    if len(shape) != 4:
        return None
    if shape[1] == shape[2] == shape[3]:
        return "map-last" if _has_channels_last(measured, node) else "map"
    if shape[1] == shape[2]:
        return "map-last"
    return "map" if shape[2] == shape[3] else None  # MaxViT's windows are no map


def read_features(shape: tuple[int, ...], layout: Layout) -> tuple[int, int, int]:
    """Return channels, height and width of features `(1, …)`; tokens count as height, flat features as 1 × 1."""
    if layout == "tokens" and len(shape) == 3:
        return shape[2], shape[1], 1
    if layout == "map-last":
        return shape[3], shape[1], shape[2]
    return (shape[1], shape[2], shape[3]) if len(shape) == 4 else (shape[1], 1, 1)


def _has_channels_last(measured: Measured, node: fx.Node) -> bool:
    """Tell whether a node's channels are its last size, from the last layer before that knows."""
    start, shape = node, measured.shapes[node]
    while node.op != "placeholder":
        layer = measured.symbolic.module(node)
        if isinstance(layer, _CHANNELS_FIRST):
            return node is not start and measured.shapes[node][1] == shape[-1] != shape[1]
        # torchvision's LayerNorm2d is a LayerNorm that keeps channels first.
        if isinstance(layer, _CHANNELS_LAST) and type(layer).__module__.startswith("torch.nn."):
            return True
        sources = [source for source in node.all_input_nodes if source in measured.activations]
        if not sources:
            return False
        node = sources[0]
    return False
