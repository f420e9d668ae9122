"""The graphics cards of this machine, through NVML or `nvidia-smi`; a Jetson's GPU is none of them."""

import importlib
import shutil
from collections.abc import Callable
from typing import Any

from ttl_deploy.records.hardware import Gpu
from ttl_deploy.runtime.commands import Ask, ask

_ASKED = ("name", "memory.total", "driver_version", "compute_cap")
NO_DRIVER = "no NVIDIA driver: neither NVML (nvidia-ml-py) nor nvidia-smi is here"
_QUERY = ("nvidia-smi", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader,nounits")


def find_gpus(
    *, ask: Ask = ask, find_command: Callable[[str], str | None] = shutil.which
) -> tuple[tuple[Gpu, ...], str]:
    """Return the cards, and in words why there is none."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return _find_by_command(ask, find_command)
    try:
        nvml.nvmlInit()
        return tuple(_describe(nvml, index) for index in range(nvml.nvmlDeviceGetCount())), ""
    except nvml.NVMLError as error:
        return (), f"NVML does not answer ({error})"


def _describe(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(
        name=nvml.nvmlDeviceGetName(handle),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        driver=nvml.nvmlSystemGetDriverVersion(),
        capability=f"{major}.{minor}",
    )


def _find_by_command(ask: Ask, find_command: Callable[[str], str | None]) -> tuple[tuple[Gpu, ...], str]:
    if find_command("nvidia-smi") is None:
        return (), NO_DRIVER
    rows = [[cell.strip() for cell in line.split(",")] for line in ask(_QUERY).splitlines()]
    cards = tuple(_from_row(row) for row in rows if len(row) == len(_ASKED))
    return cards, "" if cards else "nvidia-smi is here and names no card: the driver does not answer"


def _from_row(row: list[str]) -> Gpu:
    """Make a record of a row; the memory is in MiB, and `[N/A]` where the driver does not tell."""
    name, memory, driver, capability = row
    size = int(memory) << 20 if memory.isdecimal() else None
    return Gpu(name=name, memory_bytes=size, driver=driver, capability=capability)
