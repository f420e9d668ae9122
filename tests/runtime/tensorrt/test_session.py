"""Engines that run: through the stand-in for TensorRT and CUDA, in child processes, as on a machine with a GPU."""

import itertools

import numpy as np
import pytest

from tests.contracts.small_networks import conv_files, noise
from ttl_deploy import plugins
from ttl_deploy.errors import ArtifactError, TargetUnavailableError, UsageError
from ttl_deploy.records.engines import BatchRange, EngineOptions, EngineRequest
from ttl_deploy.runtime.inference import open_safely
from ttl_deploy.runtime.targets.onnxruntime_cpu import OnnxRuntimeCpu
from ttl_deploy.runtime.tensorrt.engines import make_engine
from ttl_deploy.runtime.tensorrt.session import ON_GPU, WITH_TRANSFERS
from ttl_deploy.runtime.tensorrt.trust import engine_path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return conv_files(tmp_path_factory.mktemp("convolutional"))


@pytest.fixture(scope="module")
def expected(files):
    return OnnxRuntimeCpu().open(files["fp32"], threads=1).run(noise(23))


def test_an_onnx_file_is_built_once_and_answers_from_the_gpu_in_any_batching(stand_in, files, expected, tmp_path):
    session = open_safely("tensorrt", files["fp32"], threads=1)
    assert session.runtime == "tensorrt 11.4.0.106"
    assert (session.precision, dict(session.layers)) == ("fp32", {"fp32": 3})
    for size in (23, 1, 5, 16, 17):  # engines take 16 at once
        np.testing.assert_allclose(session.run(noise(23)[:size]), expected[:size], atol=1e-6)
    (cached,) = (tmp_path / "cache" / "engines").iterdir()
    before = engine_path(cached, "trt").stat().st_mtime_ns
    open_safely("tensorrt", files["fp32"], threads=1)
    assert engine_path(cached, "trt").stat().st_mtime_ns == before


def test_cuda_graphs_give_the_same_answers_for_every_batch_size(stand_in, files, expected):
    session = plugins.load("targets", "tensorrt-cuda-graph")().open(files["fp32"], threads=1)
    for size in (1, 7, 3, 7, 2, 5, 1, 4, 6, 1, 7):  # more shapes than graphs are kept
        np.testing.assert_allclose(session.run(noise(23)[:size]), expected[:size], atol=1e-6)


def test_a_batch_under_the_smallest_is_filled_up_with_black_and_answers_for_its_own_images(
    stand_in, files, expected, tmp_path
):
    options = EngineOptions(batch=BatchRange(smallest=4, usual=4, largest=4))
    make_engine(files["fp32"], tmp_path / "e", EngineRequest(flavour="trt", options=options))
    session = plugins.load("targets", "tensorrt")().open(engine_path(tmp_path / "e", "trt"), threads=1)
    for size in (4, 1, 6):
        np.testing.assert_allclose(session.run(noise(23)[:size]), expected[:size], atol=1e-6)


def test_layers_of_8_and_16_bits_are_read_back_from_the_engine(stand_in, files):
    for precision in ("int8", "fp16"):
        session = plugins.load("targets", "tensorrt")().open(files[precision], threads=1)
        assert (session.precision, dict(session.layers)) == (precision, {precision: 3})
    with pytest.raises(UsageError, match=r"runs .* in int8, and fp16 was asked for"):
        plugins.load("targets", "tensorrt")().open(files["int8"], threads=1, precision="fp16")


def test_everything_on_the_gpu_is_freed_when_a_session_is_closed(stand_in, files):
    target = plugins.load("targets", "tensorrt-cuda-graph")()
    import cuda.bindings.runtime as fake

    session = target.open(files["fp32"], threads=1)
    session.run(noise(2))
    assert fake.live_bytes() == 2 * 16 * (32 * 32 * 3 + 3 * 4)  # on the GPU, and pinned on the host
    session.time_stretches(noise(2), calls=3)
    session.close()
    assert fake.live_bytes() == 0
    assert not fake._events


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-cuda-graph"])
def test_the_network_alone_and_with_transfers_are_timed_apart(stand_in, files, target, monkeypatch):
    import cuda.bindings.runtime as fake

    session = plugins.load("targets", target)().open(files["fp32"], threads=1)
    assert isinstance(session, plugins.TimesStretches)
    for images, batches, words in ((3, 1, ""), (20, 2, ", 2 batches added up")):  # engines take 16 at once
        monkeypatch.setattr(fake.time, "perf_counter", ticks(1e-3))
        times = session.time_stretches(noise(images), calls=7)
        # The clock of the stand-in moves a millisecond with every event: two around the network, four in all.
        assert times[ON_GPU + words] == pytest.approx([1e-3 * batches] * 7)
        assert times[WITH_TRANSFERS + words] == pytest.approx([3e-3 * batches] * 7)


def ticks(step):
    counter = itertools.count()
    return lambda: next(counter) * step


def test_without_a_gpu_the_target_is_not_available_and_says_what_to_do(stand_in, files, monkeypatch):
    monkeypatch.setenv("STAND_IN_GPU", "none")
    with pytest.raises(TargetUnavailableError, match=r"finds no GPU here\. Install NVIDIA's driver") as caught:
        open_safely("tensorrt", files["fp32"], threads=1)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize(
    ("fault", "words"),
    [("returns-nothing", "there is no NVIDIA driver or GPU here"), ("crash", "killed by signal 11")],
)
def test_an_engine_that_does_not_load_is_a_missing_target_with_tensorrts_own_words(
    stand_in, files, monkeypatch, fault, words
):
    monkeypatch.setenv("STAND_IN_FAULT", fault)
    with pytest.raises(TargetUnavailableError, match=words) as caught:
        open_safely("tensorrt", files["fp32"], threads=1)
    assert caught.value.exit_code == 6


def test_images_of_another_kind_are_refused(stand_in, files):
    session = plugins.load("targets", "tensorrt")().open(files["fp32"], threads=1)
    for wrong in (np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 33, 32, 3), np.uint8), noise(2)[:0]):
        with pytest.raises(UsageError, match=r"takes uint8 RGB images \(N, 32, 32, 3\)"):
            session.run(wrong)
        with pytest.raises(UsageError, match=r"takes uint8 RGB images"):
            session.time_stretches(wrong, calls=1)


def test_a_damaged_onnx_file_never_reaches_the_builder(stand_in, files, tmp_path):
    broken = tmp_path / "model.onnx"
    broken.write_bytes(files["fp32"].read_bytes()[:-100])
    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        open_safely("tensorrt", broken, threads=1)
