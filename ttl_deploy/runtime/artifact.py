"""An artifact folder, opened only after every file in it was checked against its manifest."""

import json
import zipfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import ArtifactError, DataError, NoRunError
from ttl_deploy.evidence.operating_point import PRESENT_FROM
from ttl_deploy.files import sha256_file
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import ArtifactManifest, FileEntry, FileFormat
from ttl_deploy.runtime.ir_file import read_ir_facts
from ttl_deploy.runtime.onnx_file import read_onnx_facts

MODEL = "model.onnx"
IR_MODEL, IR_WEIGHTS = "model.xml", "model.bin"
MANIFEST = "manifest.json"
REFERENCE = "reference.npz"
GOLDEN = "golden.npz"
PARITY = "verify.json"
MODEL_CARD = "model_card.md"
METADATA_KEY = "ttl_deploy"
FILES: dict[FileFormat, tuple[str, ...]] = {
    "onnx": (MODEL,),
    "ort": (MODEL,),
    "openvino": (IR_MODEL, IR_WEIGHTS),
    "trt": (MODEL,),
}
"""The files of each format's model, the one to open first; of `trt` the ONNX file that engines are built from."""
_ORT, _OPENVINO = "onnxruntime-cpu", "openvino-cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A checked artifact: its folder and its manifest."""

    folder: Path
    manifest: ArtifactManifest

    @property
    def model_path(self) -> Path:
        """Path of the model file; where it is several, of the one to open."""
        return self.folder / FILES[self.manifest.format][0]

    @property
    def model_sha256(self) -> str:
        """Content hash of the model file, as checked on opening; where it is several, of the one to open."""
        return sha256_of_model(self.manifest)

    @property
    def default_target(self) -> str:
        """The target that the artifact is for, where none is named; `target_note` says why, where that is a choice."""
        return default_target(self.manifest)

    @property
    def target_note(self) -> str:
        """Say why the default target was taken where the file could run on another; else nothing."""
        if self.manifest.format == "trt":
            return (
                f"running the ONNX graph on the CPU ({self.default_target}); --target tensorrt or tensorrt-rtx runs "
                "the engine on the GPU"
            )
        if not _is_shared_int8(self.manifest):
            return ""
        slow = "signed 8-bit activations run 2 to 3 times slower than unsigned ones in ONNX Runtime on x86 CPUs"
        if self.default_target == _OPENVINO:
            return f"running on {_OPENVINO}, because {slow}; --target {_ORT} forces it"
        return f"running on {_ORT}, where {slow}: install 'ttl-deploy[openvino]', or export --format ort"

    def references(self) -> dict[str, NDArray[np.float32]]:
        """Return the torch model's probabilities `(classes,)` by content hash of the source image."""
        content = _arrays(self.folder / REFERENCE, ("sha256", "probabilities"))
        self._check_rows(REFERENCE, content["sha256"], content["probabilities"])
        rows = content["probabilities"].astype(np.float32)
        return {str(key): row for key, row in zip(content["sha256"], rows, strict=True)}

    def golden(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the synthetic images `(n, H, W, 3)` and the torch model's probabilities `(n, classes)`."""
        content = _arrays(self.folder / GOLDEN, ("images", "probabilities"))
        self._check_rows(GOLDEN, content["images"], content["probabilities"])
        return content["images"].astype(np.uint8), content["probabilities"].astype(np.float32)

    def golden_of_file(self) -> NDArray[np.float32] | None:
        """Return what this very file said of the synthetic images at its export; None in single precision."""
        if self.manifest.gate is None:
            return None
        content = _arrays(self.folder / GOLDEN, ("images", "file_probabilities"))
        self._check_rows(GOLDEN, content["images"], content["file_probabilities"])
        return content["file_probabilities"].astype(np.float32)

    def decide(self, probabilities: NDArray[np.float32]) -> NDArray[np.intp]:
        """Turn probabilities `(N, classes)` into class indices `(N,)`, as the manifest says."""
        return decide(probabilities, self.manifest)

    def _check_rows(self, name: str, keys: NDArray[Any], probabilities: NDArray[Any]) -> None:
        if probabilities.shape != (len(keys), len(self.manifest.classes)):
            raise ArtifactError(f"{self.folder / name} does not fit the manifest's classes: export the artifact again")


def sha256_of_model(manifest: ArtifactManifest) -> str:
    """Return the content hash by which a model is known.

    Of OpenVINO's two files it is that of the first, which carries the manifest: artifacts can share their weights.
    """
    return next(entry.sha256 for entry in manifest.files if entry.name == FILES[manifest.format][0])


def default_target(manifest: ArtifactManifest) -> str:
    """Return the target that a file is for: OpenVINO for its own format, and for shared int8 where it is installed."""
    preferred = manifest.format == "openvino" or (_is_shared_int8(manifest) and find_spec("openvino") is not None)
    return _OPENVINO if preferred else _ORT


def precision_to_ask(manifest: ArtifactManifest) -> str | None:
    """Return the precision to open a file in; None for 8 and 16 bits that are in the file, whatever is asked.

    What a runtime makes of them is for the session to say: of the files that runtimes share, ONNX Runtime computes
    most layers in fp32 between the roundings.
    """
    return None if manifest.precision in ("int8", "fp16") else manifest.precision


def _is_shared_int8(manifest: ArtifactManifest) -> bool:
    return manifest.format in ("onnx", "trt") and manifest.precision == "int8"


def decide(probabilities: NDArray[np.float32], manifest: ArtifactManifest) -> NDArray[np.intp]:
    """Turn probabilities `(N, classes)` into class indices `(N,)`: largest, or second class from a threshold on.

    Where an image can have several classes it is whether it has each, `(N, classes)` of 0 and 1.
    """
    if manifest.decision == "each":
        return (probabilities >= PRESENT_FROM).astype(np.intp)
    if manifest.decision == "threshold" and manifest.threshold is not None:
        return (probabilities[:, 1] >= manifest.threshold).astype(np.intp)
    return np.asarray(np.argmax(probabilities, axis=1), dtype=np.intp)


def open_artifact(path: Path) -> Artifact:
    """Open an artifact by its folder, its manifest or its model file, after checking all of it.

    Raises `NoRunError` where nothing is, `ArtifactError` for a missing or unknown manifest, a file
    whose size or content differs from it, external data, or a model file of another manifest.
    """
    if not path.exists():
        raise NoRunError(f"there is no artifact at {path}: give a folder made by `ttl-deploy export`")
    folder = path if path.is_dir() else path.parent
    manifest = _read_manifest(folder)
    _check_names(folder, manifest)
    for entry in manifest.files:
        _check_file(folder, entry)
    _check_metadata(folder, manifest)
    return Artifact(folder=folder, manifest=manifest)


def _read_manifest(folder: Path) -> ArtifactManifest:
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no {MANIFEST}: not an artifact; give a folder made by `ttl-deploy export`")
    try:
        return codec.load(ArtifactManifest, path)
    except DataError as error:
        raise ArtifactError(str(error)) from error


def _check_names(folder: Path, manifest: ArtifactManifest) -> None:
    named = [entry.name for entry in manifest.files]
    missing = sorted({*FILES[manifest.format], REFERENCE, GOLDEN} - set(named))
    if missing:
        raise ArtifactError(f"{folder / MANIFEST} does not list {', '.join(missing)}: export the artifact again")
    for name in named:
        if Path(name).name != name or name in ("", ".", ".."):
            raise ArtifactError(
                f"{folder / MANIFEST} names {name!r}; only plain file names in its own folder are allowed"
            )


def _check_file(folder: Path, entry: FileEntry) -> None:
    path = folder / entry.name
    if path.is_symlink() or not path.is_file():
        raise ArtifactError(f"{path} is missing or not a regular file: copy the artifact again, whole")
    size = path.stat().st_size
    if size != entry.size_bytes:
        raise ArtifactError(f"{path} has {size} bytes, its manifest says {entry.size_bytes}: copy the artifact again")
    if sha256_file(path) != entry.sha256:
        raise ArtifactError(f"{path} was changed or damaged (its SHA-256 differs): copy or export the artifact again")


def _check_metadata(folder: Path, manifest: ArtifactManifest) -> None:
    """Refuse a manifest that does not say what the model file says of itself."""
    model = folder / FILES[manifest.format][0]
    facts = read_ir_facts(model) if manifest.format == "openvino" else read_onnx_facts(model)
    inside = facts.metadata.get(METADATA_KEY)
    if inside is None:
        raise ArtifactError(f"{model} carries no metadata of ttl-deploy: export it again")
    try:
        told = codec.from_builtins(ArtifactManifest, json.loads(inside), source=f"the metadata of {model}")
    except (DataError, json.JSONDecodeError) as error:
        raise ArtifactError(str(error)) from error
    if replace(told, files=()) != replace(manifest, files=()):
        raise ArtifactError(f"{folder / MANIFEST} and the model file beside it tell different stories: export again")


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{path} cannot be read ({error}): export the artifact again") from error
