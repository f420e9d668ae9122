"""What is read from text: options as typed, TensorRT's inspector, trtexec's times."""

import json

import pytest

from ttl_deploy.errors import DataError, UsageError
from ttl_deploy.records.engines import BatchRange
from ttl_deploy.runtime.tensorrt.inspector import executed_layers
from ttl_deploy.runtime.tensorrt.options import parse_request, parse_size
from ttl_deploy.runtime.tensorrt.trtexec import read_trtexec_times


def test_options_are_read_as_typed():
    request = parse_request(
        flavour="trt", batch="1,8,32", workspace="2GiB", builder_level=5, hardware_compatible="ampere-plus"
    )
    assert request.options.batch == BatchRange(smallest=1, usual=8, largest=32)
    assert request.options.workspace_bytes == 2 * 1024**3
    assert request.options.hardware == "ampere-plus"
    assert parse_request(flavour="rtx", batch="4").options.batch == BatchRange(smallest=4, usual=4, largest=4)
    assert parse_request(flavour="rtx", compute_capabilities="8.6, 12.0").options.compute_capabilities == (
        "8.6",
        "12.0",
    )
    assert parse_size("1.5 MB") == 1_500_000


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"flavour": "tensorrt"}, "rtx is TensorRT for RTX"),
        ({"batch": "8,1,16"}, "MIN,OPT,MAX that do not fall"),
        ({"batch": "1,2"}, "give MIN,OPT,MAX"),
        ({"batch": "0,1,1"}, "from 1 to 256"),
        ({"batch": "1,1,1000"}, "from 1 to 256"),
        ({"batch": "a"}, "give MIN,OPT,MAX"),
        ({"workspace": "2"}, "such as 2GiB"),
        ({"workspace": "2gib"}, "such as 2GiB"),
        ({"builder_level": 6}, "searched longest"),
        ({"hardware_compatible": "all"}, "unknown hardware compatibility"),
        ({"compute_capabilities": "sm86"}, "such as 8.6,8.9"),
        ({"compute_capabilities": "8.6,current"}, "current alone"),
    ],
)
def test_wrong_options_are_refused_with_what_is_allowed(wrong, words):
    with pytest.raises(UsageError, match=words):
        parse_request(**{"flavour": "trt", **wrong})


def layer(kind, weights="", **more):
    described = {"Name": "n", "LayerType": kind, "Inputs": [{"Format/Datatype": "Row major linear FP32"}], **more}
    return described | ({"Weights": {"Type": weights, "Count": 9}} if weights else {})


def test_layers_are_counted_by_the_type_of_their_weights_or_inputs():
    report = {
        "Layers": [
            layer("CaskConvolution", "Half"),
            layer("CaskConvolution", "Int8", ParameterType="Convolution"),
            layer("Convolution", "Float"),
            layer("gemm", Inputs=[{"Format/Datatype": "Half"}]),
            layer("kgen", Metadata="[ONNX Layer: node_MatMul_3]", Inputs=[{"Format/Datatype": "BFloat16"}]),
            layer(
                "CaskGemmConvolution", Inputs=[{"Format/Datatype": "Thirty-two wide vectorized row major Int8 format."}]
            ),
            layer("Reformat", Name="Reformatting CopyNode for Input Tensor 0 to conv1"),
            layer("PointWise"),
            layer("CaskPooling", Name="pool after conv1"),
            "a layer by name only",
        ],
        "Bindings": ["image"],
    }
    assert executed_layers(json.dumps(report)) == {"fp16": 2, "int8": 2, "fp32": 1, "bf16": 1}


@pytest.mark.parametrize("report", ["", "no json", "[]", '{"Layers": ["conv1"]}', "{}"])
def test_a_report_without_details_counts_nothing(report):
    assert executed_layers(report) == {}


def row(**changes):
    """Return an inference as trtexec writes it (TensorRT 8.6 to 11)."""
    times = {
        "startEnqMs": 0.0,
        "endEnqMs": 0.2,
        "startH2dMs": 0.0,
        "endH2dMs": 0.1,
        "startComputeMs": 0.1,
        "endComputeMs": 1.6,
        "startD2hMs": 1.6,
        "endD2hMs": 1.65,
        "h2dMs": 0.1,
        "computeMs": 1.5,
        "d2hMs": 0.05,
        "latencyMs": 1.65,
    }
    return times | changes


def test_trtexecs_times_stand_beside_ours_by_the_same_boundaries(tmp_path):
    path = tmp_path / "times.json"
    path.write_text(json.dumps([row(), row(startComputeMs=2.0, endComputeMs=3.0, latencyMs=1.2)]))
    times = read_trtexec_times(path, batch=4, cuda_graph=True)
    assert times.gpu_s == pytest.approx((1.5e-3, 1e-3))
    assert times.with_transfers_s == pytest.approx((1.65e-3, 1.2e-3))
    assert times.end_to_end_s == ()
    assert (times.told_by, times.batch, times.cuda_graph) == ("trtexec", 4, True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "cannot read"),
        ("[]", "no list of inferences"),
        ('{"a": 1}', "no list of inferences"),
        ("[1]", "inference 1: 1 is no object"),
        (json.dumps([row(), row(latencyMs="2")]), "inference 2: latencyMs = '2' is no time"),
        (json.dumps([row(endComputeMs=9)]), r"8\.9 ms of computing in a latency of 1\.65 ms"),
        (json.dumps([row(endComputeMs=0)]), "ms of computing"),
    ],
)
def test_another_file_is_refused_with_the_inference_that_is_wrong(tmp_path, content, words):
    path = tmp_path / "times.json"
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        read_trtexec_times(path, batch=1)
