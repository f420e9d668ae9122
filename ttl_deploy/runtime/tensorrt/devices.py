"""The GPU of this machine as CUDA sees it, and memory, copies, events and graphs on it.

Two providers: `cuda-python`, which the target machine installs, and torch where that alone is there with CUDA.
Neither is loaded before it is needed. Everything that is queued goes to one stream, in order.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import TargetUnavailableError
from ttl_deploy.records.engines import GpuIdentity

_DRIVER_FILES = (Path("/proc/driver/nvidia/version"), Path("/sys/module/nvidia/version"))
_DRIVER_VERSION = re.compile(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b")


class Buffer(Protocol):
    """Bytes on the GPU at `address`, and as many in the host's memory that the GPU copies from and to by itself."""

    @property
    def address(self) -> int:
        """Where the bytes begin on the GPU."""
        ...

    @property
    def host(self) -> NDArray[np.uint8]:
        """The bytes in the host's memory."""
        ...


class Device(Protocol):
    """A GPU with one stream; `stream` is its handle. Raises `TargetUnavailableError` with CUDA's own words."""

    stream: int

    def allocate(self, size_bytes: int) -> Buffer:
        """Return memory on the GPU with pinned memory on the host beside it, freed when the device is closed."""
        ...

    def send(self, buffer: Buffer, size_bytes: int) -> None:
        """Queue a copy of a buffer's first bytes from the host to the GPU."""
        ...

    def fetch(self, buffer: Buffer, size_bytes: int) -> None:
        """Queue a copy of a buffer's first bytes from the GPU to the host."""
        ...

    def mark(self) -> Any:
        """Queue an event, and return it."""
        ...

    def seconds_between(self, start: Any, end: Any) -> float:
        """Return the time between two events that have happened."""
        ...

    def wait(self) -> None:
        """Wait until everything queued is done."""
        ...

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what `work` queues as a CUDA graph, and return what queues the whole of it again."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


def open_device() -> Device:
    """Return the first GPU, through cuda-python or else torch.

    Raises `TargetUnavailableError` saying whether a binding, the driver or the GPU is missing.
    """
    from ttl_deploy.runtime.tensorrt.cuda_python import CudaPython, load_runtime
    from ttl_deploy.runtime.tensorrt.cuda_torch import CudaTorch, load_torch

    runtime = load_runtime()
    if runtime is not None:
        return CudaPython(runtime)
    torch = load_torch()
    if torch is not None:
        return CudaTorch(torch)
    raise TargetUnavailableError(_NO_BINDING)


def require_gpu() -> GpuIdentity:
    """Return the first GPU; raises `TargetUnavailableError` saying what is missing."""
    from ttl_deploy.runtime.tensorrt.cuda_python import identify, load_runtime
    from ttl_deploy.runtime.tensorrt.cuda_torch import identify_by_torch, load_torch

    runtime = load_runtime()
    if runtime is not None:
        return identify(runtime, driver=driver_version())
    torch = load_torch()
    if torch is not None:
        return identify_by_torch(torch, driver=driver_version())
    raise TargetUnavailableError(_NO_BINDING)


def find_gpu() -> GpuIdentity | None:
    """Return the first GPU, or None where there is none that could be used."""
    try:
        return require_gpu()
    except TargetUnavailableError:
        return None


def driver_version() -> str:
    """Return the kernel driver's version, such as `580.65.06`; empty where the system does not tell."""
    for path in _DRIVER_FILES:
        try:
            found = _DRIVER_VERSION.search(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found:
            return found.group(1)
    return ""


_NO_BINDING = (
    "no CUDA binding is installed: pip install cuda-bindings (the part of cuda-python that ttl-deploy uses), or a "
    "torch with CUDA"
)
