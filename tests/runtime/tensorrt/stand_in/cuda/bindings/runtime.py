# ruff: noqa: N801, N802, N803, N815  # names are CUDA's own
"""Stands in for `cuda.bindings.runtime` where no GPU is: memory is the host's, and work waits until it is waited for.

Nothing queued happens before `cudaStreamSynchronize`, so that code which forgets to wait reads rubbish, as on a GPU.
`STAND_IN_GPU` names another compute capability, or `none`.
"""

import ctypes
import enum
import os
import time

_memory, _streams, _events = {}, {}, []


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorNotReady = 600


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class cudaDeviceProp:
    def __init__(self):
        capability = os.environ.get("STAND_IN_GPU", "9.0")
        self.name = b"Stand-in GPU"
        self.major, self.minor = (int(part) for part in capability.split("."))


class _Stream(int):
    def __new__(cls):
        stream = super().__new__(cls, len(_streams) + 1)
        stream.queue, stream.captured = [], None
        _streams[int(stream)] = stream
        return stream

    def add(self, work):
        (self.queue if self.captured is None else self.captured).append(work)


class _Event:
    def __init__(self):
        self.time = None


def _ok(*values):
    return (cudaError_t.cudaSuccess, *values) if values else (cudaError_t.cudaSuccess, None)[:1]


def _bad():
    return (cudaError_t.cudaErrorInvalidValue, None)


def enqueue(handle, work):
    """Let the stand-in for TensorRT queue work on a stream."""
    _streams[int(handle)].add(work)


def live_bytes():
    """Return what was allocated and not freed."""
    return sum(len(buffer) for buffer in _memory.values())


def cudaGetDeviceCount():
    return _ok(0 if os.environ.get("STAND_IN_GPU") == "none" else 1)


def cudaGetDeviceProperties(device):
    return _ok(cudaDeviceProp())


def cudaDriverGetVersion():
    return _ok(13000)


def cudaMalloc(size):
    buffer = ctypes.create_string_buffer(b"\xff" * size, size)
    _memory[ctypes.addressof(buffer)] = buffer
    return _ok(ctypes.addressof(buffer))


def cudaMallocHost(size):
    return cudaMalloc(size)


def cudaFree(devPtr):
    return _ok() if _memory.pop(int(devPtr), None) is not None else _bad()


def cudaFreeHost(ptr):
    return cudaFree(ptr)


def cudaMemcpyAsync(dst, src, count, kind, stream):
    if count > min(_room(dst), _room(src)):
        return _bad()
    stream.add(lambda: ctypes.memmove(dst, src, count))
    return _ok()


def _room(address):
    """Return how many bytes are allocated from an address on."""
    return max(
        (start + len(b) - address for start, b in _memory.items() if start <= address < start + len(b)), default=0
    )


def cudaStreamCreate():
    return _ok(_Stream())


def cudaStreamDestroy(stream):
    _streams.pop(int(stream))
    return _ok()


def cudaStreamSynchronize(stream):
    queue, stream.queue = stream.queue, []
    for work in queue:
        work()
    return _ok()


def cudaEventCreate():
    _events.append(_Event())
    return _ok(_events[-1])


def cudaEventDestroy(event):
    _events.remove(event)
    return _ok()


def cudaEventRecord(event, stream):
    def happen():
        event.time = time.perf_counter()

    stream.add(happen)
    return _ok()


def cudaEventElapsedTime(start, end):
    if start.time is None or end.time is None:
        return (cudaError_t.cudaErrorNotReady, None)
    return _ok((end.time - start.time) * 1e3)


def cudaStreamBeginCapture(stream, mode):
    stream.captured = []
    return _ok()


def cudaStreamEndCapture(stream):
    graph, stream.captured = stream.captured, None
    return _ok(graph)


def cudaGraphInstantiate(graph, flags):
    return _ok(tuple(graph))


def cudaGraphDestroy(graph):
    return _ok()


def cudaGraphExecDestroy(graphExec):
    return _ok()


def cudaGraphLaunch(graphExec, stream):
    for work in graphExec:
        stream.add(work)
    return _ok()
