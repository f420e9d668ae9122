"""ONNX Runtime on the CPU: the numeric reference among the targets, part of every installation.

It runs a file as it is: fp32, or int8 where the file quantises its layers. What really ran is read
from its own profile of one inference: it does not keep every quantised layer of every file in int8.
"""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from ttl_deploy.errors import ArtifactError
from ttl_deploy.runtime.onnx_file import read_onnx_facts
from ttl_deploy.runtime.targets import contract

NAME = "onnxruntime-cpu"
_CAN = ("fp32", "int8")
_LOG_ERRORS_ONLY = 3
_HEAVY = ("Conv", "Gemm", "MatMul")
_PRECISION_OF_TYPE = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8", "int8": "int8"}
_FOREIGN_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    UnicodeDecodeError,  # its message quoted bytes of a damaged name
)


class OnnxRuntimeSession:
    """A model opened in ONNX Runtime.

    Attributes:
        runtime: name and version of the runtime.
        precision: what most convolutions and matrix products were computed in.
        layers: how many of them were executed in each precision.
        height, width: of the images it takes.
        classes: how many probabilities it gives per image.
    """

    def __init__(self, session: onnxruntime.InferenceSession, *, model: Path) -> None:
        self.runtime = OnnxRuntimeCpu.runtime
        self._session = session
        self._input, batch, self.height, self.width = _input_of(session, model)
        self._output, self.classes = _output_of(session, model)
        black = np.zeros((batch, self.height, self.width, 3), np.uint8)
        session.run([self._output], {self._input: black})
        self.layers = _executed_layers(Path(session.end_profiling()))
        self.precision = contract.main_precision(self.layers)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn uint8 images `(N, H, W, 3)` into float32 probabilities `(N, classes)`.

        Raises `UsageError` for any other shape or type.
        """
        contract.check_images(images, height=self.height, width=self.width)
        try:
            (probabilities,) = self._session.run([self._output], {self._input: images})
        except _FOREIGN_ERRORS as error:
            raise ArtifactError(f"ONNX Runtime could not run the model: {error}") from error
        return np.asarray(probabilities, dtype=np.float32)


class OnnxRuntimeCpu:
    """ONNX Runtime with its CPU execution provider and nothing else."""

    runtime = f"onnxruntime {onnxruntime.__version__}"

    def precisions(self) -> tuple[str, ...]:
        """Return what it can run here; a file runs in the one it was exported in."""
        return _CAN

    def build(self, model: Path, folder: Path) -> Path:
        """Return the ONNX file itself: ONNX Runtime optimises it in memory, on opening."""
        return model

    def open(self, model: Path, *, threads: int, precision: str | None = None) -> OnnxRuntimeSession:
        """Open a model file on `threads` threads, and run one black image to see what it is computed in.

        Raises `ArtifactError` for a file it cannot use, `UsageError` for a precision it does not run in.
        """
        contract.check_threads(threads)
        contract.check_request(precision, target=NAME, can=_CAN)
        read_onnx_facts(model)
        try:
            with tempfile.TemporaryDirectory(prefix="ttl-deploy-") as folder:
                session = OnnxRuntimeSession(_profiled(model, threads, Path(folder)), model=model)
        except _FOREIGN_ERRORS as error:
            raise ArtifactError(f"ONNX Runtime cannot open {model}: {error}. Export it again") from error
        contract.check_ran(precision, ran=session.precision, model=model, target=NAME, can=(session.precision,))
        return session


def _profiled(model: Path, threads: int, folder: Path) -> onnxruntime.InferenceSession:
    """Open a session that writes down in `folder` what it executes, until it is told to stop."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"], enable_fallback=0)


def _executed_layers(profile: Path) -> dict[str, int]:
    """Count the executed convolutions and matrix products by the type of their first input."""
    events = json.loads(profile.read_text(encoding="utf-8", errors="replace"))
    kernels = [event["args"] for event in events if event["name"].endswith("_kernel_time")]
    types = [_first_type(kernel) for kernel in kernels if any(part in kernel["op_name"] for part in _HEAVY)]
    return dict(Counter(_PRECISION_OF_TYPE[kind] for kind in types if kind in _PRECISION_OF_TYPE))


def _first_type(kernel: dict[str, Any]) -> str:
    """Return the element type of a kernel's first input: `[{"float": [1, 3, 224, 224]}, …]` gives `float`."""
    return next((kind for given in kernel["input_type_shape"] for kind in given), "")


def _input_of(session: onnxruntime.InferenceSession, model: Path) -> tuple[str, int, int, int]:
    """Return the input's name, a batch size that it takes (its own, or 1 where any will do), height and width."""
    inputs = session.get_inputs()
    if len(inputs) == 1 and inputs[0].type == "tensor(uint8)" and len(inputs[0].shape) == 4:
        batch, height, width, channels = inputs[0].shape
        if isinstance(height, int) and isinstance(width, int) and channels == 3:
            return inputs[0].name, batch if isinstance(batch, int) else 1, height, width
    given = [(part.name, part.type, part.shape) for part in inputs]
    raise ArtifactError(f"{model} takes {given}; an artifact of ttl-deploy takes uint8 images (batch, H, W, 3)")


def _output_of(session: onnxruntime.InferenceSession, model: Path) -> tuple[str, int]:
    outputs = session.get_outputs()
    if len(outputs) == 1 and outputs[0].type == "tensor(float)" and len(outputs[0].shape) == 2:
        classes = outputs[0].shape[1]
        if isinstance(classes, int):
            return outputs[0].name, classes
    given = [(part.name, part.type, part.shape) for part in outputs]
    raise ArtifactError(f"{model} gives {given}; an artifact of ttl-deploy gives float probabilities (batch, classes)")
