"""Engines made and kept: built in a child process, published with their manifests, cached by all they depend on."""

import json
import platform
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from ttl_deploy.data.cache_root import cache_errors, cache_folder
from ttl_deploy.errors import GateError, UsageError
from ttl_deploy.files import make_folder, publish, sha256_bytes, sha256_file
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import FileEntry, Parity
from ttl_deploy.records.engines import CURRENT, EngineManifest, EngineRequest, Flavour
from ttl_deploy.runtime.artifact import Artifact
from ttl_deploy.runtime.inference import open_safely
from ttl_deploy.runtime.onnx_file import read_onnx_facts
from ttl_deploy.runtime.tensorrt.builder import build
from ttl_deploy.runtime.tensorrt.devices import find_gpu
from ttl_deploy.runtime.tensorrt.flavours import PACKAGES, load_flavour
from ttl_deploy.runtime.tensorrt.trust import Here, engine_path, manifest_path
from ttl_deploy.runtime.verify import check_golden

TIMEOUT_S = 3600.0
_CACHE = "engines"
_BUILT_FROM = ("trt", "onnx")

Say = Callable[[str], None]
"""Called with a sentence on what is being done."""


def make_engine(model: Path, folder: Path, request: EngineRequest, *, timeout_s: float = TIMEOUT_S) -> EngineManifest:
    """Build an ONNX file in a child process, and put the engine and its manifest into `folder`; returns the latter.

    An engine that lies there is replaced. Raises what `builder.build` raises, and `GateError` where the child crashes
    or takes longer than `timeout_s`; the folder is then as it was.
    """
    target = engine_path(make_folder(folder), request.flavour)
    with tempfile.TemporaryDirectory(prefix="ttl-deploy-engine-") as scratch:
        made = Path(scratch) / target.name
        manifest = _build(model, made, request, timeout_s)
        publish_engine(made, manifest, folder)
    return manifest


def publish_engine(made: Path, manifest: EngineManifest, folder: Path) -> None:
    """Copy a finished engine into a folder, then its manifest, without which the engine counts for nothing."""
    target = engine_path(folder, manifest.flavour)
    publish(target, lambda file: file.write(made.read_bytes()))
    codec.save(manifest_path(target), manifest)


def build_beside(
    artifact: Artifact, request: EngineRequest, *, timeout_s: float = TIMEOUT_S, say: Say = lambda sentence: None
) -> EngineManifest:
    """Build an artifact's engine, run its synthetic images where a GPU is here, and publish it beside the ONNX file.

    Raises `UsageError` for a format that no engine is built from, and `GateError`, publishing nothing, where the engine
    does not say what the artifact recorded.
    """
    if artifact.manifest.format not in _BUILT_FROM:
        raise UsageError(
            f"{artifact.folder} is of the format {artifact.manifest.format}, and engines are built from "
            f"{' or '.join(_BUILT_FROM)}: make one with `ttl-deploy export --format trt`"
        )
    with tempfile.TemporaryDirectory(prefix="ttl-deploy-engine-") as scratch:
        made = engine_path(Path(scratch), request.flavour)
        say(f"building an engine by {PACKAGES[request.flavour].words}")
        manifest = _build(artifact.model_path, made, request, timeout_s)
        if find_gpu() is not None:
            codec.save(manifest_path(made), manifest)
            say("comparing the engine with the golden answers")
            manifest = replace(manifest, golden=_verify(artifact, made, request.flavour))
        publish_engine(made, manifest, artifact.folder)
    return manifest


def for_this_machine(request: EngineRequest) -> EngineRequest:
    """Return a request for the GPU that is here, where TensorRT for RTX has one and none else was named."""
    options = request.options
    if not PACKAGES[request.flavour].without_gpu or options.compute_capabilities or find_gpu() is None:
        return request
    return replace(request, options=replace(options, compute_capabilities=(CURRENT,)))


def cached_engine(model: Path, request: EngineRequest, here: Here) -> Path:
    """Return an engine of an ONNX file for this machine from the cache, built if it is new there.

    Its key is made of the file's content, the flavour and its version, GPU, driver, system, and the options.
    """
    identity = {
        "model": sha256_file(model),
        "request": codec.to_builtins(replace(request, timing_cache=None)),
        "here": codec.to_builtins(here),
    }
    key = sha256_bytes(json.dumps(identity, sort_keys=True).encode())
    folder = cache_folder(_CACHE) / key
    engine = engine_path(folder, request.flavour)
    if not manifest_path(engine).is_file():
        with cache_errors(folder):
            make_engine(model, folder, request)
    return engine


def _build(model: Path, made: Path, request: EngineRequest, timeout_s: float) -> EngineManifest:
    words = PACKAGES[request.flavour].words
    load_flavour(request.flavour)  # a missing one is told before a child is started
    outcome = run_isolated(build, model, made, request, timeout_s=timeout_s)
    built = value_of(outcome, error=GateError, doing=f"{words} cannot build {model}")
    return EngineManifest(
        engine=_describe(made),
        model=_describe(model),
        flavour=request.flavour,
        tensorrt=built.tensorrt,
        precision=read_onnx_facts(model).weight_precision,
        options=built.options,
        gpu=built.gpu,
        system=platform.system(),
        architecture=platform.machine(),
        layers=built.layers,
        build_s=built.build_s,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        warnings=built.warnings,
    )


def _verify(artifact: Artifact, engine: Path, flavour: Flavour) -> Parity:
    target = PACKAGES[flavour].target
    session = open_safely(target, engine, threads=1)
    parity = check_golden(artifact, session, target=target)
    if not parity.passed:
        raise GateError(
            f"the engine is not the model: against {parity.reference}, {'; '.join(parity.failures)}; it was not "
            f"published. Build with another version of {PACKAGES[flavour].words}, or export --precision fp32"
        )
    return replace(parity, executed=None)


def _describe(path: Path) -> FileEntry:
    return FileEntry(name=path.name, size_bytes=path.stat().st_size, sha256=sha256_file(path))
