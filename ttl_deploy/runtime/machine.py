"""Which machine, in which state, with which versions: what every measured number must name."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ttl_deploy.records.benchmarks import Machine
from ttl_deploy.records.hardware import JetsonState
from ttl_deploy.runtime.gpus import find_gpus
from ttl_deploy.runtime.jetson import read_jetson, warn_of_state
from ttl_deploy.runtime.processor import examine_processor
from ttl_deploy.runtime.processor import usable_cores as usable_cores

MEASURED_WITH = ("ttl-deploy", "numpy", "onnxruntime")
PACKAGES = (
    *MEASURED_WITH,
    *("torch", "torchvision", "onnx", "openvino", "nncf", "tensorrt", "tensorrt-rtx", "pydicom", "ray"),
)
ABSENT = "not installed"
ROOT = Path("/")


def describe_machine(
    *, load_before: float, load_after: float, jetson_before: JetsonState | None = None, root: Path = ROOT
) -> Machine:
    """Describe this machine; the loads are one-minute averages around the measurement (`current_load`).

    On a Jetson its state now is recorded, beside the one before the measurement (`read_jetson`), and warnings say
    what makes the figures doubtful. `root` stands for `/`.
    """
    processor = examine_processor(root)
    jetson = read_jetson(root)
    return Machine(
        host=platform.node() or "unknown",
        system=platform.platform(),
        processor=processor.name,
        cores=processor.cores,
        memory_bytes=processor.memory_bytes,
        governor=processor.governor,
        load_before=load_before,
        load_after=load_after,
        gpus=find_gpus()[0],
        jetson=jetson,
        jetson_before=jetson_before,
        warnings=warn_of_state(jetson, jetson_before) if jetson else (),
    )


def summarise_machine() -> dict[str, str]:
    """Return this machine in words, by subject, as a figure's companion."""
    processor = examine_processor()
    return {
        "host": platform.node() or "unknown",
        "system": platform.platform(),
        "processor": processor.name,
        "instructions": ", ".join(processor.instructions) or "unknown",
        "instructions missing": ", ".join(processor.lacking) or "none",
        "cores": str(processor.cores),
        "memory": f"{processor.memory_bytes / 1e9:.1f} GB",
        "governor": processor.governor,
    }


def current_load() -> float:
    """Return the one-minute load average."""
    return os.getloadavg()[0]


def installed_versions(packages: tuple[str, ...] = MEASURED_WITH) -> dict[str, str]:
    """Return the versions of Python and of packages, by default those a measurement depends on."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = ABSENT
    return found
