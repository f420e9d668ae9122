"""CUDA through torch, with torch's own tensors on the CPU in place of those on a GPU."""

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest

from ttl_deploy.errors import TargetUnavailableError
from ttl_deploy.runtime.tensorrt import cuda_torch, devices

torch = pytest.importorskip("torch")


class _Event:
    def __init__(self, enable_timing):
        assert enable_timing

    def record(self, stream):
        stream.clock += 1
        self.at = stream.clock

    def elapsed_time(self, end):
        return float(end.at - self.at)


class _Stream:
    cuda_stream, clock = 7, 0

    def synchronize(self):
        self.clock += 1


class _Graph:
    def replay(self):
        self.replayed = True


@pytest.fixture
def gpu():
    """Return torch as far as it is used, on the CPU."""

    def empty(size, *, dtype, device="cpu", pin_memory=False):
        assert (device == "cuda") != pin_memory
        return torch.full((size,), 9, dtype=dtype)

    cuda = SimpleNamespace(
        is_available=lambda: True,
        get_device_capability=lambda device: (8, 6),
        get_device_name=lambda device: "RTX",
        Stream=_Stream,
        Event=_Event,
        CUDAGraph=_Graph,
        stream=lambda stream: contextlib.nullcontext(),
        graph=lambda graph, stream: contextlib.nullcontext(),
    )
    return SimpleNamespace(cuda=cuda, empty=empty, uint8=torch.uint8, version=SimpleNamespace(cuda="13.0"))


def test_bytes_go_to_the_gpu_and_come_back(gpu):
    device = cuda_torch.CudaTorch(gpu)
    buffer = device.allocate(6)
    assert device.stream == 7
    buffer.host[:] = np.arange(6)
    device.send(buffer, 4)
    buffer.host[:] = 0
    device.fetch(buffer, 6)
    device.wait()
    assert buffer.host.tolist() == [0, 1, 2, 3, 9, 9]
    assert buffer.address == device._tensors[0].on_gpu.data_ptr()


def test_events_and_graphs_are_torchs(gpu):
    device = cuda_torch.CudaTorch(gpu)
    start, done = device.mark(), []
    replay = device.record(lambda: done.append(1))
    assert device.seconds_between(start, device.mark()) == pytest.approx(1e-3)
    assert done == [1]
    replay()
    device.close()


def test_the_gpu_is_named_by_torch_and_its_absence_told(gpu):
    found = cuda_torch.identify_by_torch(gpu, driver="")
    assert (found.name, found.compute_capability, found.driver) == ("RTX", "8.6", "CUDA 13.0")
    gpu.cuda.is_available = lambda: False
    with pytest.raises(TargetUnavailableError, match="finds no GPU"):
        cuda_torch.CudaTorch(gpu)


def test_without_any_binding_what_to_install_is_told(monkeypatch):
    from ttl_deploy.runtime.tensorrt import cuda_python

    monkeypatch.setattr(cuda_python, "load_runtime", lambda: None)
    monkeypatch.setattr(cuda_torch, "load_torch", lambda: None)
    for ask in (devices.open_device, devices.require_gpu):
        with pytest.raises(TargetUnavailableError, match="pip install cuda-bindings"):
            ask()
    assert devices.find_gpu() is None


def test_the_drivers_version_is_read_from_the_kernel(tmp_path, monkeypatch):
    told = tmp_path / "version"
    told.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:00:00 UTC 2025\nGCC 12.2.0"
    )
    monkeypatch.setattr(devices, "_DRIVER_FILES", (tmp_path / "missing", told))
    assert devices.driver_version() == "580.65.06"
    told.write_text("nothing")
    assert devices.driver_version() == ""
