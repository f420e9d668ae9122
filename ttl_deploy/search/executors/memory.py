"""How much memory tasks need and a device has: so that several small trainings share it, and large ones do not."""

import ctypes
import gc
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from ttl_deploy.errors import TargetUnavailableError
from ttl_deploy.models.cost.training_memory import PROCESS_BYTES, estimate_inference_bytes, estimate_training_bytes
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.records.models import FULL, ModelSpec
from ttl_deploy.records.trials import Trial
from ttl_deploy.runtime.machine import usable_cores
from ttl_deploy.search.executors import Place
from ttl_deploy.training import evaluation

MOST_ON_GPU = 4
"""Trainings that share a GPU at most, unless the user says otherwise.

Processes take turns on a GPU: sharing fills the gaps that a small training leaves while its process prepares the next
kernels. A few fill them; each further one costs a context in memory and a core (`benchmarks/gpu.py` measures it).
"""
USABLE_SHARE = 0.85
"""The share of the free memory that tasks are planned into: estimates know no workspaces and no fragmentation."""
UNKNOWN_BYTES = sys.maxsize
"""The need of a task that cannot be estimated: it runs alone."""
_ROLLBACK_COPIES = 3
"""Weights and moments that a training keeps in main memory, to go back to the epoch's beginning."""
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_QUERY_S = 120.0


def find_places(devices: Sequence[torch.device], workers: int | None) -> tuple[Place, ...]:
    """Return the places that a search trains at: some devices, with the memory that they have at the moment.

    `workers` are trainings side by side on all devices together, spread evenly, the first ones getting what is
    left over; a device that gets none is left out. None is `default_workers` on each, within the machine's
    cores. Where one training runs at a time its memory does not count, and is not asked for.
    """
    distinct = tuple(dict.fromkeys(devices))
    if workers is None:
        cores = max(1, usable_cores() // len(distinct))
        shares = [min(default_workers(device), cores) for device in distinct]
    else:
        shares = [workers // len(distinct) + (n < workers % len(distinct)) for n in range(len(distinct))]
    return tuple(
        Place(device=str(device), workers=share, memory_bytes=find_budget(device) if share > 1 else None)
        for device, share in zip(distinct, shares, strict=True)
        if share
    )


def default_workers(device: torch.device) -> int:
    """Return how many trainings run side by side on one device, as far as their memory allows."""
    if device.type == "cuda":
        return min(usable_cores(), MOST_ON_GPU)
    return usable_cores() if device.type == "cpu" else 1


def estimate_task(kind: Literal["train", "test", "probe"], trial: Trial, device: torch.device) -> int:
    """Estimate what a process that does this task takes of the device's memory, in bytes."""
    try:
        if kind != "train":
            needed = estimate_inference_bytes(trial.model, batch_size=evaluation.BATCH_SIZE)
        else:
            needed = _estimate_training(trial, device)
    except RuntimeError:  # a network of the user's own that looks at values, which nothing has on the meta device
        return UNKNOWN_BYTES
    return needed + PROCESS_BYTES.get(device.type, 0)


def _estimate_training(trial: Trial, device: torch.device) -> int:
    settings = trial.train
    precision = settings.precision
    if precision == "auto":
        # A CPU may choose bf16 by itself, which needs less; a GPU always takes 16 bits.
        precision = "bf16" if device.type == "cuda" else "fp32"
    teacher = 0
    if trial.teacher is not None:
        teacher = estimate_inference_bytes(_teacher_of(trial), batch_size=settings.batch_size)
    return teacher + estimate_training_bytes(
        trial.model,
        batch_size=settings.batch_size,
        precision=precision,
        validation_batch=evaluation.BATCH_SIZE,
        copies=(settings.ema > 0) + (_ROLLBACK_COPIES if device.type == "cpu" else 0),
    )


def _teacher_of(trial: Trial) -> ModelSpec:
    """Return what teaches a trial's model: the one that it was narrowed from, or the full network."""
    return trial.model.at_full_width if trial.model.layers else replace(trial.model, cut=FULL)


def find_budget(device: torch.device) -> int | None:
    """Return how many bytes tasks on the device may need together at the moment, None where that is not known."""
    if device.type == "cuda":
        free: int | None = _free_on_gpu(device)
    else:
        free = free_main_memory() if device.type == "cpu" else None
    return None if free is None else int(USABLE_SHARE * free)


def free_main_memory(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Return the main memory that new processes can have, in bytes, None where the system does not tell.

    It is what Linux calls available, or what the container's limit leaves if that is less.
    """
    if not meminfo.is_file():
        return None
    fields = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line)
    if "MemAvailable" not in fields:
        return None
    available = int(fields["MemAvailable"].split()[0]) * 1024
    left = [_left_in_group(cgroup, "memory.max", "memory.current", "inactive_file")]
    left.append(
        _left_in_group(cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    return min([available, *(bytes_ for bytes_ in left if bytes_ is not None)])


def give_back_memory() -> None:
    """Return what a finished task has left in this process to the device and to the system, for the other processes."""
    gc.collect()
    torch.cuda.empty_cache()
    if platform.libc_ver()[0] == "glibc":
        # Freed memory is kept while a task runs (training.devices.keep_freed_memory).
        ctypes.CDLL(None).malloc_trim(0)


def _left_in_group(folder: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """Return what a control group's limit leaves; files that only lie in the cache can make room."""
    if not (folder / limit).is_file() or not (folder / usage).is_file():
        return None
    allowed = (folder / limit).read_text(encoding="ascii").strip()
    if allowed == "max":
        return None
    stat = folder / "memory.stat"
    lines = stat.read_text(encoding="ascii").splitlines() if stat.is_file() else []
    cached = sum(int(line.split()[1]) for line in lines if line.startswith(f"{reclaimable} "))
    return max(0, int(allowed) - int((folder / usage).read_text(encoding="ascii")) + cached)


def _free_on_gpu(device: torch.device) -> int:
    """Ask in a process of its own: asking takes a context, which would stay on the device for the whole search."""
    answer = run_isolated(_ask_gpu, device.index or 0, timeout_s=_QUERY_S)
    return value_of(answer, error=TargetUnavailableError, doing=f"asking {device} for its free memory")


def _ask_gpu(index: int) -> int:
    free, _ = torch.cuda.mem_get_info(index)
    return int(free)
