"""On a real GPU, with whichever flavour is installed: what the stand-in cannot show."""

import numpy as np
import pytest

from tests.contracts.small_networks import conv_files, noise
from ttl_deploy import plugins
from ttl_deploy.errors import TargetUnavailableError
from ttl_deploy.runtime.targets.onnxruntime_cpu import OnnxRuntimeCpu
from ttl_deploy.runtime.tensorrt.timing import time_engine

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
    times = time_engine(target, conv_files(tmp_path)["fp32"], noise(4), calls=50, warmup_calls=20)
    gpu, transfers, whole = (np.median(part) for part in (times.gpu_s, times.with_transfers_s, times.end_to_end_s))
    assert 0 < gpu < transfers < whole
