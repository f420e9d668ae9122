"""On a real GPU, with whichever flavour is installed: what the stand-in cannot show."""

import timeit

import numpy as np
import pytest

from tests.contracts.small_networks import conv_files, noise
from ttl_deploy import plugins
from ttl_deploy.errors import TargetUnavailableError
from ttl_deploy.runtime.targets.onnxruntime_cpu import OnnxRuntimeCpu
from ttl_deploy.runtime.tensorrt.session import ON_GPU, WITH_TRANSFERS

pytestmark = pytest.mark.gpu


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def target(request):
    try:
        plugins.load("targets", request.param)()
    except TargetUnavailableError as error:
        pytest.skip(str(error))
    return request.param


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-4), ("fp16", 2e-2), ("int8", 1e-1)])
def test_engines_say_what_the_cpu_says_with_and_without_cuda_graphs(target, precision, limit, tmp_path):
    files, images = conv_files(tmp_path), noise(9)
    expected = OnnxRuntimeCpu().open(files[precision], threads=1).run(images)
    plain, graph = (
        plugins.load("targets", name)().open(files[precision], threads=1) for name in (target, f"{target}-cuda-graph")
    )
    assert plain.precision == precision
    given = plain.run(images)
    assert np.abs(given - expected).max() < limit
    np.testing.assert_array_equal(given, graph.run(images))


def test_times_on_a_gpu_are_ordered_by_their_boundaries(target, tmp_path):
    session = plugins.load("targets", target)().open(conv_files(tmp_path)["fp32"], threads=1)
    images = noise(4)
    for _ in range(20):
        session.run(images)
    times = session.time_stretches(images, calls=50)
    whole = timeit.repeat(lambda: session.run(images), number=1, repeat=50)
    gpu, transfers = (np.median(times[boundary]) for boundary in (ON_GPU, WITH_TRANSFERS))
    assert 0 < gpu < transfers < np.median(whole)
