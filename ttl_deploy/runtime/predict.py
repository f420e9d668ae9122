"""Images in, one row per image out; an unreadable image costs its own row only."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ttl_deploy import plugins
from ttl_deploy.errors import UnreadableImageError, UsageError
from ttl_deploy.files import escape_cell, publish
from ttl_deploy.pixels import decode
from ttl_deploy.plugins import Session
from ttl_deploy.records.data import DecodeSettings
from ttl_deploy.runtime.artifact import Artifact

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the model says of one image; `probabilities` in class order."""

    path: Path
    predicted: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionFailure:
    """An image that could not be read, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionCounts:
    """How many images were predicted and how many could not be read."""

    predicted: int
    failed: int


def predict(
    artifact: Artifact,
    paths: Sequence[Path],
    *,
    target: str = "onnxruntime-cpu",
    threads: int = 1,
    batch: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Prediction | PredictionFailure]:
    """Predict images and folders of images, in order, as an iterator; `progress` is called with done and total.

    Raises `UsageError` at once where there is nothing to predict or the batch is too big.
    """
    files = find_images(paths)
    limit = artifact.manifest.input.max_batch
    if not 1 <= batch <= limit:
        raise UsageError(f"batch = {batch}: {artifact.manifest.name} takes 1 to {limit} images at a time")
    session = plugins.load("targets", target)().open(artifact.model_path, threads=threads)
    return _predictions(artifact, session, files, threads=threads, batch=batch, progress=progress)


def find_images(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Return the given files, and for each folder the image files below it, sorted; `UsageError` if none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        else:
            found.append(path)
    if not found:
        given = ", ".join(map(str, paths)) or "nothing"
        raise UsageError(
            f"no images in {given}: give image files, or folders that hold PNG, JPEG, TIFF, WebP or BMP files"
        )
    return tuple(found)


def write_predictions(
    path: Path, predictions: Iterable[Prediction | PredictionFailure], *, classes: Sequence[str]
) -> PredictionCounts:
    """Publish predictions as a CSV table, whole or not at all, and count them.

    Columns: path, predicted, one `p_<class>` per class, status (`ok` or `error`), error. Cells that a
    spreadsheet would run as a formula are prefixed with an apostrophe.
    """
    counts = {"ok": 0, "error": 0}

    def write(file: IO[bytes]) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text)
        writer.writerow(
            [escape_cell(cell) for cell in ("path", "predicted", *(f"p_{c}" for c in classes), "status", "error")]
        )
        for prediction in predictions:
            row = _row(prediction, len(classes))
            counts[row[-2]] += 1
            writer.writerow([escape_cell(cell) for cell in row])
        text.detach()

    publish(path, write)
    return PredictionCounts(predicted=counts["ok"], failed=counts["error"])


def _predictions(
    artifact: Artifact,
    session: Session,
    files: Sequence[Path],
    *,
    threads: int,
    batch: int,
    progress: Callable[[int, int], None],
) -> Iterator[Prediction | PredictionFailure]:
    settings = artifact.manifest.decode
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(files), batch):
            chunk = files[start : start + batch]
            decoded = list(pool.map(lambda path: _decode(path, settings), chunk))
            yield from _answer(artifact, session, chunk, decoded)
            progress(start + len(chunk), len(files))


def _decode(path: Path, settings: DecodeSettings) -> NDArray[np.uint8] | PredictionFailure:
    try:
        return decode(path, settings)
    except UnreadableImageError as error:
        return PredictionFailure(path=path, reason=str(error))


def _answer(
    artifact: Artifact,
    session: Session,
    chunk: Sequence[Path],
    decoded: Sequence[NDArray[np.uint8] | PredictionFailure],
) -> Iterator[Prediction | PredictionFailure]:
    """Yield one answer per image of the chunk, in order."""
    images = [image for image in decoded if not isinstance(image, PredictionFailure)]
    probabilities = (
        session.run(np.stack(images)) if images else np.zeros((0, len(artifact.manifest.classes)), np.float32)
    )
    rows = zip(probabilities, artifact.decide(probabilities), strict=True)
    for path, image in zip(chunk, decoded, strict=True):
        if isinstance(image, PredictionFailure):
            yield image
            continue
        values, index = next(rows)
        name = artifact.manifest.classes[index]
        yield Prediction(path=path, predicted=name, probabilities=tuple(float(value) for value in values))


def _row(prediction: Prediction | PredictionFailure, classes: int) -> list[str]:
    if isinstance(prediction, PredictionFailure):
        return [str(prediction.path), "", *[""] * classes, "error", prediction.reason]
    values = [f"{value:.6f}" for value in prediction.probabilities]
    return [str(prediction.path), prediction.predicted, *values, "ok", ""]
