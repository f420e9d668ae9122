"""An engine is executable code: what must be true of it before it is loaded.

The order: manifest, then size and SHA-256 of the engine and of its ONNX file, then flavour, version, system and GPU,
and only then is the content, the very bytes that were hashed, given to TensorRT. The manifest protects against damage,
mix-ups and machines that changed, not against somebody who may write to the folder: take engines from nobody, and
build them where they run.
"""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttl_deploy.errors import ArtifactError, DataError, TargetUnavailableError
from ttl_deploy.files import sha256_bytes, sha256_file
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import FileEntry
from ttl_deploy.records.engines import CURRENT, EngineManifest, Flavour, GpuIdentity
from ttl_deploy.runtime.tensorrt.devices import require_gpu
from ttl_deploy.runtime.tensorrt.flavours import PACKAGES, load_flavour, version_of
from ttl_deploy.runtime.tensorrt.messages import explain, make_logger

_MODEL_STEM = "model"
_OLDEST_AHEAD = (8, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What an engine's manifest is compared with."""

    flavour: Flavour
    tensorrt: str
    gpu: GpuIdentity
    system: str
    architecture: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedEngine:
    """An engine's content, checked against its manifest and this machine."""

    manifest: EngineManifest
    content: bytes


def engine_path(folder: Path, flavour: Flavour) -> Path:
    """Return where a folder's engine lies: `model.trt.engine` or `model.rtx.engine`."""
    return folder / f"{_MODEL_STEM}.{flavour}.engine"


def manifest_path(engine: Path) -> Path:
    """Return where an engine's manifest lies: beside it, as `model.trt.json`."""
    return engine.with_suffix(".json")


def build_command(folder: Path, flavour: Flavour) -> str:
    """Return the command that builds a folder's engine anew."""
    return f"ttl-deploy build {folder} --flavour {flavour}"


def describe_here(flavour: Flavour) -> Here:
    """Describe this machine; raises `TargetUnavailableError` where the flavour or a GPU is missing."""
    module = load_flavour(flavour)
    return Here(
        flavour=flavour,
        tensorrt=version_of(module),
        gpu=require_gpu(),
        system=platform.system(),
        architecture=platform.machine(),
    )


def read_manifest(engine: Path) -> EngineManifest:
    """Read an engine's manifest; raises `ArtifactError` where there is none, or it is another file's."""
    path = manifest_path(engine)
    if path.is_symlink() or not path.is_file():
        raise ArtifactError(
            f"{engine} has no manifest {path.name} beside it. An engine is executable code and is not loaded without "
            f"one: {_again(engine)}"
        )
    try:
        manifest = codec.load(EngineManifest, path)
    except DataError as error:
        raise ArtifactError(f"{error}: {_again(engine)}") from error
    if manifest.engine.name != engine.name:
        raise ArtifactError(f"{path} is the manifest of {manifest.engine.name!r}, not {engine.name}: {_again(engine)}")
    return manifest


def read_engine(engine: Path, here: Here, *, model: Path | None = None) -> TrustedEngine:
    """Read an engine after every check; `model` is the ONNX file it must have been built from, where that is at hand.

    Raises `ArtifactError` that names everything that is different, and the command that builds the engine anew.
    """
    manifest = read_manifest(engine)
    content = _read_checked(engine, manifest.engine)
    beside = engine.with_name(Path(manifest.model.name).name)
    source = model or (beside if beside.is_file() else None)
    if source is not None and sha256_file(source) != manifest.model.sha256:
        raise ArtifactError(f"{engine} was built from another {source.name} than {source}: {_again(engine)}")
    differences = find_differences(manifest, here)
    if differences:
        raise ArtifactError(
            f"{engine} does not belong on this machine: {'; '.join(differences)}. "
            f"Build it here: {build_command(engine.parent, here.flavour)}"
        )
    return TrustedEngine(manifest=manifest, content=content)


def find_differences(manifest: EngineManifest, here: Here) -> tuple[str, ...]:
    """Say in words what of an engine's origin is not as it is here; nothing where all is."""
    pairs = [
        ("flavour", manifest.flavour, here.flavour),
        ("TensorRT version", manifest.tensorrt, here.tensorrt),
        ("operating system", manifest.system, here.system),
        ("processor architecture", manifest.architecture, here.architecture),
    ]
    if manifest.gpu is not None:
        pairs.append(("driver", manifest.gpu.driver, here.gpu.driver))
        pairs += _gpu_pairs(manifest, manifest.gpu, here.gpu)
    found = [f"{what}: built with {then}, here is {now}" for what, then, now in pairs if then != now]
    return (*found, *_ahead_of_time(manifest, here.gpu))


def _gpu_pairs(manifest: EngineManifest, then: GpuIdentity, now: GpuIdentity) -> list[tuple[str, str, str]]:
    """Return what must be equal of the two GPUs, which depends on how compatible the engine was made."""
    capability = ("compute capability", then.compute_capability, now.compute_capability)
    if manifest.options.hardware == "ampere-plus" and _number(now.compute_capability) >= _OLDEST_AHEAD:
        return []
    if manifest.options.hardware == "same-compute-capability":
        return [capability]
    return [("GPU", then.name, now.name), capability]


def _ahead_of_time(manifest: EngineManifest, gpu: GpuIdentity) -> list[str]:
    if manifest.gpu is not None:
        return []
    named = [one for one in manifest.options.compute_capabilities if one != CURRENT]
    fits = gpu.compute_capability in named if named else _number(gpu.compute_capability) >= _OLDEST_AHEAD
    return [] if fits else [f"compute capability: built {manifest.built_for}, here is {gpu.compute_capability}"]


def deserialise(engine: TrustedEngine, path: Path) -> tuple[Any, Any, Any]:
    """Load a trusted engine; returns TensorRT's module, the runtime, which must outlive the engine, and the engine.

    Host code inside engines stays forbidden. Made to be called in a child process: damage that no hash shows has
    crashed TensorRT. Raises `TargetUnavailableError` where TensorRT returns nothing, as without a driver.
    """
    package, trt = PACKAGES[engine.manifest.flavour], load_flavour(engine.manifest.flavour)
    logger = make_logger(trt)
    runtime = trt.Runtime(logger)
    runtime.engine_host_code_allowed = False
    loaded = runtime.deserialize_cuda_engine(engine.content)
    if loaded is None:
        raise TargetUnavailableError(
            f"{package.words} {version_of(trt)} does not load {path}: {explain([*logger.errors, *logger.warnings])}. "
            f"Is there a driver, and is this GPU supported? Build it anew: "
            f"{build_command(path.parent, engine.manifest.flavour)}"
        )
    return trt, runtime, loaded


def _read_checked(path: Path, entry: FileEntry) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise ArtifactError(f"{path} is missing or not a regular file: {_again(path)}")
    content = path.read_bytes()
    if len(content) != entry.size_bytes:
        raise ArtifactError(f"{path} has {len(content)} bytes, its manifest says {entry.size_bytes}: {_again(path)}")
    if sha256_bytes(content) != entry.sha256:
        raise ArtifactError(f"{path} was changed or damaged (its SHA-256 differs): {_again(path)}")
    return content


def _again(engine: Path) -> str:
    flavour: Flavour = "rtx" if ".rtx." in engine.name else "trt"
    return f"build it again: {build_command(engine.parent, flavour)}"


def _number(compute_capability: str) -> tuple[int, int]:
    major, _, minor = compute_capability.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)
