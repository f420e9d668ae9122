"""Our own reading of ONNX files against the onnx package's, and on damaged and hostile ones."""

import numpy as np
import onnx
import pytest

from ttl_deploy.errors import ArtifactError
from ttl_deploy.runtime.onnx_file import read_onnx_facts


def save(model, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_facts_agree_with_the_onnx_package(tiny, tmp_path):
    model = tiny.model({"ttl_deploy": "ä{}", "other": ""})
    facts = read_onnx_facts(save(model, tmp_path))
    assert facts.ir_version == model.ir_version == 10
    assert facts.opset == model.opset_import[0].version == 18
    assert facts.nodes == len(model.graph.node)
    assert facts.metadata == {prop.key: prop.value for prop in model.metadata_props}
    assert facts.weights == {"fp32": tiny.weight.size}


@pytest.mark.parametrize(
    ("kind", "name"), [(np.float32, "fp32"), (np.float16, "fp16"), (np.int8, "int8"), (np.uint8, "int8")]
)
def test_the_type_of_most_weights_is_the_precision(tiny, tmp_path, kind, name):
    assert read_onnx_facts(save(tiny.model(weight_type=kind), tmp_path)).weight_precision == name


def test_weights_in_constant_nodes_and_subgraphs_count(tmp_path):
    helper, tensor = onnx.helper, onnx.TensorProto
    weight = onnx.numpy_helper.from_array(np.zeros((5, 7), np.float16), "w")
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["w"], value=weight)],
        "inner",
        [],
        [helper.make_tensor_value_info("w", tensor.FLOAT16, [5, 7])],
    )
    outer = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
        "outer",
        [helper.make_tensor_value_info("c", tensor.BOOL, [])],
        [helper.make_tensor_value_info("y", tensor.FLOAT16, [5, 7])],
    )
    facts = read_onnx_facts(save(helper.make_model(outer), tmp_path))
    assert facts.weights == {"fp16": 2 * 35}
    assert facts.nodes == 3


def test_external_data_is_refused(tiny, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(tiny.model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ArtifactError, match="weights in other files"):
        read_onnx_facts(path)


def test_foreign_operators_are_refused(tiny, tmp_path):
    model = tiny.model()
    model.graph.node[1].domain = "com.evil"
    with pytest.raises(ArtifactError, match=r"domain 'com\.evil'"):
        read_onnx_facts(save(model, tmp_path))
    model = tiny.model()
    model.opset_import.append(onnx.helper.make_opsetid("com.evil", 1))
    with pytest.raises(ArtifactError, match=r"domain 'com\.evil'"):
        read_onnx_facts(save(model, tmp_path))


def test_functions_and_sparse_weights_are_refused(tiny, tmp_path):
    model = tiny.model()
    model.functions.add(name="f", domain="")
    with pytest.raises(ArtifactError, match="functions of its own"):
        read_onnx_facts(save(model, tmp_path))
    model = tiny.model()
    model.graph.sparse_initializer.add()
    with pytest.raises(ArtifactError, match="sparse weights"):
        read_onnx_facts(save(model, tmp_path))


def test_endlessly_nested_graphs_are_refused(tmp_path):
    def field(number, content):
        size = len(content)
        digits = []
        while size > 127:
            digits.append(size & 127 | 128)
            size >>= 7
        return bytes([number << 3 | 2, *digits, size]) + content

    graph = b""
    for _ in range(2000):
        graph = field(1, field(5, field(6, graph)))
    path = tmp_path / "model.onnx"
    path.write_bytes(field(7, graph))
    with pytest.raises(ArtifactError, match="nests graphs"):
        read_onnx_facts(path)


@pytest.mark.parametrize("content", [b"", b"not an onnx file", b"\x00" * 64, b"\xff" * 64, b"{}", b"\x89PNG\r\n\x1a\n"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        read_onnx_facts(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="cannot read"):
        read_onnx_facts(tmp_path / "nothing.onnx")


def test_mutated_files_are_read_or_refused_but_never_crash(tiny, tmp_path):
    original = tiny.model({"ttl_deploy": "{}"}).SerializeToString()
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "model.onnx", 0
    for _ in range(1000):
        damaged = bytearray(original)
        for position in rng.integers(0, len(original), rng.integers(1, 4)):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged[: rng.integers(1, len(original) + 1)])
        try:
            read_onnx_facts(path)
        except ArtifactError:
            refused += 1
    assert refused > 500
