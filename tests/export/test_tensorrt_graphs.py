"""The graph in half precision: what is rounded, what is not, and how near it stays."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from ttl_deploy.errors import GateError
from ttl_deploy.export.half_precision import find_peaks, refuse_large_activations, write_half
from ttl_deploy.export.onnx_writer import make_deployable, write_onnx, write_onnx_before
from ttl_deploy.export.writer import torch_probabilities
from ttl_deploy.runtime.onnx_file import read_onnx_facts
from ttl_deploy.runtime.targets.onnxruntime_cpu import OnnxRuntimeCpu

SIDE = 24
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def deployable(new_net):
    return make_deployable(new_net(), mean=MEAN, std=STD, temperature=1.7)


@pytest.fixture(scope="module")
def files(deployable, tmp_path_factory):
    """The same net by both exporters in fp32, and in fp16."""
    folder = tmp_path_factory.mktemp("graphs")
    found = {"single": folder / "single.onnx", "older": folder / "older.onnx"}
    write_onnx(deployable, found["single"], image_size=SIDE, metadata={})
    write_onnx_before(deployable, found["older"], image_size=SIDE, metadata={"k": "v"})
    for name in tuple(found):
        found[f"{name} half"] = folder / f"{name}-half.onnx"
        write_half(found[name], found[f"{name} half"])
    return found


def types_of(path):
    """Return the element type of every tensor of a graph."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    types = {info.name: info.type.tensor_type.elem_type for info in (*graph.input, *graph.value_info, *graph.output)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


class RoundedNet(torch.nn.Module):
    """The network in torch's own half precision, between normalisation and softmax in single."""

    def __init__(self, network):
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, x):
        return self.network(x.half()).float()


@pytest.mark.parametrize("exporter", ["single", "older"])
def test_half_precision_differs_from_single_as_torchs_own_half_does(files, deployable, real_images, exporter):
    single, half = (OnnxRuntimeCpu().open(files[name], threads=1) for name in (exporter, f"{exporter} half"))
    own = make_deployable(deployable.network, mean=MEAN, std=STD, temperature=1.7)
    own.network = RoundedNet(own.network)
    exact, rounded = single.run(real_images), half.run(real_images)
    expected = torch_probabilities(own, real_images)
    assert 0 < np.abs(rounded - exact).max() < 5e-3
    assert np.abs(rounded - expected).max() < 5e-3
    np.testing.assert_allclose(rounded.sum(axis=1), 1, atol=1e-6)  # softmax itself is not rounded


@pytest.mark.parametrize("exporter", ["single", "older"])
def test_preprocessing_softmax_input_and_output_stay_in_single_precision(files, exporter):
    graph, types = onnx.load(files[f"{exporter} half"]).graph, types_of(files[f"{exporter} half"])
    half, single = TensorProto.FLOAT16, TensorProto.FLOAT
    assert types["image"] == TensorProto.UINT8
    assert types["probabilities"] == single
    for node in graph.node:
        heavy = node.op_type in ("Conv", "Gemm")
        assert not heavy or {types[name] for name in (*node.input, *node.output)} == {half}
        assert node.op_type != "Softmax" or {types[name] for name in (*node.input, *node.output)} == {single}
    between = [node for node in graph.node if node.op_type == "Cast" and types[node.output[0]] == half]
    back = [node for node in graph.node if node.op_type == "Cast" and types[node.input[0]] == half]
    assert (len(between), len(back)) == (1, 1)  # in once, out once
    before = list(graph.node)[: list(graph.node).index(between[0])]
    assert {types[name] for node in before for name in node.output} <= {single, TensorProto.INT64}
    assert read_onnx_facts(files[f"{exporter} half"]).weight_precision == "fp16"


def test_weights_are_the_rounded_ones_and_the_file_is_half_as_large(files):
    weights = {
        name: {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(files[name]).graph.initializer}
        for name in ("single", "single half")
    }
    convolution = "network.branch.weight"
    np.testing.assert_array_equal(
        weights["single half"][convolution], weights["single"][convolution].astype(np.float16)
    )
    assert weights["single half"][convolution].nbytes * 2 == weights["single"][convolution].nbytes


def test_the_older_exporter_writes_what_jetpack_5_reads(files, deployable, real_images):
    for name in ("older", "older half"):
        facts = read_onnx_facts(files[name])
        assert (facts.opset, facts.ir_version) == (17, 8)
    assert read_onnx_facts(files["older"]).metadata == {"k": "v"}
    given = OnnxRuntimeCpu().open(files["older"], threads=1).run(real_images)
    np.testing.assert_allclose(given, torch_probabilities(deployable, real_images), atol=1e-5)
    assert read_onnx_facts(files["single"]).opset == 18


def test_a_weight_that_is_too_large_is_refused_by_name(files, tmp_path):
    model = onnx.load(files["single"])
    tensor = next(one for one in model.graph.initializer if one.name == "network.branch.weight")
    values = numpy_helper.to_array(tensor).copy()
    values.flat[5] = 7e4
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "large.onnx")
    with pytest.raises(GateError, match=r"network\.branch\.weight holds 7e\+04, and fp16 ends at 65504"):
        write_half(tmp_path / "large.onnx", tmp_path / "half.onnx")
    assert not (tmp_path / "half.onnx").exists()


def test_peaks_are_those_of_torchs_own_activations(files, deployable, real_images):
    seen = []
    network = copy.deepcopy(deployable.network)
    network.branch.register_forward_hook(lambda module, given, output: seen.append(float(output.abs().max())))
    own = make_deployable(network, mean=MEAN, std=STD)
    own.network = network
    torch_probabilities(own, real_images[:8])
    peaks = find_peaks(files["single"], real_images[:8])
    assert any(max(seen) == pytest.approx(peak, rel=1e-4) for peak in peaks.values())


def test_activations_too_near_the_end_of_half_precision_are_refused():
    refuse_large_activations({"a": 1.0, "b": 32_000.0})
    with pytest.raises(GateError, match=r"b reaches 3\.3e\+04 on validation images, and fp16 ends at 65504"):
        refuse_large_activations({"a": 1.0, "b": 33_000.0})
    for broken in (float("inf"), float("nan")):
        with pytest.raises(GateError, match="b reaches"):
            refuse_large_activations({"a": 1.0, "b": broken})


def test_a_model_without_layers_is_refused(tmp_path):
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "empty",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "m.onnx")
    with pytest.raises(GateError, match="no layer with weights"):
        write_half(tmp_path / "m.onnx", tmp_path / "half.onnx")
