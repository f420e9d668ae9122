"""What an ONNX file says of itself, read without the onnx package and before any runtime opens it.

Walks the protobuf wire format (`onnx/onnx.proto`, field numbers below) over a memory map: the
target machine needs no onnx, and a file with external data or foreign operators never reaches
native code.
"""

import mmap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ttl_deploy.errors import ArtifactError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_NODES = 100_000
_MAX_DEPTH = 16
_DOMAINS = frozenset({"", "ai.onnx"})
_TENSOR_TYPES = {1: "fp32", 10: "fp16", 11: "fp64", 16: "bf16", 2: "int8", 3: "int8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFacts:
    """What was read: versions, metadata, node count, elements of weights (rank two and more) by type."""

    ir_version: int
    opset: int
    metadata: dict[str, str]
    nodes: int
    weights: dict[str, int]

    @property
    def weight_precision(self) -> str:
        """Name the type that holds most of the weights, `fp32` where there are none."""
        return max(self.weights, key=self.weights.__getitem__) if self.weights else "fp32"


def read_onnx_facts(path: Path) -> OnnxFacts:
    """Read a model file's facts; raises `ArtifactError` where it is no ONNX file we would open.

    Refused: damage that shows in the structure, external data, operators of other domains,
    functions, deeply nested graphs, and more than 100,000 nodes.
    """
    try:
        with open(path, "rb") as file:
            # Closed by the garbage collector: an error's traceback may still hold views into it.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _facts(memoryview(content), path)
    except (ValueError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is not a readable ONNX file ({error}): export it again") from error
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror or error}") from error


def _facts(view: memoryview, path: Path) -> OnnxFacts:
    ir_version, opset, nodes = 0, 0, 0
    metadata: dict[str, str] = {}
    weights: Counter[str] = Counter()
    for number, value in _fields(view):
        if number == 1:  # ir_version
            ir_version = _integer(value)
        elif number == 7:  # graph
            nodes += _read_graph(_message(value), path, weights)
        elif number == 8:  # opset_import
            opset = max(opset, _opset(_message(value), path))
        elif number == 14:  # metadata_props
            parts = {n: _text(v) for n, v in _fields(_message(value)) if n in (1, 2)}
            metadata[parts.get(1, "")] = parts.get(2, "")
        elif number == 25:  # functions
            raise ArtifactError(f"{path} defines functions of its own, which ttl-deploy never writes: export it again")
    if nodes == 0 or opset == 0:
        raise ArtifactError(f"{path} is not an ONNX model: it holds no graph")
    return OnnxFacts(ir_version=ir_version, opset=opset, metadata=metadata, nodes=nodes, weights=dict(weights))


def _opset(view: memoryview, path: Path) -> int:
    domain, version = "", 0
    for number, value in _fields(view):
        if number == 1:
            domain = _text(value)
        elif number == 2:
            version = _integer(value)
    _check_domain(domain, path)
    return version


def _read_graph(view: memoryview, path: Path, weights: "Counter[str]", depth: int = 0) -> int:
    """Count a graph's nodes, its subgraphs' too, and add up its weights."""
    if depth > _MAX_DEPTH:
        raise ArtifactError(f"{path} nests graphs more than {_MAX_DEPTH} deep: not a classifier of ours")
    nodes = 0
    for number, value in _fields(view):
        if number == 1:  # node
            nodes += 1 + _read_node(_message(value), path, weights, depth)
        elif number == 5:  # initializer
            _read_tensor(_message(value), path, weights)
        elif number == 15:  # sparse_initializer
            raise ArtifactError(f"{path} holds sparse weights, which ttl-deploy never writes: export it again")
        if nodes > _MAX_NODES:
            raise ArtifactError(f"{path} has more than {_MAX_NODES} nodes: not a classifier of ours")
    return nodes


def _read_node(view: memoryview, path: Path, weights: "Counter[str]", depth: int) -> int:
    nodes = 0
    for number, value in _fields(view):
        if number == 7:  # domain
            _check_domain(_text(value), path)
        elif number == 5:  # attribute
            for part, content in _fields(_message(value)):
                if part in (5, 10):  # t, tensors
                    _read_tensor(_message(content), path, weights)
                elif part in (6, 11):  # g, graphs
                    nodes += _read_graph(_message(content), path, weights, depth + 1)
    return nodes


def _read_tensor(view: memoryview, path: Path, weights: "Counter[str]") -> None:
    kind, elements, rank = 0, 1, 0
    for number, value in _fields(view):
        if number == 1:  # dims, packed or one by one
            for size in [value] if isinstance(value, int) else _packed(value):
                elements, rank = elements * size, rank + 1
        elif number == 2:  # data_type
            kind = _integer(value)
        elif number == 13 or (number == 14 and value != 0):  # external_data, data_location
            raise ArtifactError(f"{path} keeps weights in other files, which is refused: export it again as one file")
    if rank >= 2 and kind in _TENSOR_TYPES:
        weights[_TENSOR_TYPES[kind]] += elements


def _check_domain(domain: str, path: Path) -> None:
    if domain not in _DOMAINS:
        raise ArtifactError(f"{path} uses operators of the domain {domain!r}; allowed are standard ONNX operators only")


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield field number and content of each field of a message; raises ValueError on damage."""
    position = 0
    while position < len(view):
        key, position = _varint(view, position)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, position = _varint(view, position)
            yield number, value
            continue
        if wire == _BYTES:
            size, position = _varint(view, position)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
        if position + size > len(view):
            raise ValueError("it ends in the middle of a field")
        yield number, view[position : position + size]
        position += size


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    result = 0
    for shift in range(0, 70, 7):
        if position >= len(view):
            raise ValueError("it ends in the middle of a number")
        byte = view[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise ValueError("a number is longer than 64 bits")


def _packed(view: memoryview) -> Iterator[int]:
    position = 0
    while position < len(view):
        value, position = _varint(view, position)
        yield value


def _integer(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise ValueError("a number was expected")
    return value


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a message was expected")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
