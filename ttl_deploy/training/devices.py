"""Which device a trial runs on, in which precision, and how repeatable it is made."""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ttl_deploy.errors import UsageError
from ttl_deploy.records.trials import Precision

_GLIBC_SETTINGS = {-1: 2**31 - 1, -2: 2**28, -3: 2**25}
"""M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD (at its largest allowed value), in bytes."""
Model = TypeVar("Model", bound=torch.nn.Module)


def pick_device(wanted: str) -> torch.device:
    """Return the device for `auto`, `cpu`, `mps`, `cuda` or `cuda:N`; raises `UsageError` if it is not here."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UsageError(f"unknown device {wanted!r}: use auto, cpu, cuda, cuda:N or mps") from error
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(device.type, False):
        raise UsageError(f"device {wanted!r} is not available here: use --device auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {wanted!r} is not available: this machine has {torch.cuda.device_count()} GPU(s)")
    return device


def pick_precision(wanted: Precision, *, device: torch.device, model: torch.nn.Module) -> Precision:
    """Resolve `auto`: bf16 or fp16 where the hardware gains from it, else fp32.

    A CPU gains from bf16 only with AMX, and not in depthwise convolutions, which run slower in it
    (measured on ResNet, DenseNet and MobileNet at 64 to 224 px).
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device.type == "cpu" and _has_amx() and not _has_depthwise(model):
        return "bf16"
    return "fp32"


def _has_amx() -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and "amx_bf16" in info.read_text(encoding="utf-8", errors="replace")


def _has_depthwise(model: torch.nn.Module) -> bool:
    convolutions = (module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    return any(module.groups > 1 and module.groups == module.in_channels for module in convolutions)


def place(model: Model, device: torch.device) -> Model:
    """Move a model to the device, channels last in memory: what convolutions run fastest on."""
    moved: Model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stubs lack it
    return moved


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a forward pass runs at `precision`."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Let convolutions and products of matrices on CUDA compute in fp32, not in TF32.

    Products do by default, but not in NVIDIA's containers.
    """
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for good: activations of one step are the next step's.

    Without it every step returns its pages to the kernel and faults them in again, which takes 3 to 9 %
    of a training's time on a CPU (`benchmarks/freed_memory.py`).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, value in _GLIBC_SETTINGS.items():
            libc.mallopt(parameter, value)


@contextlib.contextmanager
def repeatable(threads: int) -> Iterator[None]:
    """Make results repeat bit for bit on one device with one thread count.

    Operators without a deterministic version only warn in torch; that warning is not raised here, since
    the models' own heads avoid them and a user's backbone may not.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deterministic: Any = torch.utils.deterministic  # its attribute is made in a way that type checkers do not see
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        deterministic.fill_uninitialized_memory,
    )
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    # It would write NaN into every new tensor before its values: 3 to 8 % of a training step on a CPU.
    deterministic.fill_uninitialized_memory = False
    # The faster kinds of attention on CUDA add up their gradients in an order that changes.
    attention = sdpa_kernel(SDPBackend.MATH) if torch.cuda.is_available() else contextlib.nullcontext()
    try:
        with attention:
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=before[2])
        torch.backends.cudnn.benchmark = before[3]
        deterministic.fill_uninitialized_memory = before[4]


def seed_epoch(seed: int, epoch: int) -> None:
    """Set torch's generators to a function of seed and epoch, so that a resumed run needs no saved state."""
    torch.manual_seed(seed * 1_000_003 + epoch)
