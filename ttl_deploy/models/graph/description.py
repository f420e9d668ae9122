"""A backbone's graph in words that change when the network does: for keys and for comparisons."""

import inspect
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from torch import nn

from ttl_deploy.files import sha256_bytes
from ttl_deploy.models.graph.measured import measure_backbone

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_PLAIN = (bool, int, float, str, tuple)


def fingerprint_backbone(backbone: str, image_size: int) -> str:
    """Return 16 hex digits that stay the same as long as the network's structure and its layers' code do."""
    return sha256_bytes(str(describe_nodes(backbone, image_size)).encode())[:16]


@lru_cache(maxsize=4)
def describe_nodes(backbone: str, image_size: int) -> Mapping[str, str]:
    """Describe every node of a graph, by its name, in execution order: what it calls, with what, to which shape."""
    measured = measure_backbone(backbone, image_size)
    symbolic = measured.symbolic
    described: dict[str, str] = {}
    for node in symbolic.graph.nodes:
        layer = symbolic.module(node)
        called = _describe_function(node.target) if layer is None else _describe_layer(layer)
        parts = (node.op, node.name, called, str(node.args), str(node.kwargs), measured.shapes.get(node))
        described[node.name] = _ADDRESS.sub("", str(parts))
    return described


def _describe_layer(layer: nn.Module) -> str:
    """Describe a layer by its settings, the shapes of its tensors, and its code where that is not torch's."""
    shapes = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    settings = [
        {name: value for name, value in vars(part).items() if isinstance(value, _PLAIN) and not name.startswith("_")}
        for part in layer.modules()
    ]
    kinds: list[Any] = [type(part) for part in layer.modules()]
    return str((repr(layer), shapes, settings, [_describe_code(kind) for kind in kinds]))


def _describe_function(target: Any) -> str:
    return _describe_code(target) if callable(target) else str(target)


@cache
def _describe_code(item: Any) -> str:
    """Name a class or function, with a hash of its source where no version of torch stands for it."""
    module, name = getattr(item, "__module__", None) or "builtins", getattr(item, "__qualname__", str(item))
    if module.partition(".")[0] in ("torch", "builtins", "_operator"):
        return f"{module}.{name}"
    try:
        return f"{module}.{name} {sha256_bytes(inspect.getsource(item).encode())[:16]}"
    except (OSError, TypeError):  # compiled, or typed in at a prompt
        return f"{module}.{name}"
