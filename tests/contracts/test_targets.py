"""What every target of the table must do; one that cannot run here is skipped by name."""

import inspect

import numpy as np
import pytest

from ttl_deploy import plugins
from ttl_deploy.errors import ArtifactError, TargetUnavailableError, UsageError
from ttl_deploy.runtime.targets.contract import PRECISIONS

from .small_networks import conv_files, noise

onnx = pytest.importorskip("onnx")
SIDE = 8
LEAST_DB = {"fp32": 90, "fp16": 40, "bf16": 25, "int8": 15}
WEIGHT = np.array([[3.0, -1.0, 0.0], [-2.0, 2.0, 1.0], [1.0, 0.5, -1.0]], dtype=np.float32)


@pytest.fixture(params=plugins.names("targets"))
def target(request):
    try:
        return plugins.load("targets", request.param)()
    except TargetUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def model_path(tmp_path):
    helper, tensor = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=tensor.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    constants = [
        onnx.numpy_helper.from_array(WEIGHT / 100, "weight"),
        onnx.numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
    ]
    graph = helper.make_graph(
        nodes,
        "contract",
        [helper.make_tensor_value_info("image", tensor.UINT8, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("probabilities", tensor.FLOAT, ["batch", 3])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory):
    """Return a small network of two convolutions and a linear layer: an fp32 file, its fp16 and its int8 twin."""
    return conv_files(tmp_path_factory.mktemp("convolutional"))


def images(count):
    colours = np.random.default_rng(0).integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return np.broadcast_to(colours, (count, SIDE, SIDE, 3)).copy()


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("batch", [1, 5])
def test_a_target_computes_what_numpy_computes(target, model_path, batch):
    given = target.open(model_path, threads=1).run(images(batch))
    expected = softmax(images(batch).mean(axis=(1, 2)) @ WEIGHT.astype(np.float64) / 100)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_a_session_names_its_runtime_with_version_and_its_precision(target, model_path):
    session = target.open(model_path, threads=1)
    name, version = session.runtime.split(" ", 1)
    assert name
    assert version[0].isdigit()
    assert session.precision


def test_the_answer_does_not_depend_on_the_number_of_threads(target, model_path):
    one, two = (target.open(model_path, threads=n).run(images(4)) for n in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, SIDE, SIDE, 3), np.float32),
        np.zeros((SIDE, SIDE, 3), np.uint8),
        np.zeros((1, 3, SIDE, SIDE), np.uint8),
        np.zeros((1, SIDE + 1, SIDE, 3), np.uint8),
        np.zeros((0, SIDE, SIDE, 3), np.uint8),
    ],
)
def test_images_of_another_kind_are_refused_with_what_is_allowed(target, model_path, wrong):
    with pytest.raises(UsageError, match=r"takes uint8 RGB images \(N, 8, 8, 3\)"):
        target.open(model_path, threads=1).run(wrong)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no model" * 20])
def test_a_damaged_model_is_refused(target, model_path, damage):
    model_path.write_bytes(damage(model_path.read_bytes()))
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        target.open(model_path, threads=1)


def test_no_threads_is_a_usage_error(target, model_path):
    with pytest.raises(UsageError, match="at least 1"):
        target.open(model_path, threads=0)


def test_every_target_has_the_whole_surface(target):
    for name in ("precisions", "build", "open"):
        expected = inspect.signature(getattr(plugins.Target, name)).parameters
        given = inspect.signature(getattr(type(target), name)).parameters
        assert list(given) == list(expected)
    assert target.runtime.split(" ")[1][0].isdigit()
    assert set(target.precisions()) <= set(PRECISIONS)
    assert "fp32" in target.precisions()


def test_a_file_runs_in_its_own_precision_unless_another_is_asked_for(target, convolutional):
    for stored in set(convolutional) & set(target.precisions()):
        session = target.open(convolutional[stored], threads=1)
        assert session.precision == stored
        assert set(session.layers) == {stored}
        assert 3 <= session.layers[stored] <= 4


def test_each_precision_of_a_target_runs_and_is_read_back(target, convolutional):
    pictures = noise(4)
    exact = target.open(convolutional["fp32"], threads=1).run(pictures)
    for precision in target.precisions():
        file = convolutional.get(precision, convolutional["fp32"])  # bf16 is computed from fp32
        session = target.open(file, threads=1, precision=precision)
        given = session.run(pictures)
        assert session.precision == precision
        assert session.layers[precision] >= 3
        assert signal_to_noise_db(given, exact) > LEAST_DB[precision]
        assert precision == "fp32" or not np.array_equal(given, exact)


def signal_to_noise_db(given, exact):
    """Return the power of the exact log probabilities over that of the difference, in dB."""
    difference = np.log(given.astype(np.float64)) - np.log(exact)
    return 10 * np.log10(np.mean(np.log(exact) ** 2) / max(np.mean(difference**2), 1e-12))


@pytest.mark.parametrize(("stored", "asked"), [("fp32", "int8"), ("int8", "fp32"), ("int8", "bf16")])
def test_a_precision_the_file_does_not_have_is_refused(target, convolutional, stored, asked):
    with pytest.raises(UsageError, match=rf"{asked}.*can run"):
        target.open(convolutional[stored], threads=1, precision=asked)


def test_an_unknown_precision_is_refused_with_those_there_are(target, model_path):
    with pytest.raises(UsageError, match=r"cannot run fp8 on this machine: it can run fp32"):
        target.open(model_path, threads=1, precision="fp8")


def test_what_a_target_builds_answers_as_the_file_does(target, convolutional, tmp_path):
    for file in convolutional.values():
        built = target.build(file, tmp_path / file.stem)
        assert built == file or built.is_relative_to(tmp_path)
        given, expected = (target.open(path, threads=1).run(noise(3)) for path in (built, file))
        np.testing.assert_allclose(given, expected, atol=1e-6)


def test_batches_of_changing_size_get_the_answers_of_single_images(target, convolutional):
    session, pictures = target.open(convolutional["fp32"], threads=1), noise(9)
    alone = np.concatenate([session.run(picture[None]) for picture in pictures])
    for size in (5, 3, 9, 3, 2, 7, 6, 4, 8, 1):
        np.testing.assert_allclose(session.run(pictures[:size]), alone[:size], atol=1e-6)
