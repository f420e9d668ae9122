"""OpenVINO on the CPU: fp32, bf16 where the processor has instructions for it, and int8 files.

OpenVINO runs bf16 unasked on such processors; here a file runs in its own precision unless bf16 is
asked for. What really ran is read back from the compiled model, layer by layer. Compiling has been
seen to crash (a DenseNet whose concatenations are quantised, 2026.4.1): open files that were not
compiled here before through `runtime.inference.open_safely`.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from ttl_deploy.errors import ArtifactError, TargetUnavailableError, UsageError
from ttl_deploy.files import make_folder
from ttl_deploy.runtime.ir_file import read_ir_facts
from ttl_deploy.runtime.onnx_file import read_onnx_facts
from ttl_deploy.runtime.targets import contract

NAME = "openvino-cpu"
_IR = "model.xml"
_DEVICE = "CPU"
_HEAVY = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
_PRECISION_OF_TYPE = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
_HINTS = {"fp32": "f32", "bf16": "bf16"}
_KEPT_BATCH_SIZES = 4
_FOREIGN_ERRORS = (RuntimeError, UnicodeDecodeError)  # the second where its message quotes bytes of a damaged name


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A model compiled for one batch size, with the memory that it reads `images` from and writes `answers` to.

    The memory is made once: new memory for the images of every call cost 0.1 ms of 7 (MobileNetV2, 224 px).
    """

    request: openvino.InferRequest
    images: NDArray[np.uint8]
    answers: NDArray[np.float32]


class OpenVinoSession:
    """A model opened in OpenVINO, compiled for each batch size that it meets (static shapes run faster).

    A batch size smaller than a compiled one is filled up with black images when it comes for the
    first time, as the end of a folder does, and compiled when it comes again. Calls from several threads wait for
    each other.

    Attributes:
        runtime: name and version of the runtime.
        precision: what most convolutions and matrix products are computed in.
        layers: how many of them are executed in each precision.
        height, width: of the images it takes.
        classes: how many probabilities it gives per image.
    """

    def __init__(self, core: openvino.Core, model: openvino.Model, path: Path, settings: dict[str, Any]) -> None:
        self.runtime = OpenVinoCpu.runtime
        self._core, self._model, self._path, self._settings = core, model, path, settings
        self._batch, self.height, self.width = _input_of(model, path)
        self.classes = _output_of(model, path)
        self._compiled: OrderedDict[int, Compiled] = OrderedDict()
        self._seen: set[int] = set()
        self._lock = Lock()
        first = self._compile_for(self._batch or 1)
        self.layers = _executed_layers(first.request.get_compiled_model())
        self.precision = contract.main_precision(self.layers)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn uint8 images `(N, H, W, 3)` into float32 probabilities `(N, classes)`; both are the caller's own.

        Raises `UsageError` for any other shape or type.
        """
        contract.check_images(images, height=self.height, width=self.width)
        count = len(images)
        with self._lock:  # the memory of images and answers is shared by all calls
            try:
                compiled = self._compile_for(self._size_for(count))
                compiled.images[:count] = images
                compiled.images[count:] = 0
                compiled.request.infer(share_outputs=True)
            except _FOREIGN_ERRORS as error:
                raise ArtifactError(f"OpenVINO could not run {self._path}: {_last_words(error)}") from error
            return compiled.answers[:count].copy()

    def _size_for(self, count: int) -> int:
        """Choose the compiled batch size that runs `count` images."""
        if count in self._compiled:
            return count
        if self._batch is not None and count > self._batch:
            raise UsageError(f"{count} images were given; {self._path} takes {self._batch} at a time")
        bigger = [size for size in self._compiled if size >= count]
        if self._batch is not None or count in self._seen or not bigger:
            return self._batch or count
        self._seen.add(count)
        return min(bigger)

    def _compile_for(self, size: int) -> Compiled:
        """Return what runs batches of `size`, compiled if it is new; the one unused for longest makes room."""
        if size not in self._compiled:
            self._model.reshape([size, self.height, self.width, 3])
            compiled = self._core.compile_model(self._model, _DEVICE, self._settings)
            self._compiled[size] = _with_memory(compiled.create_infer_request(), classes=self.classes)
            if len(self._compiled) > _KEPT_BATCH_SIZES:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(size)
        return self._compiled[size]


class OpenVinoCpu:
    """OpenVINO with its CPU plug-in."""

    runtime = f"openvino {openvino.__version__.partition('-')[0]}"

    def precisions(self) -> tuple[str, ...]:
        """Return what it can run on this processor; bf16 only where there are instructions for it."""
        told = openvino.Core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        return tuple(precision for precision in ("fp32", "bf16", "int8") if precision.upper() in told)

    def build(self, model: Path, folder: Path) -> Path:
        """Write OpenVINO's own files, `model.xml` and `model.bin`, with all bits of the weights; returns the first."""
        read_onnx_facts(model)
        target = make_folder(folder) / _IR
        try:
            openvino.save_model(openvino.Core().read_model(model), target, compress_to_fp16=False)
        except _FOREIGN_ERRORS as error:
            raise ArtifactError(f"OpenVINO cannot convert {model}: {_last_words(error)}. Export it again") from error
        return target

    def open(self, model: Path, *, threads: int, precision: str | None = None) -> OpenVinoSession:
        """Open an ONNX file, or `model.xml` with `model.bin` beside it, and compile it for one image.

        Raises `ArtifactError` for a file it cannot use, `UsageError` for a precision it does not run in.
        """
        contract.check_threads(threads)
        can = self.precisions()
        contract.check_request(precision, target=NAME, can=can)
        _check_file(model)
        core, settings = openvino.Core(), _settings(threads, precision)
        try:
            session = OpenVinoSession(core, core.read_model(model), model, settings)
        except _FOREIGN_ERRORS as error:
            raise ArtifactError(f"OpenVINO cannot open {model}: {_last_words(error)}. Export it again") from error
        _refuse_halves(session, model, precision)
        file_can = ("int8",) if session.precision == "int8" else tuple(name for name in can if name in _HINTS)
        contract.check_ran(precision, ran=session.precision, model=model, target=NAME, can=file_can)
        return session


