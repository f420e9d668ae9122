"""The format `onnx`: an artifact folder that appears only when the file in it does what the model does."""

import ctypes
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ttl_deploy.errors import GateError, UsageError
from ttl_deploy.export.golden import golden_images
from ttl_deploy.export.model_card import render_model_card
from ttl_deploy.export.onnx_writer import INPUT, MAX_BATCH, OPSET, OUTPUT, Deployable, make_deployable, write_onnx
from ttl_deploy.files import (
    make_folder,
    process_is_alive,
    publish_bytes,
    publish_text,
    sha256_file,
    storage_errors,
    sync_folder,
)
from ttl_deploy.models.input_conventions import describe_convention
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import ArtifactManifest, FileEntry, InputSpec, Parity
from ttl_deploy.records.models import InputConvention
from ttl_deploy.runtime.artifact import (
    GOLDEN,
    MANIFEST,
    METADATA_KEY,
    MODEL,
    MODEL_CARD,
    PARITY,
    REFERENCE,
    open_artifact,
)
from ttl_deploy.runtime.inference import infer_file
from ttl_deploy.runtime.parity import PARITY_LIMIT, compare

REFERENCE_TARGET = "onnxruntime-cpu"
_GATE_BATCH = 16
_SMALL_BATCH_IMAGES = 4
_TIMEOUT_S = 600.0
_CONSTANT_BELOW = 1e-7
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_CONTENT = frozenset({MODEL, MANIFEST, REFERENCE, GOLDEN, PARITY, MODEL_CARD})


class OnnxFormat:
    """Exports to one ONNX file with everything needed to trust it beside it."""

    def export(
        self,
        model: nn.Module,
        manifest: ArtifactManifest,
        folder: Path,
        *,
        images: NDArray[np.uint8],
        references: tuple[Sequence[str], NDArray[np.float32]],
        limit: float = PARITY_LIMIT,
    ) -> ArtifactManifest:
        """Export a model, normalised `(N, C, H, W)` to logits `(N, classes)`, as an artifact folder.

        `manifest.input` says how images are normalised: three entries for RGB (C = 3), one for grey (C = 1);
        `manifest.calibration` by which temperature the file divides the logits. `images` are real
        validation images `(n, H, W, 3)`, 64 or more where there are so many, used for the check and not stored.
        `references` are content hashes of source images and the torch model's probabilities `(m, classes)` for
        them, at that temperature. What the format knows better than the caller
        (input and output names, precision, opset, file list) is filled in. The folder is replaced
        whole if it was an artifact; raises `UsageError` if it holds anything else, and `GateError`,
        leaving all as it was, where the file does not do what the model does.
        """
        _check_arguments(manifest, folder, images=images, references=references)
        deployable = make_deployable(
            model, mean=manifest.input.mean, std=manifest.input.std, temperature=manifest.temperature
        )
        with _staged(folder) as stage:
            filled = _write_model(deployable, manifest, stage / MODEL)
            golden = golden_images(manifest.input.height, manifest.input.width)
            golden_probabilities = torch_probabilities(deployable, golden)
            parity = _check_model(
                stage / MODEL, deployable, filled, images=images, golden=(golden, golden_probabilities), limit=limit
            )
            _write_arrays(stage / GOLDEN, images=golden, probabilities=golden_probabilities)
            _write_arrays(
                stage / REFERENCE,
                sha256=np.array(references[0], dtype="U64"),
                probabilities=np.asarray(references[1], dtype=np.float32),
            )
            codec.save(stage / PARITY, parity)
            publish_text(stage / MODEL_CARD, render_model_card(filled, parity))
            # The model card is for people, who may add to it; everything else is pinned by its hash.
            whole = replace(filled, files=tuple(_entry(stage / name) for name in (MODEL, REFERENCE, GOLDEN, PARITY)))
            codec.save(stage / MANIFEST, whole)
            open_artifact(stage)
            _put_in_place(stage, folder)
        return whole


