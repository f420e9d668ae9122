"""The optional parts of the installation, from the metadata of the installed packages: nothing is imported."""

import platform
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from ttl_deploy.records.diagnosis import ExtraState, Problem

OURS = "ttl-deploy"
TENSORRT_NOTE = (
    "the tensorrt package only fetches NVIDIA's libraries from NVIDIA's own index while it is installed. Where that "
    "cannot be reached: the container nvcr.io/nvidia/tensorrt, or on RTX cards the extra [rtx], which comes whole "
    "from the package registry. Where it can: pip install --extra-index-url https://pypi.nvidia.com tensorrt"
)
JETSON_NOTE = (
    "on a Jetson use JetPack's own TensorRT, never the package: sudo apt install python3-libnvinfer, and a virtual "
    "environment made with --system-site-packages by the same Python ({python} here)"
)
_PURPOSES = {
    "train": "search, training, export, reports with plots",
    "timm": "backbones of timm",
    "openvino": "target openvino-cpu, format openvino",
    "trt": "engines for NVIDIA's server cards and Jetson",
    "rtx": "engines for RTX cards, built without a card too",
    "dicom": "reading DICOM files",
    "parquet": "reading tables and images in Parquet",
    "ray": "search on several machines",
}
_UNOFFERED = ("dev",)


def read_extras(*, jetson: bool = False) -> tuple[ExtraState, ...]:
    """Return every optional part with what is installed of it; empty where `ttl-deploy` itself is not installed."""
    own = find_distribution(OURS)
    if own is None:
        return ()
    needs = [Requirement(line) for line in own.requires or ()]
    return tuple(
        _describe_extra(name, needs, jetson=jetson)
        for name in own.metadata.get_all("Provides-Extra") or ()
        if name not in _UNOFFERED
    )


def find_distribution(name: str) -> Distribution | None:
    """Return an installed package's metadata; None where it is not installed."""
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _describe_extra(name: str, needs: list[Requirement], *, jetson: bool) -> ExtraState:
    wanted = [need for need in needs if need.marker and _belongs(need, name)]
    versions = {need.name: installed_version(need.name) for need in wanted}
    lacking = [lack for need in wanted if (lack := _lack(need, versions[need.name]))]
    note = ""
    if name == "trt" and not installed_version("tensorrt"):
        note = JETSON_NOTE.format(python=platform.python_version()) if jetson else TENSORRT_NOTE
        if "tensorrt" not in lacking:  # on ARM it is no requirement of ours, as it comes with JetPack
            lacking.append("tensorrt")
    return ExtraState(
        name=name,
        purpose=_PURPOSES.get(name, ""),
        versions=versions,
        lacking=tuple(lacking),
        command=f"pip install '{OURS}[{name}]'",
        note=note,
    )


def _belongs(need: Requirement, extra: str) -> bool:
    """Say whether a requirement is one of this extra, on this machine."""
    marker = need.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def _lack(need: Requirement, version: str) -> str:
    if not version:
        return need.name
    return "" if _fits(need, version) else f"{need.name} {version} (needed: {need.specifier})"


def _fits(need: Requirement, version: str) -> bool:
    try:
        return need.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:  # a version of somebody's own: not ours to judge
        return True


def installed_version(package: str) -> str:
    """Return an installed package's version; nothing where it is not installed, or its metadata have none."""
    found = find_distribution(package)
    # An interrupted installation leaves a folder without metadata, whose version is None.
    return str(found.metadata["Version"] or "") if found is not None and found.metadata else ""


def find_conflicts(*, jetson: bool = False) -> tuple[Problem, ...]:
    """Name installed packages that are known not to work together."""
    found = (_warn_of_torchvision(), _warn_of_two_onnxruntimes(), _warn_of_tensorrt_package() if jetson else None)
    return tuple(problem for problem in found if problem is not None)


def _warn_of_torchvision() -> Problem | None:
    """Compare torch with the only version that the installed torchvision was built for."""
    torchvision, torch = find_distribution("torchvision"), installed_version("torch")
    if torchvision is None or not torch:
        return None
    for line in torchvision.requires or ():
        try:
            need = Requirement(line)
        except InvalidRequirement:
            continue
        if need.name == "torch" and not need.marker and not _fits(need, torch):
            return Problem(
                what=f"torchvision {torchvision.version} was built for torch{need.specifier}; here is torch {torch}",
                remedy="install the pair together: pip install --constraint constraints.txt 'ttl-deploy[train]'",
            )
    return None


def _warn_of_two_onnxruntimes() -> Problem | None:
    others = ("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
    there = [name for name in others if installed_version(name)]
    if not there or not installed_version("onnxruntime"):
        return None
    both = " and ".join(("onnxruntime", *there))
    return Problem(
        what=f"{both} are installed into the same folder: the later one overwrote the other",
        remedy=f"pip uninstall {' '.join(there)} onnxruntime, then install one of them",
    )


def _warn_of_tensorrt_package() -> Problem | None:
    """On a Jetson, name a tensorrt that pip put into this environment in front of JetPack's."""
    found = find_distribution("tensorrt")
    if found is None or not Path(str(found.locate_file(""))).is_relative_to(sys.prefix):
        return None
    return Problem(
        what=f"tensorrt {found.version} of the package registry hides JetPack's own TensorRT",
        remedy="pip uninstall tensorrt; JetPack's is found from a virtual environment with --system-site-packages",
    )
