"""CUDA through cuda-python (`cuda.bindings.runtime`): every call returns its error first."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import TargetUnavailableError
from ttl_deploy.records.engines import GpuIdentity
from ttl_deploy.runtime.tensorrt.devices import Buffer

MODULE = "cuda.bindings.runtime"
_NO_DRIVER = "Install NVIDIA's driver, or in a container pass the GPU on (docker run --gpus all)"


def load_runtime() -> Any | None:
    """Return the module, or None where it is not installed."""
    try:
        return import_module(MODULE)
    except ImportError:
        return None


def identify(runtime: Any, *, driver: str) -> GpuIdentity:
    """Return the first GPU; raises `TargetUnavailableError` where there is no driver or no GPU."""
    count = call(runtime, "cudaGetDeviceCount", remedy=_NO_DRIVER)
    if count < 1:
        raise TargetUnavailableError(f"CUDA finds no GPU here. {_NO_DRIVER}")
    facts = call(runtime, "cudaGetDeviceProperties", 0)
    name = facts.name.decode(errors="replace") if isinstance(facts.name, bytes) else str(facts.name)
    cuda = int(call(runtime, "cudaDriverGetVersion"))
    return GpuIdentity(
        name=name.strip("\0 "),
        compute_capability=f"{facts.major}.{facts.minor}",
        driver=driver or f"CUDA {cuda // 1000}.{cuda % 1000 // 10}",
    )


def call(runtime: Any, function: str, *arguments: object, remedy: str = "") -> Any:
    """Call a CUDA function and return its value; raises `TargetUnavailableError` with CUDA's name of the failure."""
    error, *values = getattr(runtime, function)(*arguments)
    if int(error) != 0:
        told = getattr(error, "name", str(error))
        raise TargetUnavailableError(f"CUDA: {function} failed with {told}" + (f". {remedy}" if remedy else ""))
    return values[0] if len(values) == 1 else tuple(values)


@dataclass(frozen=True, slots=True)
class _Memory:
    address: int
    pinned: int
    host: NDArray[np.uint8]


class CudaPython:
    """The first GPU with a stream of its own (see `devices.Device`)."""

    def __init__(self, runtime: Any) -> None:
        """Open the GPU; raises `TargetUnavailableError` where there is none."""
        self._cuda = runtime
        identify(runtime, driver="")
        self._stream = self._call("cudaStreamCreate")
        self.stream = int(self._stream)
        self._memory: list[_Memory] = []
        self._graphs: list[Any] = []
        self._events: list[Any] = []

    def allocate(self, size_bytes: int) -> Buffer:
        """Return memory on the GPU, and pinned memory on the host beside it."""
        address = int(self._call("cudaMalloc", size_bytes))
        pinned = int(self._call("cudaMallocHost", size_bytes))
        host = np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(pinned))
        memory = _Memory(address, pinned, host)
        self._memory.append(memory)
        return memory

    def send(self, buffer: Buffer, size_bytes: int) -> None:
        """Queue a copy to the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", buffer.address, buffer.host.ctypes.data, size_bytes, kind, self._stream)

    def fetch(self, buffer: Buffer, size_bytes: int) -> None:
        """Queue a copy from the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", buffer.host.ctypes.data, buffer.address, size_bytes, kind, self._stream)

    def mark(self) -> Any:
        """Queue an event."""
        event = self._call("cudaEventCreate")
        self._events.append(event)
        self._call("cudaEventRecord", event, self._stream)
        return event

    def seconds_between(self, start: Any, end: Any) -> float:
        """Return seconds between two events; CUDA tells milliseconds."""
        return float(self._call("cudaEventElapsedTime", start, end)) / 1e3

    def wait(self) -> None:
        """Wait for the stream."""
        self._call("cudaStreamSynchronize", self._stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record a CUDA graph: only this thread's calls to this stream are in it."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            work()
        finally:
            graph = self._call("cudaStreamEndCapture", self._stream)
        ready = self._call("cudaGraphInstantiate", graph, 0)
        self._call("cudaGraphDestroy", graph)
        self._graphs.append(ready)
        return lambda: self._call("cudaGraphLaunch", ready, self._stream)

    def close(self) -> None:
        """Free graphs, events, memory and the stream."""
        for event in self._events:
            self._call("cudaEventDestroy", event)
        for graph in self._graphs:
            self._call("cudaGraphExecDestroy", graph)
        for memory in self._memory:
            self._call("cudaFree", memory.address)
            self._call("cudaFreeHost", memory.pinned)
        self._graphs, self._memory, self._events = [], [], []
        self._call("cudaStreamDestroy", self._stream)

    def _call(self, function: str, *arguments: object) -> Any:
        return call(self._cuda, function, *arguments)