def _with_memory(request: openvino.InferRequest, *, classes: int) -> Compiled:
    """Give a request memory of ours for its images and answers, and keep views of it as arrays."""
    shape = request.get_input_tensor(0).shape
    images = openvino.Tensor(openvino.Type.u8, shape)
    answers = openvino.Tensor(openvino.Type.f32, openvino.Shape([shape[0], classes]))
    request.set_input_tensor(0, images)
    request.set_output_tensor(0, answers)
    return Compiled(request=request, images=images.data, answers=answers.data)


def _settings(threads: int, precision: str | None) -> dict[str, Any]:
    """Return the settings for one image at a time with as little delay as `threads` allow."""
    return {
        # Anything but fp32 must be asked for: OpenVINO's own choice is bf16 wherever the processor has it.
        "INFERENCE_PRECISION_HINT": _HINTS.get(precision or "fp32", "f32"),
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned, two processes with one thread each would share the same core.
        "ENABLE_CPU_PINNING": False,
    }


def _refuse_halves(session: OpenVinoSession, model: Path, precision: str | None) -> None:
    """Refuse layers in 16 bits that nobody asked for."""
    halves = sum(session.layers.get(half, 0) for half in ("bf16", "fp16"))
    if halves and precision != "bf16":
        raise TargetUnavailableError(
            f"{session.runtime} runs {halves} layers of {model} in 16 bits although it was told not to: "
            "use onnxruntime-cpu, or another version of OpenVINO"
        )


def _check_file(model: Path) -> None:
    """Refuse a file that we would never write before native code reads it."""
    if model.suffix == ".xml":
        read_ir_facts(model)
    else:
        read_onnx_facts(model)


def _executed_layers(compiled: openvino.CompiledModel) -> dict[str, int]:
    """Count the convolutions and matrix products of the compiled graph by the type they are executed in."""
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    types = [fact["runtimePrecision"].astype(str) for fact in facts if fact["layerType"].astype(str) in _HEAVY]
    return dict(Counter(_PRECISION_OF_TYPE.get(kind, kind) for kind in types))


def _input_of(model: openvino.Model, path: Path) -> tuple[int | None, int, int]:
    """Return the batch size (None where any will do), height and width of the images."""
    if len(model.inputs) == 1 and model.inputs[0].element_type == openvino.Type.u8:
        shape = model.inputs[0].partial_shape
        if len(shape) == 4 and all(shape[axis].is_static for axis in (1, 2, 3)) and shape[3].get_length() == 3:
            batch = shape[0].get_length() if shape[0].is_static else None
            return batch, shape[1].get_length(), shape[2].get_length()
    given = [(part.any_name, part.element_type.get_type_name(), str(part.partial_shape)) for part in model.inputs]
    raise ArtifactError(f"{path} takes {given}; an artifact of ttl-deploy takes uint8 images (batch, H, W, 3)")


def _output_of(model: openvino.Model, path: Path) -> int:
    """Return the number of classes."""
    if len(model.outputs) == 1 and model.outputs[0].element_type == openvino.Type.f32:
        shape = model.outputs[0].partial_shape
        if len(shape) == 2 and shape[1].is_static:
            return int(shape[1].get_length())
    given = [(part.element_type.get_type_name(), str(part.partial_shape)) for part in model.outputs]
    raise ArtifactError(f"{path} gives {given}; an artifact of ttl-deploy gives float probabilities (batch, classes)")


def _last_words(error: RuntimeError | UnicodeDecodeError) -> str:
    """Return the last line that says something: OpenVINO puts its own source lines in front."""
    text = error.object.decode(errors="replace") if isinstance(error, UnicodeDecodeError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
