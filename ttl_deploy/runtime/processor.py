"""This machine's processor, and by which of its instructions it runs a network in which precision."""

import os
import platform
from pathlib import Path

from ttl_deploy.records.diagnosis import Ability, Processor
from ttl_deploy.runtime.sysfs import read_word

ROOT = Path("/")
INSTRUCTIONS = {
    "x86_64": ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    "aarch64": ("asimddp", "i8mm", "bf16", "fphp", "sve"),
}
"""Which of a processor's instructions decide how fast a network runs, and in which precision, by architecture."""

_MADE_FOR = {
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp"),
    "bf16": ("amx_bf16", "avx512_bf16", "bf16"),
}


def examine_processor(root: Path = ROOT) -> Processor:
    """Describe the processor; `root` stands for `/`. What the kernel does not tell is left empty."""
    cpuinfo = _read_cpuinfo(root / "proc/cpuinfo")
    flags = set((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())
    known = INSTRUCTIONS.get(platform.machine(), ())
    return Processor(
        # On ARM, Linux tells no model name and the architecture must do.
        name=cpuinfo.get("model name") or platform.processor() or platform.machine(),
        architecture=platform.machine(),
        cores=usable_cores(),
        memory_bytes=max(0, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        governor=read_word(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unknown",
        instructions=tuple(name for name in known if name in flags),
        lacking=tuple(name for name in known if name not in flags) if flags else (),
    )


def usable_cores() -> int:
    """Count the cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def explain_precision(precision: str, processor: Processor) -> Ability:
    """Say by which instructions this processor runs a precision: without any it is slow."""
    if precision not in _MADE_FOR or not (processor.instructions or processor.lacking):
        return Ability(precision=precision, by="")
    there = [name for name in processor.instructions if name in _MADE_FOR[precision]]
    return Ability(precision=precision, by=f"by {', '.join(there)}" if there else "slow: no instructions for it here")


def _read_cpuinfo(path: Path) -> dict[str, str]:
    """Return what the kernel says of the first core."""
    first = read_word(path).partition("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
