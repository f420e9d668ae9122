"""What every target must do, asked of the TensorRT target on the stand-in: where no GPU is, the contract skips it."""

import pytest

from tests.contracts.test_targets import *  # noqa: F403  # the very tests, with the target below
from ttl_deploy import plugins

pytestmark = pytest.mark.slow


@pytest.fixture(params=["tensorrt", "tensorrt-cuda-graph"])
def target(request, stand_in):
    return plugins.load("targets", request.param)()
