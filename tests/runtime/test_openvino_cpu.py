"""OpenVINO: what it is told, what it reports of itself, and what it must not be given."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.contracts.small_networks import conv_files, noise, quantised_dense_block
from ttl_deploy.errors import ArtifactError, TargetUnavailableError, UsageError
from ttl_deploy.runtime.inference import open_safely

openvino = pytest.importorskip("openvino")
OpenVinoCpu = pytest.importorskip("ttl_deploy.runtime.targets.openvino_cpu").OpenVinoCpu


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return conv_files(tmp_path_factory.mktemp("files"))


def test_it_is_told_threads_delay_and_fp32_and_says_so_itself(files):
    session = OpenVinoCpu().open(files["fp32"], threads=2)
    compiled = session._compiled[1].request.get_compiled_model()
    told = {name: compiled.get_property(name) for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS", "PERFORMANCE_HINT")}
    assert told == {"INFERENCE_NUM_THREADS": 2, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert session.runtime == f"openvino {openvino.__version__.split('-')[0]}"
    assert (session.height, session.width, session.classes) == (32, 32, 3)


def test_bf16_runs_only_where_it_is_asked_for(files):
    if "bf16" not in OpenVinoCpu().precisions():
        with pytest.raises(UsageError, match="cannot run bf16 on this machine"):
            OpenVinoCpu().open(files["fp32"], threads=1, precision="bf16")
        return
    layers = [OpenVinoCpu().open(files["fp32"], threads=1, precision=p).layers for p in (None, "fp32", "bf16")]
    assert [set(found) for found in layers] == [{"fp32"}, {"fp32"}, {"bf16"}]


def test_a_runtime_that_takes_16_bits_unasked_is_not_used(files, monkeypatch):
    module = "ttl_deploy.runtime.targets.openvino_cpu"
    monkeypatch.setattr(f"{module}._executed_layers", lambda compiled: {"fp32": 1, "bf16": 2})
    with pytest.raises(TargetUnavailableError, match=r"runs 2 layers of .* in 16 bits although it was told not to"):
        OpenVinoCpu().open(files["fp32"], threads=1)


def answer_or_error(model):
    try:
        return open_safely("openvino-cpu", model, threads=1).run(noise(2))
    except TargetUnavailableError as error:
        return str(error)


def test_a_real_crash_of_the_compiler_is_told_and_survived(files, tmp_path):
    """OpenVINO 2026.4.1 segfaults on this file; a later version may be cured, and must then give numbers."""
    outcome = answer_or_error(quantised_dense_block(tmp_path))
    if isinstance(outcome, str):
        assert "killed by signal 11 (SIGSEGV)" in outcome
        assert "dense-int8.onnx" in outcome
    else:
        np.testing.assert_allclose(outcome.sum(axis=1), 1, atol=1e-2)
    assert open_safely("openvino-cpu", files["int8"], threads=1).precision == "int8"


def test_a_batch_size_is_compiled_when_it_comes_again_and_few_are_kept(files):
    session = OpenVinoCpu().open(files["fp32"], threads=1)
    pictures = noise(9)
    for size in (8, 3):  # a stream and its end, which runs as a batch of 8
        session.run(pictures[:size])
    assert list(session._compiled) == [1, 8]
    session.run(pictures[:3])
    assert list(session._compiled) == [1, 8, 3]
    for size in (9, 4, 4, 5, 5):
        session.run(pictures[:size])
    assert list(session._compiled) == [9, 4, 8, 5]


def test_answers_and_images_are_the_callers_own(files):
    """The session's memory is used again by every call; nobody must see that."""
    session = OpenVinoCpu().open(files["fp32"], threads=1)
    first, second = noise(1, seed=5), noise(1, seed=6)
    kept, given = first.copy(), session.run(first)
    expected = given.copy()
    assert not np.array_equal(session.run(second), expected)
    np.testing.assert_array_equal(given, expected)
    np.testing.assert_array_equal(first, kept)
    given[:] = 7  # nor does what a caller does to its answers reach later ones
    np.testing.assert_array_equal(session.run(first), expected)


def test_images_may_be_read_only_or_a_view_of_others(files):
    session = OpenVinoCpu().open(files["fp32"], threads=1)
    pictures = noise(8)
    every_other, mirrored = pictures[::2], pictures[:4, :, ::-1]
    pictures.flags.writeable = False
    for view in (every_other, mirrored, pictures[:4]):
        np.testing.assert_array_equal(session.run(view), session.run(np.array(view)))


def test_a_smaller_batch_is_filled_with_black_and_not_with_earlier_images(files):
    session = OpenVinoCpu().open(files["fp32"], threads=1)
    session.run(noise(8))
    session.run(noise(3))
    memory = session._compiled[8].images
    np.testing.assert_array_equal(memory[:3], noise(3))
    assert not memory[3:].any()


