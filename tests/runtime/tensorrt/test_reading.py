"""What is read from text: options as typed, and TensorRT's inspector."""

import json

import pytest

from ttl_deploy.errors import UsageError
from ttl_deploy.records.engines import BatchRange
from ttl_deploy.runtime.tensorrt.inspector import executed_layers
from ttl_deploy.runtime.tensorrt.options import parse_request, parse_size


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
