"""Static 8-bit quantisation of an ONNX file: recipes, ranges from calibration images, one layer at a time or all.

Made with ONNX Runtime's quantiser, explicit pairs of QuantizeLinear and DequantizeLinear, one scale per output channel
of a weight, and ranges from the smallest to the largest value seen (Jacob et al. 2018, section 2; Krishnamoorthi 2018,
section 3.1). All functions that run a model are made to be called in a child process.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from ttl_deploy.errors import GateError
from ttl_deploy.export.graph import INPUT
from ttl_deploy.plugins import load
from ttl_deploy.runtime.inference import run_batches
from ttl_deploy.runtime.parity import error_power

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_NETWORK = "network."


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A way to quantise: what activations become, which operators take part, and what the quantiser is told beside.

    `floats_out` are operators whose results are not rounded themselves, only where the next layer takes them in.
    """

    name: str
    signed: bool
    operators: tuple[str, ...]
    float_biases: bool
    floats_out: tuple[str, ...] = ("Gemm", "MatMul")


SHARED = Recipe(
    name="S8S8 inputs of Conv/Gemm/MatMul", signed=True, operators=_WEIGHTED, float_biases=True, floats_out=_WEIGHTED
)
"""Signed, symmetric, biases left alone: what OpenVINO and TensorRT read. TensorRT's parser refuses int32 biases.

Rounded before an activation (ReLU6), a result spends its 256 values on a range that is cut off right afterwards.
"""
CPU = Recipe(name="U8S8 Conv/Gemm/MatMul", signed=False, operators=_WEIGHTED, float_biases=False)
"""Unsigned activations: what ONNX Runtime's x86 kernels are fast at."""
CPU_FULL = Recipe(
    name="U8S8 all layers",
    signed=False,
    operators=(*_WEIGHTED, "Add", "Concat", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool"),
    float_biases=False,
)
"""Additions, concatenations and pooling in 8 bits too: fewer conversions, more rounding."""
RECIPES = {recipe.name: recipe for recipe in (SHARED, CPU, CPU_FULL)}


def prepare(source: Path, prepared: Path) -> None:
    """Write the file with all shapes inferred, which the quantiser asks for."""
    quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    model = onnx.load(prepared)
    _import_onnx_only(model)
    prepared.write_bytes(model.SerializeToString())


def quantise(
    prepared: Path,
    path: Path,
    *,
    recipe: Recipe,
    ranges: Path,
    images: NDArray[np.uint8] | None = None,
    kept: Sequence[str] = (),
    only: Sequence[str] = (),
) -> None:
    """Quantise a prepared file to `path`: all layers that the recipe knows, without `kept`, or `only` some.

    `images` `(n, H, W, 3)` are run for the ranges of activations, which are stored in `ranges`, one file per
    recipe's set of operators; a stored file is used as it is. Layers are named as by `layers_of`. Raises `GateError`
    where the result holds other operators than ONNX's own.
    """
    names = {name: node for node, name in _named(onnx.load(prepared)).items()}
    quantize_static(
        str(prepared),
        str(path),
        None if images is None else _Images(images),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8 if recipe.signed else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=list(recipe.operators),
        nodes_to_exclude=[names[name] for name in kept] + _before_the_network(onnx.load(prepared), recipe),
        nodes_to_quantize=[names[name] for name in only],
        calibration_cache_path=ranges,
        extra_options=_options(recipe),
    )
    _clean(path)


def _options(recipe: Recipe) -> dict[str, Any]:
    options: dict[str, Any] = {"WeightSymmetric": True, "OpTypesToExcludeOutputQuantization": list(recipe.floats_out)}
    if recipe.signed:
        options["ActivationSymmetric"] = True
    if recipe.float_biases:
        options["QuantizeBias"] = False
    return options


def layers_of(path: Path) -> tuple[str, ...]:
    """Return the names of the layers with weights, in order: as modules are named, or else as their nodes."""
    return tuple(_named(onnx.load(path)).values())


def quantise_in_child(
    prepared: Path, path: Path, recipe: str, ranges: Path, images: NDArray[np.uint8] | None, kept: tuple[str, ...]
) -> None:
    """Call `quantise` with arguments that travel between processes."""
    quantise(prepared, path, recipe=RECIPES[recipe], ranges=ranges, images=images, kept=kept)


def measure_layers(
    prepared: Path,
    folder: Path,
    recipe: str,
    ranges: Path,
    images: NDArray[np.uint8],
    layers: tuple[str, ...],
    multilabel: bool,
) -> list[float]:
    """Quantise one of `layers` after the other alone, and return what power of error each makes in the logits.

    The images are run through ONNX Runtime; the reference is the file with no layer quantised.
    """
    expected = _run(prepared, images)
    powers = []
    for layer in layers:
        path = folder / "one.onnx"
        quantise(prepared, path, recipe=RECIPES[recipe], ranges=ranges, only=(layer,))
        powers.append(error_power(_run(path, images), expected, multilabel=multilabel))
        path.unlink()
    return powers


def _run(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return run_batches(load("targets", "onnxruntime-cpu")().open(path, threads=1), images, max_batch=16)


def _named(model: onnx.ModelProto) -> dict[str, str]:
    """Return the layers' names by their nodes'."""
    constants = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type in _WEIGHTED and any(name in constants for name in node.input[:2]):
            weight = next(name for name in node.input[:2] if name in constants)
            name = weight.removeprefix(_NETWORK).removesuffix(".weight") if weight.endswith(".weight") else node.name
            found[node.name] = name if name not in found.values() else node.name
    return found


def _before_the_network(model: onnx.ModelProto, recipe: Recipe) -> list[str]:
    """Return the nodes before the first layer with weights: normalisation, which stays exact."""
    if set(recipe.operators) == set(_WEIGHTED):
        return []
    found = []
    for node in model.graph.node:
        if node.op_type in _WEIGHTED:
            break
        found.append(node.name)
    return found


def _clean(path: Path) -> None:
    """Take away what the quantiser noted and imported, and check what is left."""
    model = onnx.load(path)
    foreign = sorted({node.domain for node in model.graph.node} - {""})
    if foreign:
        raise GateError(f"the quantiser put operators of {', '.join(foreign)} into the file: nothing was written")
    del model.metadata_props[:], model.graph.value_info[:]
    _import_onnx_only(model)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GateError(f"the ONNX checker refuses the quantised model: {error}; nothing was written") from error
    path.write_bytes(model.SerializeToString())


def _import_onnx_only(model: onnx.ModelProto) -> None:
    """Drop the operator sets that ONNX Runtime names without using them."""
    opset = max(entry.version for entry in model.opset_import if entry.domain == "")
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))


class _Images(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
    """Hands calibration images to the quantiser one by one."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._left: Iterator[NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next input, or None after the last."""
        image = next(self._left, None)
        return None if image is None else {INPUT: np.ascontiguousarray(image[None])}