def torch_probabilities(deployable: Deployable, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what torch itself, eager and in float32, makes of uint8 images `(N, H, W, 3)`."""
    answers = []
    with torch.inference_mode():
        for start in range(0, len(images), _GATE_BATCH):
            batch = np.ascontiguousarray(images[start : start + _GATE_BATCH])
            answers.append(deployable(torch.from_numpy(batch)).numpy())
    return np.concatenate(answers)


def _write_model(deployable: Deployable, manifest: ArtifactManifest, path: Path) -> ArtifactManifest:
    """Write the model file, its metadata inside; returns the manifest as it stands in there."""
    filled = replace(
        manifest,
        format="onnx",
        precision="fp32",
        input=replace(manifest.input, name=INPUT, max_batch=MAX_BATCH, normalisation=_describe_input(manifest.input)),
        output=OUTPUT,
        opset=OPSET,
        ir_version=10,
        files=(),
    )
    metadata = {
        METADATA_KEY: codec.to_json(filled),
        "classes": json.dumps(filled.classes, ensure_ascii=False),
        "input": f"uint8 RGB (batch, {filled.input.height}, {filled.input.width}, 3); normalised inside: "
        f"{filled.input.normalisation}",
        "output": f"probabilities (batch, {len(filled.classes)}), {_describe_output(filled)}",
        "intended_use": filled.intended_use,
    }
    written = write_onnx(deployable, path, image_size=filled.input.height, metadata=metadata)
    if written.ir_version != filled.ir_version:
        raise GateError(
            f"the exporter wrote IR version {written.ir_version}, not {filled.ir_version}: nothing was written"
        )
    return filled


def _describe_input(spec: InputSpec) -> str:
    return describe_convention(InputConvention(mean=spec.mean, std=spec.std))


def _describe_output(manifest: ArtifactManifest) -> str:
    """Say in a few words what a reader of the file alone must know to use its probabilities."""
    scaling = (
        "not calibrated" if manifest.temperature == 1 else f"calibrated by the temperature {manifest.temperature:.4g}"
    )
    if manifest.threshold is None:
        return f"{scaling}; the largest decides"
    return f"{scaling}; class 1 from {manifest.threshold:.9g} on"


def _check_model(
    path: Path,
    deployable: Deployable,
    manifest: ArtifactManifest,
    *,
    images: NDArray[np.uint8],
    golden: tuple[NDArray[np.uint8], NDArray[np.float32]],
    limit: float,
) -> Parity:
    """Run the file in a child process, one by one and in batches; raises `GateError` unless it does what torch does."""
    expected = torch_probabilities(deployable, images)
    given = _infer(path, images, batch=_GATE_BATCH)
    singly = _infer(path, images[:_SMALL_BATCH_IMAGES], batch=1)
    synthetic = _infer(path, golden[0], batch=len(golden[0]))
    if np.ptp(np.concatenate([given, synthetic]), axis=0).max() < _CONSTANT_BELOW:
        raise GateError("the model gives the same answer for every image: train it before you export it")
    real = compare(given, expected, manifest, limit=limit, reference="")
    single = compare(singly, expected[: len(singly)], manifest, limit=limit, reference="")
    drawn = compare(synthetic, golden[1], manifest, limit=limit, reference="", count_flips=False)
    parity = Parity(
        images=real.images + drawn.images,
        max_difference=max(part.max_difference for part in (real, single, drawn)),
        mean_difference=real.mean_difference,
        decisions_flipped=max(real.decisions_flipped, single.decisions_flipped),
        limit=limit,
        reference=f"torch {torch.__version__} eager in fp32 on {real.images} real and {drawn.images} synthetic images",
    )
    if not parity.passed:
        raise GateError(
            f"the exported file is not the model: probabilities differ by up to {parity.max_difference:.2g} "
            f"(allowed {limit:g}) and {parity.decisions_flipped} of {real.images} decisions changed; "
            "nothing was published"
        )
    return parity


def _infer(path: Path, images: NDArray[np.uint8], *, batch: int) -> NDArray[np.float32]:
    outcome = run_isolated(infer_file, REFERENCE_TARGET, path, images, batch, 1, timeout_s=_TIMEOUT_S)
    return value_of(outcome, error=GateError, doing=f"cannot run the exported file on {REFERENCE_TARGET}")


def _check_arguments(
    manifest: ArtifactManifest,
    folder: Path,
    *,
    images: NDArray[np.uint8],
    references: tuple[Sequence[str], NDArray[np.float32]],
) -> None:
    height, width = manifest.input.height, manifest.input.width
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (height, width, 3) or len(images) == 0:
        raise GateError(
            f"the check needs real uint8 images (n, {height}, {width}, 3), not {images.dtype} {images.shape}"
        )
    if references[1].shape != (len(references[0]), len(manifest.classes)):
        raise GateError(
            f"{len(references[0])} reference images came with probabilities {references[1].shape}, "
            f"not ({len(references[0])}, {len(manifest.classes)})"
        )
    if folder.exists() and (foreign := sorted(p.name for p in folder.iterdir() if p.name not in _CONTENT)):
        raise UsageError(f"{folder} holds other files ({', '.join(foreign[:5])}): choose a new or empty folder")


def _write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    publish_bytes(path, content.getvalue())


def _entry(path: Path) -> FileEntry:
    return FileEntry(name=path.name, size_bytes=path.stat().st_size, sha256=sha256_file(path))


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Give a hidden folder beside `folder` to work in; it is gone afterwards, whatever happened."""
    make_folder(folder.parent)
    for path in folder.parent.iterdir():
        if path.name.startswith(f".{folder.name}.") and path.suffix == ".partial":
            pid = path.name.split(".")[-2]
            if pid.isdigit() and not process_is_alive(int(pid)):
                shutil.rmtree(path)
    stage = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    make_folder(stage)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _put_in_place(stage: Path, folder: Path) -> None:
    """Rename the finished folder; an older artifact there is swapped out, in one step where the system can."""
    with storage_errors(folder):
        if not folder.exists():
            stage.rename(folder)
        elif not _exchange(stage, folder):
            old = folder.with_name(f".{folder.name}.old.{os.getpid()}.partial")
            folder.rename(old)
            stage.rename(folder)
            shutil.rmtree(old)
    sync_folder(folder.parent)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two folders atomically (Linux `renameat2`); False where the system or file system cannot."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0)
