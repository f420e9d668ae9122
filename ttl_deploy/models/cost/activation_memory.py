"""How much memory the activations of a trunk need at once."""

from collections.abc import Sequence

from torch import fx

from ttl_deploy.models.graph.measured import Measured


def measure_peaks(measured: Measured, nodes: Sequence[fx.Node]) -> tuple[int, ...]:
    """Return, for the trunk up to each of `nodes` (in execution order), its peak activation memory in bytes.

    That is the largest size of all tensors alive at once while the graph runs node by node on one
    image in single precision. A tensor lives until its last use, the image to the end: it belongs to
    the caller. Views share the memory of what they view, and in-place layers that of their input.
    What a layer allocates inside for itself is not counted.
    """
    order = {node: position for position, node in enumerate(measured.symbolic.graph.nodes)}
    peaks = _running_peaks(measured, order)
    return tuple(peaks[order[node]] for node in nodes)


def _running_peaks(measured: Measured, order: dict[fx.Node, int]) -> list[int]:
    last_use: dict[int, int] = {}
    for node, blocks in measured.storages.items():
        end = max((order[user] for user in node.users), default=order[node])
        if node.op == "placeholder":
            end = len(order)
        for block in blocks:
            last_use[block] = max(last_use.get(block, 0), end)
    alive: set[int] = set()
    peaks, peak = [], 0
    for node, position in order.items():
        alive |= measured.storages.get(node, frozenset())
        peak = max(peak, sum(measured.storage_bytes[block] for block in alive))
        peaks.append(peak)
        alive = {block for block in alive if last_use[block] > position}
    return peaks
