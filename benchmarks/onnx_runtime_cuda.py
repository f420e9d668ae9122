"""ONNX Runtime's CUDA provider, which is no target of the product, measured as targets are; called in children.

Its functions are called by `engines.py`; nothing is stored here. Without torch, which every child would load.
"""

import time
from pathlib import Path
from typing import Any

import onnxruntime

from ttl_deploy import plugins
from ttl_deploy.errors import TargetUnavailableError
from ttl_deploy.runtime.measurement import Measurement, ProcessPlan
from ttl_deploy.runtime.onnx_file import read_onnx_facts
from ttl_deploy.runtime.timing import time_calls

ONNX_RUNTIME = "onnxruntime-cuda"
_PROVIDER = "CUDAExecutionProvider"


def measure_onnx_runtime(plan: ProcessPlan, spawned_s: float) -> Measurement:
    """Measure by ONNX Runtime's CUDA provider, which is no target of the product; runs in a child."""
    session = _open_onnx_runtime(plan.model)
    name = session.get_inputs()[0].name
    began = time.perf_counter()
    session.run(None, {name: plan.images})
    loaded_s = time.perf_counter() - began
    timing = time_calls(
        lambda: session.run(None, {name: plan.images}), plan.timing, round_number=plan.round_number, load_s=loaded_s
    )
    precision = read_onnx_facts(plan.model).weight_precision
    return Measurement(timing=timing, runtime=f"onnxruntime {onnxruntime.__version__} CUDA", precision=precision)


def _open_onnx_runtime(model: Path) -> Any:
    session = onnxruntime.InferenceSession(str(model), providers=[_PROVIDER, "CPUExecutionProvider"])
    if _PROVIDER not in session.get_providers():
        raise TargetUnavailableError(f"ONNX Runtime did not start its {_PROVIDER}: is there a driver?")
    return session


def load(target: str) -> None:
    """Raise `TargetUnavailableError` where a target cannot run here; made for a child."""
    if target != ONNX_RUNTIME:
        plugins.load("targets", target)()
        return
    if _PROVIDER not in onnxruntime.get_available_providers():
        raise TargetUnavailableError(
            f"this ONNX Runtime has no {_PROVIDER}: pip install onnxruntime-gpu in an environment of its own"
        )
