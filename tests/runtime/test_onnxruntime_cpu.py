"""ONNX Runtime: what it reports of itself, and models of another shape."""

import numpy as np
import onnx
import onnxruntime
import pytest

from ttl_deploy.errors import ArtifactError
from ttl_deploy.runtime.targets.onnxruntime_cpu import OnnxRuntimeCpu


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int8])
def test_weights_that_are_only_stored_small_are_computed_in_fp32_and_said_to_be(tiny, tmp_path, kind):
    onnx.save(tiny.model(weight_type=kind), tmp_path / "model.onnx")
    session = OnnxRuntimeCpu().open(tmp_path / "model.onnx", threads=1)
    assert (session.precision, session.layers) == ("fp32", {"fp32": 1})
    assert session.runtime == f"onnxruntime {onnxruntime.__version__}"
    assert (session.height, session.width, session.classes) == (tiny.side, tiny.side, 2)


def test_answers_and_images_are_the_callers_own(tiny, tmp_path):
    onnx.save(tiny.model(), tmp_path / "model.onnx")
    session = OnnxRuntimeCpu().open(tmp_path / "model.onnx", threads=1)
    first, second = tiny.images(1, seed=5), tiny.images(1, seed=6)
    kept, given = first.copy(), session.run(first)
    expected = given.copy()
    assert not np.array_equal(session.run(second), expected)
    np.testing.assert_array_equal(given, expected)
    np.testing.assert_array_equal(first, kept)
    given[:] = 7  # what a caller does to its answers does not reach later ones
    np.testing.assert_array_equal(session.run(first), expected)


def test_a_model_with_another_input_is_refused(tiny, tmp_path):
    model = tiny.model()
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match=r"takes uint8 images"):
        OnnxRuntimeCpu().open(tmp_path / "model.onnx", threads=1)


def test_a_model_with_two_outputs_is_refused(tiny, tmp_path):
    model = tiny.model()
    model.graph.output.append(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 2]))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match=r"gives float probabilities"):
        OnnxRuntimeCpu().open(tmp_path / "model.onnx", threads=1)


def test_a_valid_file_with_an_impossible_graph_is_refused(tiny, tmp_path):
    model = tiny.model()
    model.graph.node[2].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match="ONNX Runtime cannot open"):
        OnnxRuntimeCpu().open(tmp_path / "model.onnx", threads=1)


def test_half_the_mutated_models_or_more_are_refused_and_none_crashes(tiny, tmp_path):
    original = tiny.model().SerializeToString()
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "model.onnx", 0
    for _ in range(200):
        damaged = bytearray(original)
        damaged[rng.integers(0, len(original))] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(damaged)
        try:
            OnnxRuntimeCpu().open(path, threads=1).run(tiny.images(1))
        except ArtifactError:
            refused += 1
    assert 100 <= refused < 200
