"""From an ONNX file to a serialised engine: one way for TensorRT 10 and 11 and for TensorRT for RTX.

The network is strongly typed: layers are computed in the types that the file says, so that precision is decided and
checked in the file. No calibrator, no precision flag. `build` is made to be called in a child process: TensorRT is
native code that has crashed, and memory it takes on the GPU ends with the child.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttl_deploy import plugins
from ttl_deploy.errors import GateError, UsageError
from ttl_deploy.files import publish_bytes
from ttl_deploy.records.engines import CURRENT, EngineOptions, EngineRequest, GpuIdentity
from ttl_deploy.runtime.inference import REFERENCE_TARGET
from ttl_deploy.runtime.onnx_file import read_onnx_facts
from ttl_deploy.runtime.tensorrt.devices import find_gpu, require_gpu
from ttl_deploy.runtime.tensorrt.flavours import PACKAGES, Package, load_flavour, version_of
from ttl_deploy.runtime.tensorrt.messages import explain, make_logger, parser_messages

_NOT_PUBLISHED = "nothing was published"
_COMPATIBLE = ("VERSION_COMPATIBLE", "EXCLUDE_LEAN_RUNTIME")
"""The lean runtime is left out: it is host code, and engines that carry such are never loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build tells of itself; `gpu` is None where it was made without one."""

    tensorrt: str
    gpu: GpuIdentity | None
    options: EngineOptions
    layers: int
    build_s: float
    warnings: tuple[str, ...]


def build(model: Path, engine: Path, request: EngineRequest) -> Built:
    """Build `model` and write the engine to `engine`.

    Raises `ArtifactError` for a file that is no ONNX classifier of ours, `GateError` with the parser's or builder's
    own words where TensorRT refuses it, `UsageError` for an option that the flavour does not have, and
    `TargetUnavailableError` where the flavour, or a GPU that it needs, is not here.
    """
    check_options(request)
    check_model(model)
    package, trt = PACKAGES[request.flavour], load_flavour(request.flavour)
    gpu = find_gpu() if package.without_gpu else require_gpu()
    logger = make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    _parse(parser, network, model, logger, package)
    config = builder.create_builder_config()
    settings = _Settings(trt=trt, config=config, package=package, options=request.options)
    settings.apply()
    _add_profile(builder, config, network, request.options)
    cache = _read_timing_cache(config, request.timing_cache)
    started = time.perf_counter()
    serialised = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - started
    if serialised is None:
        raise GateError(f"{package.words} cannot build {model}: {explain(logger.errors)}; {_NOT_PUBLISHED}")
    publish_bytes(engine, bytes(serialised))
    if cache is not None and request.timing_cache is not None:
        publish_bytes(Path(request.timing_cache), bytes(config.get_timing_cache().serialize()))
    return Built(
        tensorrt=version_of(trt),
        gpu=gpu if not package.without_gpu or CURRENT in request.options.compute_capabilities else None,
        options=request.options,
        layers=int(network.num_layers),
        build_s=seconds,
        warnings=tuple(dict.fromkeys(logger.warnings)),
    )


def check_options(request: EngineRequest) -> None:
    """Raise at once what `build` would raise for options that the flavour, which must be here, does not have."""
    package, trt = PACKAGES[request.flavour], load_flavour(request.flavour)
    if request.timing_cache is not None and not package.has_timing_cache:
        raise UsageError(f"--timing-cache: {package.words} measures nothing while it builds, so it keeps no such file")
    _Settings(trt=trt, config=None, package=package, options=request.options).check()


def check_model(model: Path) -> None:
    """Raise `ArtifactError` for what is no ONNX classifier: TensorRT's parser has taken garbage for a model.

    The structure is read first, then ONNX Runtime checks types and shapes and runs one black image.
    """
    read_onnx_facts(model)
    plugins.load("targets", REFERENCE_TARGET)().open(model, threads=1)


def _parse(parser: Any, network: Any, model: Path, logger: Any, package: Package) -> None:
    accepted = parser.parse(model.read_bytes())
    if accepted and network.num_outputs > 0:
        return
    told = [str(message) for message in parser_messages(parser)] or list(logger.errors)
    if not told and accepted:
        told = ["it found no outputs in the file"]
    raise GateError(f"{package.words}'s ONNX parser refuses {model}: {explain(told)}; {_NOT_PUBLISHED}")


def _add_profile(builder: Any, config: Any, network: Any, options: EngineOptions) -> None:
    """Say which batches will come; a file whose batch is fixed takes that one."""
    given = network.get_input(0)
    batch, *image = tuple(given.shape)
    sizes = (options.batch.smallest, options.batch.usual, options.batch.largest)
    if batch >= 0 and sizes != (batch,) * 3:
        raise UsageError(f"the file takes {batch} images at a time: give --batch {batch}")
    profile = builder.create_optimization_profile()
    profile.set_shape(given.name, *((size, *image) for size in sizes))
    config.add_optimization_profile(profile)


def _read_timing_cache(config: Any, path: str | None) -> Any:
    """Give the builder what earlier builds measured; the file may not be there yet."""
    if path is None:
        return None
    file = Path(path)
    cache = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if not config.set_timing_cache(cache, False):
        raise UsageError(
            f"--timing-cache {path} was made on another GPU or by another version of TensorRT: name another file"
        )
    return cache


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """Turns our options into the builder's; refuses what the loaded flavour does not have."""

    trt: Any
    config: Any
    package: Package
    options: EngineOptions

    def check(self) -> None:
        """Refuse what the flavour does not have; needs no `config`."""
        if self.options.version_compatible and not all(hasattr(self.trt.BuilderFlag, flag) for flag in _COMPATIBLE):
            raise self._lacks("--version-compatible")
        if self.options.hardware != "none" and not self._has_hardware_level():
            remedy = "its engines run on all GPUs from SM 8.0 on" if self.package.without_gpu else ""
            raise self._lacks(f"--hardware-compatible {self.options.hardware}", remedy)
        known = getattr(self.trt, "ComputeCapability", None)
        if self.options.compute_capabilities and known is None:
            raise self._lacks("--compute-capability", "it builds for the GPU that is here")
        for given in self.options.compute_capabilities:
            if not hasattr(known, _capability_name(given)):
                assert known is not None
                allowed = ", ".join(f"{m[2:-1]}.{m[-1]}" for m in known.__members__ if m.startswith("SM"))
                raise UsageError(f"--compute-capability {given}: {self.package.words} knows {allowed}, {CURRENT}")
        if CURRENT in self.options.compute_capabilities:
            require_gpu()

    def apply(self) -> None:
        """Set everything."""
        self.config.profiling_verbosity = self.trt.ProfilingVerbosity.DETAILED  # else layers cannot be read back
        tf32 = getattr(self.trt.BuilderFlag, "TF32", None)
        if tf32 is not None:
            self.config.clear_flag(tf32)  # fp32 means fp32: TF32 keeps ten bits of the mantissa
        if self.options.workspace_bytes is not None:
            self.config.set_memory_pool_limit(self.trt.MemoryPoolType.WORKSPACE, self.options.workspace_bytes)
        if self.options.builder_level is not None:
            self.config.builder_optimization_level = self.options.builder_level
        if self.options.version_compatible:
            for flag in _COMPATIBLE:
                self.config.set_flag(getattr(self.trt.BuilderFlag, flag))
        if self.options.hardware != "none":
            level = getattr(self.trt.HardwareCompatibilityLevel, self._hardware_name)
            self.config.hardware_compatibility_level = level
        if self.options.compute_capabilities:
            self._choose_capabilities()

    @property
    def _hardware_name(self) -> str:
        return self.options.hardware.upper().replace("-", "_")

    def _has_hardware_level(self) -> bool:
        levels = getattr(self.trt, "HardwareCompatibilityLevel", None)
        return self.package.has_hardware_levels and levels is not None and hasattr(levels, self._hardware_name)

    def _choose_capabilities(self) -> None:
        names = [_capability_name(one) for one in self.options.compute_capabilities]
        self.config.num_compute_capabilities = len(names)
        for index, name in enumerate(names):
            self.config.set_compute_capability(getattr(self.trt.ComputeCapability, name), index)

    def _lacks(self, option: str, remedy: str = "") -> UsageError:
        version = version_of(self.trt)
        return UsageError(
            f"{option}: {self.package.words} {version} has no such thing{f'; {remedy}' if remedy else ''}. Leave it out"
        )


def _capability_name(given: str) -> str:
    """Return how TensorRT names a compute capability: `SM86` for `8.6`."""
    return CURRENT.upper() if given == CURRENT else f"SM{given.replace('.', '')}"
