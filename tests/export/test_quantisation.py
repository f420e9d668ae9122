"""Quantised files: really 8 bits, by the stated arithmetic, checked against numpy and ONNX's own evaluator."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from ttl_deploy.export import quantisation
from ttl_deploy.export.onnx_writer import make_deployable, write_onnx
from ttl_deploy.export.quantisation import CPU, CPU_FULL, SHARED
from ttl_deploy.runtime.targets.onnxruntime_cpu import OnnxRuntimeCpu

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYERS = ("stem.0", "branch", "head.3")


@pytest.fixture(scope="module")
def prepared(new_net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    write_onnx(make_deployable(new_net(), mean=MEAN, std=STD), folder / "f.onnx", image_size=24, metadata={})
    quantisation.prepare(folder / "f.onnx", folder / "prepared.onnx")
    return folder / "prepared.onnx"


@pytest.fixture
def quantised(prepared, real_images, tmp_path):
    def make(recipe, **options):
        path = tmp_path / "int8.onnx"
        quantisation.quantise(
            prepared, path, recipe=recipe, ranges=tmp_path / "ranges.json", images=real_images[:16], **options
        )
        return onnx.load(path)

    return make


def initializers(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def weight_pairs(model):
    """Return integers, scales, zero points and axis of every DequantizeLinear whose input is a constant."""
    known = initializers(model)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in known and known[node.input[0]].ndim >= 2:
            axis = next(a.i for a in node.attribute if a.name == "axis")
            yield node.input[0], *(known[name] for name in node.input), axis


@pytest.mark.parametrize("recipe", [SHARED, CPU, CPU_FULL], ids=lambda recipe: recipe.name)
def test_weights_are_8_bit_integers_per_channel_and_half_a_step_from_the_originals(quantised, prepared, recipe):
    originals = initializers(onnx.load(prepared))
    pairs = list(weight_pairs(quantised(recipe)))
    assert len(pairs) == 3
    for name, integers, scales, zeros, axis in pairs:
        original = originals[name.removesuffix("_quantized")]
        assert integers.dtype == np.int8
        assert (zeros == 0).all()
        assert scales.shape == (original.shape[axis],)
        shape = [-1 if i == axis else 1 for i in range(original.ndim)]
        given = integers.astype(np.float64) * scales.astype(np.float64).reshape(shape)
        assert (np.abs(given - original) <= scales.reshape(shape) * 0.5001).all()


def test_the_shared_file_is_symmetric_without_integer_biases_and_of_plain_onnx(quantised):
    model = quantised(SHARED)
    known = initializers(model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not any(array.dtype == np.int32 for array in known.values())
    activations = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(activations) == 3  # one per layer: its input
    for node in activations:
        zero = known[node.input[2]]
        assert (zero.dtype, int(zero)) == (np.int8, 0)


def test_the_cpu_file_has_unsigned_activations(quantised):
    model = quantised(CPU)
    known = initializers(model)
    zeros = [known[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert zeros
    assert {zero.dtype for zero in zeros} == {np.dtype(np.uint8)}


def test_ranges_are_the_largest_values_of_the_calibration_images(quantised, real_images, normalise):
    model = quantised(SHARED)
    known = initializers(model)
    first = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    largest = float(normalise(real_images[:16]).abs().max())
    assert known[first.input[1]] == pytest.approx(largest / 127, rel=1e-3)


@pytest.mark.parametrize("recipe", [SHARED, CPU, CPU_FULL], ids=lambda recipe: recipe.name)
def test_the_runtime_computes_what_onnx_says(quantised, real_images, tmp_path, recipe):
    model = quantised(recipe)
    model.opset_import[0].version = 19  # the evaluator knows these operators from there on; they mean the same
    (expected,) = ReferenceEvaluator(model).run(None, {"image": real_images[:4]})
    given = OnnxRuntimeCpu().open(tmp_path / "int8.onnx", threads=1).run(real_images[:4])
    np.testing.assert_allclose(given, expected, atol=0.02)  # a rounding at a tie moves one step


def test_what_is_kept_stays_in_single_precision_and_only_means_only(quantised, prepared):
    assert quantisation.layers_of(prepared) == LAYERS
    without = quantised(SHARED, kept=("branch",))
    assert sorted(name for name, *_ in weight_pairs(without)) == [
        "network.head.3.weight_quantized",
        "network.stem.0.weight_quantized",
    ]
    alone = quantised(SHARED, only=("branch",))
    assert {name for name, *_ in weight_pairs(alone)} == {"network.branch.weight_quantized"}


def test_stored_ranges_are_used_again_without_images(quantised, prepared, real_images, tmp_path):
    first = quantised(SHARED)
    ranges = tmp_path / "ranges.json"
    assert json.loads(ranges.read_text())
    quantisation.quantise(prepared, tmp_path / "again.onnx", recipe=SHARED, ranges=ranges)
    assert (tmp_path / "again.onnx").read_bytes() == first.SerializeToString()


def test_each_layer_alone_makes_an_error_that_grows_with_its_outliers(prepared, real_images, tmp_path):
    model = onnx.load(prepared)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "network.head.3.weight")
    values = numpy_helper.to_array(weight).copy()
    values[:, 0] *= 300  # one input per row that takes all of the row's steps
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, tmp_path / "outliers.onnx")
    ranges = tmp_path / "ranges.json"
    quantisation.quantise(
        tmp_path / "outliers.onnx", tmp_path / "all.onnx", recipe=SHARED, ranges=ranges, images=real_images[:8]
    )
    powers = quantisation.measure_layers(
        tmp_path / "outliers.onnx", tmp_path, SHARED.name, ranges, real_images[:8], LAYERS, False
    )
    assert len(powers) == 3
    assert int(np.argmax(powers)) == 2
    assert min(powers) > 0
