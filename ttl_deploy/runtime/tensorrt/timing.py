"""How fast an engine is, in a fresh process: on the GPU, with transfers, end to end."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttl_deploy import plugins
from ttl_deploy.errors import TargetUnavailableError
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.records.engines import EngineTimes

_TIMEOUT_S = 900.0


def time_engine(
    target: str,
    model: Path,
    images: NDArray[np.uint8],
    *,
    calls: int = 200,
    warmup_calls: int = 50,
    timeout_s: float = _TIMEOUT_S,
) -> EngineTimes:
    """Time one batch of images on a target of the TensorRT kind, such as `tensorrt` or `tensorrt-cuda-graph`.

    Raises what the target raises, and `TargetUnavailableError` where the child crashes or hangs.
    """
    outcome = run_isolated(_time, target, model, images, calls, warmup_calls, timeout_s=timeout_s)
    return value_of(outcome, error=TargetUnavailableError, doing=f"cannot time {model} on {target}")


def _time(target: str, model: Path, images: NDArray[np.uint8], calls: int, warmup_calls: int) -> EngineTimes:
    session = plugins.load("targets", target)().open(model, threads=1)
    times: EngineTimes = session.time(images, calls=calls, warmup_calls=warmup_calls)
    return times
