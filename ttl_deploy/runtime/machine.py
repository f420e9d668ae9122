"""Which machine, in which state, with which versions: what every measured number must name."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ttl_deploy import plugins
from ttl_deploy.errors import TargetUnavailableError
from ttl_deploy.plugins import Target
from ttl_deploy.processes import Finished, run_isolated
from ttl_deploy.records.benchmarks import Machine

_PACKAGES = ("ttl-deploy", "numpy", "onnxruntime")
_OPTIONAL_PACKAGES = ("torch", "torchvision", "onnx", "openvino", "nncf", "tensorrt", "tensorrt-rtx", "pydicom", "ray")
_INSTRUCTIONS = {
    "x86_64": ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    "aarch64": ("asimddp", "i8mm", "bf16", "fphp", "sve"),
}
"""Which of a processor's instructions decide how fast a network runs, and in which precision, by architecture."""

_MADE_FOR = {
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp"),
    "bf16": ("amx_bf16", "avx512_bf16", "bf16"),
}
_SURVEY_S = 120.0
_CPUINFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def describe_machine(*, load_before: float, load_after: float) -> Machine:
    """Describe this machine; the loads are one-minute averages around the measurement (`current_load`)."""
    return Machine(
        host=platform.node() or "unknown",
        system=platform.platform(),
        processor=_processor(),
        cores=usable_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        governor=_first_line(_GOVERNOR) or "unknown",
        load_before=load_before,
        load_after=load_after,
    )


def examine() -> dict[str, dict[str, str]]:
    """Tell what this machine can do: the machine itself, installed packages, and which targets can run."""
    load = current_load()
    machine = describe_machine(load_before=load, load_after=load)
    there = processor_instructions()
    missing = [name for name in _INSTRUCTIONS.get(platform.machine(), ()) if name not in there]
    return {
        "machine": {
            "host": machine.host,
            "system": machine.system,
            "processor": machine.processor,
            "instructions": ", ".join(there) or "unknown",
            "instructions missing": ", ".join(missing) or "none",
            "cores": str(machine.cores),
            "memory": f"{machine.memory_bytes / 1e9:.1f} GB",
            "governor": machine.governor,
        },
        "packages": installed_versions(_PACKAGES + _OPTIONAL_PACKAGES),
        "targets": {name: _readiness(name) for name in plugins.names("targets")},
    }


def processor_instructions() -> tuple[str, ...]:
    """Return those instructions of this processor that matter to networks, as the kernel names them."""
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return tuple(name for name in _INSTRUCTIONS.get(platform.machine(), ()) if name in flags)


def survey_target(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a target's runtime with version, and what it can run here; loads it, which is done in a child."""
    target: Target = plugins.load("targets", name)()
    return target.runtime, target.precisions()


def usable_cores() -> int:
    """Count the cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def current_load() -> float:
    """Return the one-minute load average."""
    return os.getloadavg()[0]


def installed_versions(packages: tuple[str, ...] = _PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of packages, by default those a measurement depends on."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _readiness(target: str) -> str:
    """Say whether a target starts here, in which precisions it runs, or what is missing and how to get it."""
    try:
        outcome = run_isolated(survey_target, target, timeout_s=_SURVEY_S)
    except TargetUnavailableError as error:
        return str(error)
    if not isinstance(outcome, Finished):
        last = outcome.log_tail.rpartition("\n")[2]
        return f"does not start: its process {outcome.reason}{f' ({last})' if last else ''}. Install its runtime again"
    runtime, precisions = outcome.value
    words = [_with_instructions(name) if target.endswith("-cpu") else name for name in precisions]
    return f"ready: {runtime}; {', '.join(words)}"


def _with_instructions(precision: str) -> str:
    """Add by which of the processor's instructions a CPU runs a precision: without any it is slow."""
    if precision not in _MADE_FOR:
        return precision
    there = [name for name in processor_instructions() if name in _MADE_FOR[precision]]
    return f"{precision} (by {', '.join(there)})" if there else f"{precision} (slow: no instructions for it here)"


def _processor() -> str:
    """Name the processor; on ARM Linux `/proc/cpuinfo` has no model name and the architecture must do."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(wanted: str) -> str:
    """Return what the kernel says of the first core under a name; nothing where it says nothing."""
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == wanted:
                return value.strip()
    return ""


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError:
        return ""
