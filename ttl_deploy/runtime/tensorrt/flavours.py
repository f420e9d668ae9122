"""TensorRT and TensorRT for RTX: the same interface from two packages, neither loaded before it is needed."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from ttl_deploy.errors import MissingExtraError, TargetUnavailableError
from ttl_deploy.records.engines import Flavour

_OLDEST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What sets a flavour apart.

    Attributes:
        module: what is imported; `words` is what people call it, `extra` of ours installs it.
        target: the name of the runtime target that runs its engines.
        without_gpu: whether it builds where no GPU is.
        has_timing_cache, has_hardware_levels: options that TensorRT for RTX still has names for, and ignores (1.7).
    """

    module: str
    words: str
    extra: str
    target: str
    without_gpu: bool
    has_timing_cache: bool
    has_hardware_levels: bool


PACKAGES: Mapping[Flavour, Package] = MappingProxyType(
    {
        "trt": Package(
            module="tensorrt",
            words="TensorRT",
            extra="trt",
            target="tensorrt",
            without_gpu=False,
            has_timing_cache=True,
            has_hardware_levels=True,
        ),
        "rtx": Package(
            module="tensorrt_rtx",
            words="TensorRT for RTX",
            extra="rtx",
            target="tensorrt-rtx",
            without_gpu=True,
            has_timing_cache=False,
            has_hardware_levels=False,
        ),
    }
)


def is_installed(flavour: Flavour) -> bool:
    """Tell whether a flavour's module can be found, without loading it."""
    return find_spec(PACKAGES[flavour].module) is not None


def choose_flavour() -> Flavour:
    """Return the flavour that is installed, TensorRT itself where both are or none is."""
    return "rtx" if is_installed("rtx") and not is_installed("trt") else "trt"


def load_flavour(flavour: Flavour) -> Any:
    """Import a flavour's module.

    Raises `TargetUnavailableError` where it is missing, where its libraries are, or where it is too old.
    """
    package = PACKAGES[flavour]
    if not is_installed(flavour):
        raise _missing(flavour)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own deprecations, which are none of the user's
            module = import_module(package.module)
    except (ImportError, OSError) as error:
        raise TargetUnavailableError(
            f"{package.words} is installed but does not load ({error}): its libraries are missing or do not fit. "
            f"{_REMEDIES[flavour]}"
        ) from error
    _refuse_old(module, package)
    return module


def version_of(module: Any) -> str:
    """Return a flavour's whole version, such as `1.7.1.116`."""
    return str(module.__version__)


def _missing(flavour: Flavour) -> TargetUnavailableError:
    if flavour == "rtx":
        return MissingExtraError("rtx", "TensorRT for RTX")
    return TargetUnavailableError(f"TensorRT is not installed. {_REMEDIES[flavour]}")


_REMEDIES: Mapping[Flavour, str] = MappingProxyType(
    {
        "trt": "pip install 'ttl-deploy[trt]' works where NVIDIA's own package index can be reached; else use the "
        "container nvcr.io/nvidia/tensorrt, on a Jetson the TensorRT of JetPack, or --flavour rtx",
        "rtx": "Install it again: pip install --force-reinstall tensorrt-rtx",
    }
)


def _refuse_old(module: Any, package: Package) -> None:
    """Refuse TensorRT before 10, which builds no strongly typed networks from files of opset 18."""
    if hasattr(module, "NetworkDefinitionCreationFlag") and hasattr(
        module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"
    ):
        return
    found = re.match(r"\d+", version_of(module))
    raise TargetUnavailableError(
        f"{package.words} {found.group() if found else '?'} builds no strongly typed networks: {_OLDEST} or newer is "
        "needed. For JetPack 5 export with --target jetpack5 and build the ONNX file with trtexec there"
    )
