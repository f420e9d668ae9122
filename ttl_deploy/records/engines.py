"""TensorRT engines: how one is wanted, and what was built on which machine."""

from dataclasses import dataclass
from typing import Literal, get_args

from ttl_deploy.records.artifacts import FileEntry, Parity

Flavour = Literal["trt", "rtx"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)
"""`trt` is TensorRT itself, `rtx` is TensorRT for RTX."""
HardwareLevel = Literal["none", "ampere-plus", "same-compute-capability"]
HARDWARE_LEVELS: tuple[HardwareLevel, ...] = get_args(HardwareLevel)
CURRENT = "current"
"""Stands for the compute capability of the GPU that an engine is built on."""
_LARGEST_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRange:
    """The batch sizes an engine takes: the smallest, the one it is tuned for, and the largest."""

    smallest: int = 1
    usual: int = 1
    largest: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.usual <= self.largest <= _LARGEST_BATCH:
            raise ValueError(
                f"batch sizes {self.smallest},{self.usual},{self.largest}: give MIN,OPT,MAX that do not fall, from 1 "
                f"to {_LARGEST_BATCH}, such as 1,1,16"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How an engine is built; together with the ONNX file and the machine this decides what comes out.

    Attributes:
        workspace_bytes: device memory that a layer may use while it computes; None for all there is.
        builder_level: 0 (built fastest) to 5 (searched longest); None for TensorRT's own choice.
        version_compatible: restrict the engine to what later versions' lean runtimes can run.
        hardware: for which other GPUs than the one it is built on it must run.
        compute_capabilities: such as `8.6`, or `current`: what TensorRT for RTX builds for; empty for its own
            choice, which is all from 8.0 on.
    """

    batch: BatchRange = BatchRange()
    workspace_bytes: int | None = None
    builder_level: int | None = None
    version_compatible: bool = False
    hardware: HardwareLevel = "none"
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.builder_level is not None and not 0 <= self.builder_level <= 5:
            raise ValueError(f"builder level {self.builder_level}: give 0 (built fastest) to 5 (searched longest)")
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise ValueError(f"a workspace of {self.workspace_bytes} bytes: give a size such as 2GiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """An engine that is wanted: by which flavour, how, and where measured layer times are kept between builds."""

    flavour: Flavour
    options: EngineOptions = EngineOptions()
    timing_cache: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuIdentity:
    """A GPU as far as engines depend on it: name, compute capability (`9.0`), the driver's version."""

    name: str
    compute_capability: str
    driver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineManifest:
    """The JSON file beside an engine, without which the engine is not loaded.

    Attributes:
        engine, model: the engine and the ONNX file it was built from, with sizes and content hashes.
        tensorrt: version of the package that built it, and alone can load it.
        precision: of most of the ONNX file's weights; the network is strongly typed, so layers run in the file's types.
        gpu: what it was built on; None where it was built ahead of time, without one.
        system, architecture: such as `Linux` and `x86_64`.
        layers: of the network before TensorRT fused them.
        build_s: seconds that the build took.
        created: when, in UTC.
        warnings: what TensorRT complained about while building.
        golden: how the engine did on the artifact's synthetic images; None where there was no GPU to run it.
    """

    engine: FileEntry
    model: FileEntry
    flavour: Flavour
    tensorrt: str
    precision: str
    options: EngineOptions
    gpu: GpuIdentity | None
    system: str
    architecture: str
    layers: int
    build_s: float
    created: str
    warnings: tuple[str, ...] = ()
    golden: Parity | None = None

    @property
    def built_for(self) -> str:
        """Say in words which GPUs it was built for, to stand after `built`."""
        if self.gpu is not None:
            return f"for {self.gpu.name}, compute capability {self.gpu.compute_capability}, driver {self.gpu.driver}"
        named = ", ".join(f"SM {one}" for one in self.options.compute_capabilities)
        return f"ahead of time for {named or 'SM 8.0 and later'}"
