"""Images in, one row per image out; an unreadable image costs its own row only.

A folder of any size streams through: a few batches of images are decoded ahead of the model, and
each row is written when it is there.
"""

import csv
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import UnreadableImageError, UsageError
from ttl_deploy.files import escape_cell, publish
from ttl_deploy.pixels import decode
from ttl_deploy.plugins import Session
from ttl_deploy.records.data import DecodeSettings
from ttl_deploy.runtime.artifact import Artifact
from ttl_deploy.runtime.image_files import count_images, find_images
from ttl_deploy.runtime.inference import open_safely

_BATCHES_AHEAD = 2
_Pixels = NDArray[np.uint8]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionStream:
    """Predictions that are computed while they are iterated over, once; and how they are computed."""

    answers: Iterator[Prediction | PredictionFailure]
    images: int
    runtime: str
    precision: str

    def __iter__(self) -> Iterator[Prediction | PredictionFailure]:
        """Go on with the predictions."""
        return self.answers


def predict(
    artifact: Artifact,
    paths: Sequence[Path],
    *,
    target: str | None = None,
    precision: str | None = None,
    threads: int = 1,
    batch: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PredictionStream:
    """Predict images and folders of images, in order; `progress` is called with done and total.

    Without a `target` or a `precision` they are the artifact's own, in which it was checked at its export.
    At most `4 * batch + threads + 1` decoded images are in memory, however many there are. `threads` are
    the runtime's; as many decode images meanwhile. Raises `UsageError` at once where there is nothing to
    predict, the batch is too big, or the precision cannot run.
    """
    images = count_images(paths)
    limit = artifact.manifest.input.max_batch
    if not 1 <= batch <= limit:
        raise UsageError(f"batch = {batch}: {artifact.manifest.name} takes 1 to {limit} images at a time")
    session = open_safely(
        target or artifact.default_target,
        artifact.model_path,
        threads=threads,
        precision=precision or _own_precision(artifact),
    )
    answers = _predictions(artifact, session, find_images(paths), threads=threads, batch=batch)
    counted = _count(answers, lambda done: progress(done, max(done, images)), every=batch)
    return PredictionStream(answers=counted, images=images, runtime=session.runtime, precision=session.precision)


def _own_precision(artifact: Artifact) -> str | None:
    """Return the precision to ask for: bf16 is chosen on opening, all others are how the file is."""
    return "bf16" if artifact.manifest.precision == "bf16" else None


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
    artifact: Artifact, session: Session, files: Iterator[Path], *, threads: int, batch: int
) -> Iterator[Prediction | PredictionFailure]:
    settings = artifact.manifest.decode
    with ThreadPoolExecutor(threads) as pool:
        decoded = _decode_ahead(pool, files, settings, ahead=_BATCHES_AHEAD * batch + threads)
        try:
            while chunk := list(islice(decoded, batch)):
                yield from _answer(artifact, session, chunk)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _decode_ahead(
    pool: ThreadPoolExecutor, files: Iterator[Path], settings: DecodeSettings, *, ahead: int
) -> Iterator[tuple[Path, _Pixels | PredictionFailure]]:
    """Yield files with their pixels, in order, while the next `ahead` are being decoded."""
    waiting: deque[tuple[Path, Future[_Pixels | PredictionFailure]]] = deque()
    for path in files:
        waiting.append((path, pool.submit(_decode, path, settings)))
        if len(waiting) > ahead:
            yield _take(waiting)
    while waiting:
        yield _take(waiting)


def _take(
    waiting: "deque[tuple[Path, Future[_Pixels | PredictionFailure]]]",
) -> tuple[Path, _Pixels | PredictionFailure]:
    path, future = waiting.popleft()
    return path, future.result()


def _count(
    answers: Iterator[Prediction | PredictionFailure], told: Callable[[int], None], *, every: int
) -> Iterator[Prediction | PredictionFailure]:
    """Pass answers on, and tell how many there were `every` so many and at the end."""
    done = 0
    for done, answer in enumerate(answers, start=1):
        yield answer
        if done % every == 0:
            told(done)
    if done % every:
        told(done)


def _decode(path: Path, settings: DecodeSettings) -> NDArray[np.uint8] | PredictionFailure:
    try:
        return decode(path, settings)
    except UnreadableImageError as error:
        return PredictionFailure(path=path, reason=str(error))


def _answer(
    artifact: Artifact, session: Session, chunk: Sequence[tuple[Path, _Pixels | PredictionFailure]]
) -> Iterator[Prediction | PredictionFailure]:
    """Yield one answer per image of the chunk, in order."""
    classes = artifact.manifest.classes
    images = [image for _, image in chunk if not isinstance(image, PredictionFailure)]
    probabilities = session.run(np.stack(images)) if images else np.zeros((0, len(classes)), np.float32)
    rows = zip(probabilities, artifact.decide(probabilities), strict=True)
    for path, image in chunk:
        if isinstance(image, PredictionFailure):
            yield image
            continue
        values, index = next(rows)
        yield Prediction(
            path=path, predicted=name_answer(index, classes), probabilities=tuple(float(value) for value in values)
        )


def name_answer(decided: NDArray[np.intp], classes: Sequence[str]) -> str:
    """Name the decided class; of several per image, all that are present, joined by `|`, or nothing."""
    if np.ndim(decided) == 0:
        return classes[int(decided)]
    return "|".join(name for name, present in zip(classes, decided, strict=True) if present)


def _row(prediction: Prediction | PredictionFailure, classes: int) -> list[str]:
    if isinstance(prediction, PredictionFailure):
        return [str(prediction.path), "", *[""] * classes, "error", prediction.reason]
    values = [f"{value:.6f}" for value in prediction.probabilities]
    return [str(prediction.path), prediction.predicted, *values, "ok", ""]
