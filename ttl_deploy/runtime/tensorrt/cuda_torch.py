"""CUDA through torch, where cuda-python is not installed and torch has CUDA: its tensors are the buffers."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import TargetUnavailableError
from ttl_deploy.records.engines import GpuIdentity
from ttl_deploy.runtime.tensorrt.devices import Buffer

_MODULE = "torch"  # imported by name: this wing must load where torch is not


def load_torch() -> Any | None:
    """Return torch where it is installed and was built for CUDA, else None."""
    if find_spec(_MODULE) is None:
        return None
    torch = import_module(_MODULE)
    return torch if torch.version.cuda is not None else None


def identify_by_torch(torch: Any, *, driver: str) -> GpuIdentity:
    """Return the first GPU; raises `TargetUnavailableError` where torch finds none."""
    if not torch.cuda.is_available():
        raise TargetUnavailableError("torch was built for CUDA and finds no GPU: install NVIDIA's driver")
    major, minor = torch.cuda.get_device_capability(0)
    return GpuIdentity(
        name=torch.cuda.get_device_name(0),
        compute_capability=f"{major}.{minor}",
        driver=driver or f"CUDA {torch.version.cuda}",
    )


@dataclass(frozen=True, slots=True)
class _Tensors:
    address: int
    host: NDArray[np.uint8]
    on_gpu: Any
    on_host: Any


class CudaTorch:
    """The first GPU with a stream of its own (see `devices.Device`)."""

    def __init__(self, torch: Any) -> None:
        """Open the GPU; raises `TargetUnavailableError` where there is none."""
        identify_by_torch(torch, driver="")
        self._torch = torch
        self._stream = torch.cuda.Stream()
        self.stream = int(self._stream.cuda_stream)
        self._tensors: list[_Tensors] = []

    def allocate(self, size_bytes: int) -> Buffer:
        """Return a tensor on the GPU with a pinned one beside it."""
        on_gpu = self._torch.empty(size_bytes, dtype=self._torch.uint8, device="cuda")
        on_host = self._torch.empty(size_bytes, dtype=self._torch.uint8, pin_memory=True)
        tensors = _Tensors(on_gpu.data_ptr(), on_host.numpy(), on_gpu, on_host)
        self._tensors.append(tensors)
        return tensors

    def send(self, buffer: Buffer, size_bytes: int) -> None:
        """Queue a copy to the GPU."""
        tensors = self._find(buffer)
        with self._torch.cuda.stream(self._stream):
            tensors.on_gpu[:size_bytes].copy_(tensors.on_host[:size_bytes], non_blocking=True)

    def fetch(self, buffer: Buffer, size_bytes: int) -> None:
        """Queue a copy from the GPU."""
        tensors = self._find(buffer)
        with self._torch.cuda.stream(self._stream):
            tensors.on_host[:size_bytes].copy_(tensors.on_gpu[:size_bytes], non_blocking=True)

    def mark(self) -> Any:
        """Queue an event."""
        event = self._torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event

    def seconds_between(self, start: Any, end: Any) -> float:
        """Return seconds between two events; torch tells milliseconds."""
        return float(start.elapsed_time(end)) / 1e3

    def wait(self) -> None:
        """Wait for the stream."""
        self._stream.synchronize()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record a CUDA graph."""
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph, stream=self._stream):
            work()

        def replay() -> None:
            with self._torch.cuda.stream(self._stream):
                graph.replay()

        return replay

    def close(self) -> None:
        """Let go of the tensors; torch frees them."""
        self._tensors = []

    def _find(self, buffer: Buffer) -> _Tensors:
        return next(tensors for tensors in self._tensors if tensors.address == buffer.address)
