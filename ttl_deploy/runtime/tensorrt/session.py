"""An engine that is loaded and ready to answer: pinned buffers, one stream, and if wanted CUDA graphs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import ArtifactError, TargetUnavailableError
from ttl_deploy.runtime.targets import contract
from ttl_deploy.runtime.tensorrt.devices import Device
from ttl_deploy.runtime.tensorrt.flavours import PACKAGES, version_of
from ttl_deploy.runtime.tensorrt.inspector import executed_layers
from ttl_deploy.runtime.tensorrt.trust import TrustedEngine, deserialise

ON_GPU = "GPU: the network alone, between events"
WITH_TRANSFERS = "GPU with transfers: from the first byte to the GPU to the last byte from it, between events"
_FLOAT_BYTES = 4
_KEPT_GRAPHS = 4


class TensorRtSession:
    """An engine on the GPU. Any number of images goes: more than it takes at once are cut into several batches.

    Attributes:
        runtime: name and version of the flavour.
        precision: what most convolutions and matrix products are computed in; where the inspector does not tell, the
            type that most of the ONNX file's weights have, which a strongly typed network keeps to.
        layers: how many of them the inspector shows in each type.
        height, width: of the images it takes.
        classes: how many probabilities it gives per image.
    """

    runtime: str
    precision: str
    layers: Mapping[str, int]

    def __init__(self, engine: TrustedEngine, path: Path, device: Device, *, cuda_graph: bool) -> None:
        """Load the engine; raises what `deserialise` raises, and `ArtifactError` for one that is not ours."""
        self._trt, self._runtime, self._engine = deserialise(engine, path)
        package = PACKAGES[engine.manifest.flavour]
        self.runtime = f"{package.module.replace('_', '-')} {version_of(self._trt)}"
        self._device, self._path, self._cuda_graph = device, path, cuda_graph
        self._input, self.height, self.width = self._find_input()
        self._output, self.classes = self._find_output()
        smallest, _, largest = self._engine.get_tensor_profile_shape(self._input, 0)
        self._smallest, self._largest = int(smallest[0]), int(largest[0])
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise TargetUnavailableError(f"{self.runtime} has no room to run {path}: free some of the GPU's memory")
        self._given = device.allocate(self._largest * self._image_bytes)
        self._answers = device.allocate(self._largest * self._answer_bytes)
        self._graphs: dict[int, Callable[[], None]] = {}
        self._shape = 0
        self.layers = self._inspect()
        self.precision = contract.main_precision(self.layers) if self.layers else engine.manifest.precision

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn uint8 images `(N, H, W, 3)` into float32 probabilities `(N, classes)`.

        Raises `UsageError` for any other shape or type.
        """
        contract.check_images(images, height=self.height, width=self.width)
        batches = [images[start : start + self._largest] for start in range(0, len(images), self._largest)]
        return np.concatenate([self._run(batch) for batch in batches])

    def time_stretches(self, images: NDArray[np.uint8], *, calls: int) -> dict[str, tuple[float, ...]]:
        """Run images `(N, H, W, 3)` so often with events around; returns seconds per call by boundary.

        More images than the engine takes at once are several batches, whose times are added up, as the boundary then
        says. Apart from calls whose whole time is wanted: events in between would lengthen that.
        """
        self.run(images)
        counts = [len(images[start : start + self._largest]) for start in range(0, len(images), self._largest)]
        marked = [[self._run_marked(count) for count in counts] for _ in range(calls)]
        parts = f", {len(counts)} batches added up" if len(counts) > 1 else ""
        return {
            ON_GPU + parts: tuple(sum(gpu for gpu, _ in call) for call in marked),
            WITH_TRANSFERS + parts: tuple(sum(whole for _, whole in call) for call in marked),
        }

    def close(self) -> None:
        """Free the GPU's memory; the session is of no use afterwards."""
        self._graphs = {}
        self._device.close()

    @property
    def _image_bytes(self) -> int:
        return int(self.height * self.width * 3)

    @property
    def _answer_bytes(self) -> int:
        return int(self.classes * _FLOAT_BYTES)

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        count = max(len(images), self._smallest)
        filled = self._given.host[: count * self._image_bytes].reshape(count, self.height, self.width, 3)
        filled[: len(images)] = images
        filled[len(images) :] = 0  # a batch under the engine's smallest is filled up with black
        self._device.send(self._given, count * self._image_bytes)
        self._compute(count)
        self._device.fetch(self._answers, count * self._answer_bytes)
        self._device.wait()
        answers = self._answers.host[: count * self._answer_bytes].view(np.float32).reshape(count, self.classes)
        return answers[: len(images)].copy()

    def _run_marked(self, images: int) -> tuple[float, float]:
        """Run what lies in the buffers; returns seconds on the GPU, and with transfers."""
        device, count = self._device, max(images, self._smallest)
        begin = device.mark()
        device.send(self._given, count * self._image_bytes)
        start = device.mark()
        self._compute(count)
        end = device.mark()
        device.fetch(self._answers, count * self._answer_bytes)
        done = device.mark()
        device.wait()
        return device.seconds_between(start, end), device.seconds_between(begin, done)

    def _compute(self, count: int) -> None:
        """Queue the network on what lies on the GPU."""
        if self._cuda_graph and self._can_be_recorded():
            self._graph(count)()
        else:
            self._shape_for(count)
            self._enqueue()

    def _graph(self, count: int) -> Callable[[], None]:
        """Return a recorded graph for a batch size; the first call of a shape lets TensorRT set itself up before."""
        if count not in self._graphs:
            self._shape_for(count)
            self._enqueue()
            self._device.wait()
            if len(self._graphs) >= _KEPT_GRAPHS:
                self._graphs.pop(next(iter(self._graphs)))
            self._graphs[count] = self._device.record(self._enqueue)
        return self._graphs[count]

    def _can_be_recorded(self) -> bool:
        """TensorRT for RTX alone says so; what TensorRT runs of convolutional networks always can be."""
        tell = getattr(self._context, "is_stream_capturable", None)
        return tell is None or bool(tell(self._device.stream))

    def _shape_for(self, count: int) -> None:
        if count == self._shape:
            return
        taken = self._context.set_input_shape(self._input, (count, self.height, self.width, 3))
        for name, buffer in ((self._input, self._given), (self._output, self._answers)):
            taken = self._context.set_tensor_address(name, buffer.address) and taken
        if not taken:
            raise TargetUnavailableError(f"{self.runtime} does not take {count} images in {self._path}")
        self._shape = count

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._device.stream):
            raise TargetUnavailableError(f"{self.runtime} could not run {self._path}: build it again on this machine")

    def _tensors(self, mode: Any) -> list[str]:
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        return [name for name in names if self._engine.get_tensor_mode(name) == mode]

    def _find_input(self) -> tuple[str, int, int]:
        names = self._tensors(self._trt.TensorIOMode.INPUT)
        if len(names) == 1 and self._engine.get_tensor_dtype(names[0]) == self._trt.DataType.UINT8:
            shape = tuple(self._engine.get_tensor_shape(names[0]))
            if len(shape) == 4 and shape[3] == 3 and min(shape[1:]) > 0:
                return names[0], int(shape[1]), int(shape[2])
        raise ArtifactError(f"{self._path} takes {names}; an engine of ttl-deploy takes uint8 images (batch, H, W, 3)")

    def _find_output(self) -> tuple[str, int]:
        names = self._tensors(self._trt.TensorIOMode.OUTPUT)
        if len(names) == 1 and self._engine.get_tensor_dtype(names[0]) == self._trt.DataType.FLOAT:
            shape = tuple(self._engine.get_tensor_shape(names[0]))
            if len(shape) == 2 and shape[1] > 0:
                return names[0], int(shape[1])
        raise ArtifactError(f"{self._path} gives {names}; an engine of ttl-deploy gives probabilities (batch, classes)")

    def _inspect(self) -> dict[str, int]:
        report = self._engine.create_engine_inspector().get_engine_information(self._trt.LayerInformationFormat.JSON)
        return executed_layers(report)
