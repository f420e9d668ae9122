"""A stand-in for TensorRT and CUDA that children inherit."""

import contextlib
import sys
from pathlib import Path

import pytest

STAND_IN = Path(__file__).parent / "stand_in"


@contextlib.contextmanager
def stand_ins(cache):
    """Put the stand-ins in front of the real modules, here and in every child process."""
    with pytest.MonkeyPatch.context() as patch:
        forgotten = [name for name in sys.modules if name.partition(".")[0] in ("tensorrt", "cuda")]
        kept = {name: sys.modules.pop(name) for name in forgotten}
        patch.syspath_prepend(str(STAND_IN))
        patch.setenv("TTL_DEPLOY_CACHE", str(cache))
        yield
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tensorrt", "cuda")]:
            del sys.modules[name]
        sys.modules.update(kept)


@pytest.fixture
def stand_in(tmp_path):
    """Run a test as on a machine with TensorRT and a GPU."""
    with stand_ins(tmp_path / "cache"):
        yield
