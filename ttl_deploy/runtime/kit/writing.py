"""The kit that is put beside an artifact's files, so that one command on another machine does all that is needed."""

import json
import shutil
from dataclasses import replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np

from ttl_deploy import __version__
from ttl_deploy.errors import UsageError
from ttl_deploy.files import make_folder, publish_bytes, publish_text, sha256_bytes, sha256_file
from ttl_deploy.records import codec
from ttl_deploy.records.engines import EngineRequest, Flavour
from ttl_deploy.runtime.artifact import MANIFEST, Artifact
from ttl_deploy.runtime.kit.wheel import write_wheel
from ttl_deploy.runtime.tensorrt.flavours import PACKAGES
from ttl_deploy.runtime.verify import expect_golden

SCRIPT = "build_on_target.sh"
KIT = "kit"
TRTEXEC_ENGINE = "model.trtexec.engine"
"""What the script leaves behind where trtexec built the engine; `ttl-deploy` does not load it."""
IMAGES, DESCRIPTION, BOARD = "golden_images.bin", "kit.json", "ttl_deploy_board"
_NEEDS = ("numpy", "msgspec", "onnxruntime", "filelock", "packaging", "PIL")
_HERE = "ttl_deploy.runtime.kit"
_FLAVOURS: tuple[Flavour, ...] = ("rtx", "trt")
"""The longer name first: `tensorrt` begins `tensorrt-rtx`."""


def write_kit(artifact: Artifact, folder: Path, *, request: EngineRequest | None, target: str) -> None:
    """Put `build_on_target.sh` and `kit/` into `folder`, where the artifact's own files lie or are being put.

    `request` is the engine to build; None for a `target` that needs none. `kit/` holds the golden images as raw bytes,
    what to expect of them, the script's Python part, and ttl-deploy itself as a wheel where it is installed as a
    package; where it is not, the script says how to install it.
    """
    kit = make_folder(folder / KIT)
    request = None if request is None else replace(request, timing_cache=None)
    images, _ = artifact.golden()
    publish_bytes(kit / IMAGES, np.ascontiguousarray(images).tobytes())
    wheel = write_wheel(kit)
    board = make_folder(kit / BOARD)
    for source in _board_files():
        publish_bytes(board / source.name, source.read_bytes())
    described = _describe(artifact, request, target=target, images_sha256=sha256_file(kit / IMAGES), wheel=wheel)
    publish_text(kit / DESCRIPTION, json.dumps(described, indent=1, allow_nan=False) + "\n")
    script = folder / SCRIPT
    publish_bytes(script, files(_HERE).joinpath(SCRIPT).read_bytes())
    script.chmod(0o755)


def stage_kit(artifact: Artifact, folder: Path, *, target: str | None) -> None:
    """Copy what the manifest lists into `folder`, and put a kit for `target` beside it.

    Without a target it is TensorRT for the format `trt`, else the artifact's own; an engine is built as the artifact's
    own kit says, where it has one. Raises `UsageError` for several targets, one with a precision, or a format that no
    engine is built from.
    """
    if target is not None and ("," in target or ":" in target):
        raise UsageError(f"--target {target}: with --ssh give one target, without a precision")
    own = _own_kit(artifact)
    chosen = target or own.get("target") or ("tensorrt" if artifact.manifest.format == "trt" else None)
    chosen = chosen or artifact.default_target
    request = _request_for(chosen, own)
    if request is not None and artifact.manifest.format not in ("onnx", "trt"):
        raise UsageError(
            f"--target {chosen}: engines are built from onnx or trt, and this is {artifact.manifest.format}: make one "
            "with `ttl-deploy export --format trt`"
        )
    for name in (MANIFEST, *(entry.name for entry in artifact.manifest.files)):
        shutil.copyfile(artifact.folder / name, folder / name)
    copied = Artifact(folder=folder, manifest=artifact.manifest)
    write_kit(copied, folder, request=request, target=chosen)


def _own_kit(artifact: Artifact) -> dict[str, Any]:
    """Return what the artifact's own kit says; nothing where it has none."""
    path = artifact.folder / KIT / DESCRIPTION
    return codec.load(dict, path) if path.is_file() else {}


def _request_for(target: str, own: dict[str, Any]) -> EngineRequest | None:
    """Return the engine that a target needs: the one of the artifact's own kit, or one with the usual options."""
    flavour = next((one for one in _FLAVOURS if target.startswith(PACKAGES[one].target)), None)
    if flavour is None:
        return None
    if own.get("request") and own.get("flavour") == flavour:
        return codec.from_builtins(EngineRequest, own["request"], source=f"{KIT}/{DESCRIPTION}")
    return EngineRequest(flavour=flavour)


def _board_files() -> list[Traversable]:
    found = files(_HERE).joinpath("board").iterdir()
    return sorted((source for source in found if source.name.endswith(".py")), key=lambda source: source.name)


def _describe(
    artifact: Artifact, request: EngineRequest | None, *, target: str, images_sha256: str, wheel: Path | None
) -> dict[str, Any]:
    manifest = artifact.manifest
    expected, limit, reference = expect_golden(artifact, target=target)
    package = PACKAGES[request.flavour] if request else None
    batch = request.options.batch if request else None
    largest = manifest.input.max_batch
    return {
        "schema": codec.SCHEMA,
        "record": "Kit",
        "version": __version__,
        "artifact": manifest.name,
        "model": artifact.model_path.name,
        "precision": manifest.precision,
        "files": {
            artifact.model_path.name: artifact.model_sha256,
            MANIFEST: sha256_bytes((artifact.folder / MANIFEST).read_bytes()),
            f"{KIT}/{IMAGES}": images_sha256,
            **({f"{KIT}/{wheel.name}": sha256_file(wheel)} if wheel else {}),
        },
        "target": target,
        "flavour": request.flavour if request else "",
        "request": codec.to_builtins(request) if request else None,
        "modules": [package.module] if package else ["openvino"] if target.startswith("openvino") else [],
        "requires": [*_NEEDS, *(["cuda|torch"] if package else [])],
        "install": ["cuda-bindings"] if package else [],
        "wheel": wheel.name if wheel else "",
        "input": {"name": manifest.input.name, "height": manifest.input.height, "width": manifest.input.width},
        "output": manifest.output,
        "expected": [[float(value) for value in row] for row in expected],
        "limit": limit,
        "reference": reference,
        "batch": [batch.smallest, batch.usual, batch.largest] if batch else [1, 1, largest],
        "workspace_bytes": request.options.workspace_bytes if request else None,
        "builder_level": request.options.builder_level if request else None,
    }