def test_threads_that_share_a_session_get_the_answers_to_their_own_images(files):
    session = OpenVinoCpu().open(files["fp32"], threads=1)
    pictures = noise(8)
    expected = [session.run(picture[None]) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        given = list(pool.map(lambda picture: session.run(picture[None]), [*pictures] * 25))
    np.testing.assert_array_equal(given, expected * 25)


def test_its_own_files_hold_every_bit_of_the_weights(files, tmp_path):
    built = OpenVinoCpu().build(files["fp32"], tmp_path / "ir")
    assert sorted(path.name for path in built.parent.iterdir()) == ["model.bin", "model.xml"]
    weights = sum(array.nbytes for array in map(onnx.numpy_helper.to_array, onnx.load(files["fp32"]).graph.initializer))
    assert built.with_suffix(".bin").stat().st_size >= 0.95 * weights
    given, expected = (OpenVinoCpu().open(path, threads=1).run(noise(4)) for path in (built, files["fp32"]))
    np.testing.assert_array_equal(given, expected)


def test_half_a_model_and_a_damaged_one_are_refused(files, tmp_path):
    built = OpenVinoCpu().build(files["fp32"], tmp_path / "ir")
    weights, whole = built.with_suffix(".bin"), built.read_text()
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ArtifactError, match=r"model\.bin is missing or shorter than .*model\.xml says"):
        OpenVinoCpu().open(built, threads=1)
    weights.unlink()
    with pytest.raises(ArtifactError, match=r"model\.bin is missing"):
        OpenVinoCpu().open(built, threads=1)
    shutil.copy(files["fp32"], weights)
    built.write_text(whole.replace('type="Gather"', 'type="NoSuchLayer"').replace('type="Convolution"', 'type="Conv"'))
    with pytest.raises(ArtifactError, match=r"OpenVINO cannot open .*model\.xml"):
        OpenVinoCpu().open(built, threads=1)
    built.write_text("<net>")
    with pytest.raises(ArtifactError, match=r"model\.xml is not readable XML"):
        OpenVinoCpu().open(built, threads=1)


def change(path: Path, alter) -> Path:
    model = onnx.load(path)
    alter(model.graph)
    changed = path.with_name("changed.onnx")
    onnx.save(model, changed)
    return changed


def floats_in(graph):
    graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def logits_too(graph):
    logits = graph.node[-1].input[0]
    graph.output.append(onnx.helper.make_tensor_value_info(logits, onnx.TensorProto.FLOAT, ["batch", 3]))


def unknown_operator(graph):
    graph.node[0].op_type = "NoSuchOperator"


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (floats_in, "takes uint8 images"),
        (logits_too, "gives float probabilities"),
        (unknown_operator, "OpenVINO cannot open"),
    ],
)
def test_a_model_of_another_shape_is_refused(files, alter, words):
    with pytest.raises(ArtifactError, match=words):
        OpenVinoCpu().open(change(files["fp32"], alter), threads=1)


def test_a_file_with_a_fixed_batch_runs_that_batch(files):
    def fix(graph):
        for part in (*graph.input, *graph.output):
            part.type.tensor_type.shape.dim[0].dim_value = 4

    session = OpenVinoCpu().open(change(files["fp32"], fix), threads=1)
    expected = OpenVinoCpu().open(files["fp32"], threads=1).run(noise(4))
    np.testing.assert_allclose(session.run(noise(4)), expected, atol=1e-6)
    np.testing.assert_allclose(session.run(noise(4)[:3]), expected[:3], atol=1e-6)
    with pytest.raises(UsageError, match="takes 4 at a time"):
        session.run(noise(5))


def test_mutated_models_are_refused_or_run_and_nothing_else(tiny, tmp_path):
    original = tiny.model().SerializeToString()
    rng = np.random.default_rng(1)
    path, refused = tmp_path / "model.onnx", 0
    for _ in range(60):
        damaged = bytearray(original)
        damaged[rng.integers(0, len(original))] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(damaged)
        try:
            OpenVinoCpu().open(path, threads=1).run(tiny.images(1))
        except (ArtifactError, UsageError):  # the second: it says that it takes other images
            refused += 1
    assert 30 <= refused < 60


def test_a_name_that_is_no_text_is_told_in_an_error_of_ours(tiny, tmp_path):
    path = tmp_path / "model.onnx"
    content = tiny.model().SerializeToString()
    asked_for = content.rindex(b"scaled")  # as an input; no node gives a result of the damaged name
    path.write_bytes(content[:asked_for] + b"\xff\xff" + content[asked_for + 2 :])
    with pytest.raises(UnicodeDecodeError):
        openvino.Core().read_model(path)
    with pytest.raises(ArtifactError, match=r"OpenVINO cannot open .*model\.onnx"):
        OpenVinoCpu().open(path, threads=1)
