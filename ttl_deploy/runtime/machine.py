"""Which machine, in which state, with which versions: what every measured number must name."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ttl_deploy import plugins
from ttl_deploy.errors import TargetUnavailableError
from ttl_deploy.records.benchmarks import Machine

_PACKAGES = ("ttl-deploy", "numpy", "onnxruntime")
_OPTIONAL_PACKAGES = ("torch", "torchvision", "onnx", "openvino", "tensorrt", "tensorrt-rtx", "pydicom", "ray")
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
    return {
        "machine": {
            "host": machine.host,
            "system": machine.system,
            "processor": machine.processor,
            "cores": str(machine.cores),
            "memory": f"{machine.memory_bytes / 1e9:.1f} GB",
            "governor": machine.governor,
        },
        "packages": installed_versions(_PACKAGES + _OPTIONAL_PACKAGES),
        "targets": {name: _readiness(name) for name in plugins.names("targets")},
    }


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
    try:
        plugins.load("targets", target)
    except TargetUnavailableError as error:
        return str(error)
    return "ready"


def _processor() -> str:
    """Name the processor; on ARM Linux `/proc/cpuinfo` has no model name and the architecture must do."""
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError:
        return ""
