"""An ONNX classifier in 16-bit floats: the network between the first and the last layer with weights, and no more.

Preprocessing before it (pixels to floats, normalisation) and what follows it (temperature, softmax) stay in single
precision, as do input and output. The conversion itself is ONNX Runtime's; it is given the inner part alone, because
in a whole file it rounds also what passes from one excluded node to the next.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from onnxruntime.transformers.float16 import convert_float_to_float16

from ttl_deploy.errors import GateError
from ttl_deploy.export.graph import INPUT

LARGEST = 65504.0
"""The largest finite number of 16 bits (IEEE 754 binary16)."""
_HEADROOM = 2.0
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def write_half(source: Path, path: Path) -> None:
    """Write an fp32 file's network in fp16 to `path`; raises `GateError` where a weight is too large for 16 bits."""
    model = onnx.load(source)
    _refuse_large_weights(model.graph)
    start, end = _inner(model.graph.node)
    nodes = list(model.graph.node)
    converted = convert_float_to_float16(_extract(model, nodes[start:end]), keep_io_types=True)
    _put_back(model, converted.graph, nodes[:start], nodes[end:])
    _check(model)
    path.write_bytes(model.SerializeToString())


def _inner(nodes: Sequence[NodeProto]) -> tuple[int, int]:
    """Return where the first layer with weights stands, and the place after the last."""
    weighted = [i for i, node in enumerate(nodes) if node.op_type in _WEIGHTED]
    if not weighted:
        raise GateError("the model has no layer with weights: nothing to make fp16 of; export --precision fp32")
    return weighted[0], weighted[-1] + 1


def _extract(model: ModelProto, nodes: Sequence[NodeProto]) -> ModelProto:
    """Return some consecutive nodes as a model of its own, with what crosses their border as inputs and outputs."""
    infos = _infos(model)
    made = {name for node in nodes for name in node.output}
    used = {name for node in nodes for name in node.input if name}
    constants = [tensor for tensor in model.graph.initializer if tensor.name in used]
    inputs = used - made - {tensor.name for tensor in constants}
    needed = _used_outside(model.graph, nodes)
    graph = onnx.helper.make_graph(
        nodes,
        "network",
        [infos[name] for name in sorted(inputs)],
        [infos[name] for name in sorted(made & needed)],
        constants,
    )
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import)
    part.ir_version = model.ir_version
    return part


def _used_outside(graph: GraphProto, nodes: Sequence[NodeProto]) -> set[str]:
    inside = {id(node) for node in nodes}
    outside = (node for node in graph.node if id(node) not in inside)
    names = {name for node in outside for name in node.input}
    return names | {output.name for output in graph.output}


def _infos(model: ModelProto) -> dict[str, ValueInfoProto]:
    """Return type and shape of every tensor of a graph by its name."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {info.name: info for info in (*graph.input, *graph.value_info, *graph.output)}


def _put_back(
    model: ModelProto, converted: GraphProto, before: Iterable[NodeProto], after: Iterable[NodeProto]
) -> None:
    """Give a model the converted nodes and weights in place of those between `before` and `after`."""
    outer = [*before, *after]
    used = {name for node in outer for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    renamed = _rename_shared(converted, {tensor.name for tensor in kept})
    nodes = [*before, *_in_order(renamed), *after]
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend([*kept, *renamed.initializer])


def _rename_shared(graph: GraphProto, taken: set[str]) -> GraphProto:
    """Rename converted constants that a node outside uses in single precision too."""
    for tensor in graph.initializer:
        if tensor.name in taken:
            new = f"{tensor.name}_half"
            for node in graph.node:
                node.input[:] = [new if name == tensor.name else name for name in node.input]
            tensor.name = new
    return graph


def _in_order(graph: GraphProto) -> list[NodeProto]:
    """Return the nodes so that each follows those it reads from: the converter puts its casts anywhere."""
    known = {tensor.name for tensor in graph.initializer} | {info.name for info in graph.input} | {""}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise GateError("the fp16 converter made a graph that does not hang together: nothing was published")
        ordered += ready
        known.update(name for node in ready for name in node.output)
        done = {id(node) for node in ready}
        waiting = [node for node in waiting if id(node) not in done]
    return ordered


def _refuse_large_weights(graph: GraphProto) -> None:
    """Refuse what the converter would cut off at the largest number without a word."""
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            largest = float(abs(onnx.numpy_helper.to_array(tensor)).max(initial=0.0))
            if not largest <= LARGEST:
                raise GateError(
                    f"{tensor.name} holds {largest:.4g}, and fp16 ends at {LARGEST:g}: nothing was published. "
                    "Export --precision fp32"
                )


def _check(model: ModelProto) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GateError(f"the ONNX checker refuses the model in fp16: {error}; nothing was published") from error


def find_peaks(source: Path, images: NDArray[np.uint8]) -> dict[str, float]:
    """Return by tensor the largest absolute value that an fp32 file's network computes for images `(n, H, W, 3)`.

    ONNX Runtime computes fp16 files on a CPU in fp32 between the layers, so that it would never show an overflow.
    Made to be called in a child process.
    """
    model = onnx.load(source)
    nodes = list(model.graph.node)
    start, end = _inner(nodes)
    floats = {name for name, info in _infos(model).items() if info.type.tensor_type.elem_type == TensorProto.FLOAT}
    names = [name for node in nodes[start:end] for name in node.output if name in floats]
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    peaks = dict.fromkeys(names, 0.0)
    for image in images:
        for name, values in zip(names, session.run(names, {INPUT: image[None]}), strict=True):
            peaks[name] = max(peaks[name], float(np.abs(values).max(initial=0.0)))
    return peaks


def refuse_large_activations(peaks: Mapping[str, float]) -> None:
    """Raise `GateError` where an activation comes nearer than a factor of two to the end of fp16, or is no number."""
    name, peak = max(peaks.items(), key=lambda pair: pair[1] if pair[1] == pair[1] else float("inf"))
    if not peak * _HEADROOM <= LARGEST:
        raise GateError(
            f"fp16 was not published: {name} reaches {peak:.4g} on validation images, and fp16 ends at {LARGEST:g} "
            f"(asked for: room for {_HEADROOM:g} times as much). Export --precision int8 or fp32"
        )
