"""ONNX Runtime on the CPU: the numeric reference among the targets, part of every installation."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from ttl_deploy.errors import ArtifactError, UsageError
from ttl_deploy.runtime.onnx_file import read_onnx_facts

_LOG_ERRORS_ONLY = 3
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
        precision: `fp32` or `int8` as the file's weights are; for half-precision files
            `fp16 weights` / `bf16 weights`, because this runtime may compute them in fp32.
        height, width: of the images it takes.
        classes: how many probabilities it gives per image.
    """

    def __init__(self, session: onnxruntime.InferenceSession, *, model: Path, precision: str) -> None:
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        self.precision = precision
        self._session = session
        self._input, self.height, self.width = _input_of(session, model)
        self._output, self.classes = _output_of(session, model)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn uint8 images `(N, H, W, 3)` into float32 probabilities `(N, classes)`.

        Raises `UsageError` for any other shape or type.
        """
        expected = (self.height, self.width, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != expected or len(images) == 0:
            raise UsageError(
                f"the model was given {images.dtype} {images.shape}; it takes uint8 RGB images "
                f"(N, {self.height}, {self.width}, 3): decode them with the artifact's own settings"
            )
        try:
            (probabilities,) = self._session.run([self._output], {self._input: images})
        except _FOREIGN_ERRORS as error:
            raise ArtifactError(f"ONNX Runtime could not run the model: {error}") from error
        return np.asarray(probabilities, dtype=np.float32)


class OnnxRuntimeCpu:
    """ONNX Runtime with its CPU execution provider and nothing else."""

    def open(self, model: Path, *, threads: int) -> OnnxRuntimeSession:
        """Open a model file on `threads` threads; raises `ArtifactError` for a file it cannot use."""
        if threads < 1:
            raise UsageError(f"threads = {threads}: at least 1 is needed")
        facts = read_onnx_facts(model)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_ERRORS_ONLY
        precision = facts.weight_precision
        halved = precision in ("fp16", "bf16")
        try:
            session = onnxruntime.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
            return OnnxRuntimeSession(session, model=model, precision=f"{precision} weights" if halved else precision)
        except _FOREIGN_ERRORS as error:
            raise ArtifactError(f"ONNX Runtime cannot open {model}: {error}. Export it again") from error


def _input_of(session: onnxruntime.InferenceSession, model: Path) -> tuple[str, int, int]:
    inputs = session.get_inputs()
    if len(inputs) == 1 and inputs[0].type == "tensor(uint8)" and len(inputs[0].shape) == 4:
        _, height, width, channels = inputs[0].shape
        if isinstance(height, int) and isinstance(width, int) and channels == 3:
            return inputs[0].name, height, width
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
