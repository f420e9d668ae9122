"""What a model answered, laid beside the truth: one column per scored class, unknown labels marked as such.

Three kinds of task become one table. Of two classes the second is scored; of several each against the rest;
of several labels per image each by itself. A label that nobody knows counts for nothing: it is no negative.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttl_deploy.errors import DataError, UsageError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Task = Literal["binary", "multiclass", "multilabel"]
UNKNOWN = -1
_GRADE = re.compile(r"(?P<word>\D*)(?P<number>\d{1,9})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Checked predictions of one model over S seeds, for N images with a known label, and K scored classes.

    Attributes:
        scores: probabilities `(S, N, K)`.
        decided: whether each class was decided on, `(S, N, K)`.
        truth: 1, 0 or `UNKNOWN`, `(N, K)`; unknown only where an image has several labels.
        chosen: the class that each image was taken for, `(S, N)`; and `labels` `(N,)` the one that it is.
            Both are empty where an image has several labels.
        kept: which of the given images these are, `(given,)`: those with any known label.
    """

    task: Task
    scores: Floats
    decided: Flags
    truth: Integers
    chosen: Integers
    labels: Integers
    kept: Flags

    @property
    def images(self) -> int:
        """How many images have a label."""
        return len(self.truth)

    @property
    def has_both(self) -> Flags:
        """Whether each scored class has positives and negatives, `(K,)`."""
        return np.asarray((self.truth == 1).any(axis=0) & (self.truth == 0).any(axis=0))


def read_answers(probabilities: ArrayLike, labels: ArrayLike, *, threshold: float | None = None) -> Answers:
    """Lay predictions beside labels.

    `probabilities` is `(N, C)` or `(seeds, N, C)`. `labels` is `(N,)`, the number of each image's class, or
    `(N, C)` of 0 and 1, where an image can have several; -1 or NaN is a label that is not known. The decision is
    the most probable class (the first of equals); with a `threshold`, for two classes only, the second class
    from that probability on. A label of several is decided on from 0.5 on. Raises `DataError` where shapes do
    not fit, a label is no class, or a probability is not finite; `UsageError` for a threshold with other tasks.
    """
    values = _check_probabilities(probabilities)
    truth = _check_labels(labels, values)
    if truth.ndim == 2:
        return _several_labels(values, truth, threshold=threshold)
    return _one_label(values, truth, threshold=threshold)


def are_grades(classes: Sequence[str]) -> bool:
    """Tell whether three or more classes are grades in their order: numbers, or one word with rising numbers."""
    parts = [_GRADE.fullmatch(name.strip()) for name in classes]
    found = [(part["word"].strip().casefold(), int(part["number"])) for part in parts if part]
    numbers = [number for _, number in found]
    one_word = len({word for word, _ in found}) == 1
    return len(found) == len(classes) >= 3 and one_word and numbers == sorted(set(numbers))


def _one_label(values: Floats, labels: Integers, *, threshold: float | None) -> Answers:
    classes = values.shape[2]
    if threshold is not None and classes != 2:
        raise UsageError(f"a threshold was given for {classes} classes: it decides between two only")
    kept = labels != UNKNOWN
    values, labels = values[:, kept], labels[kept]
    chosen = values.argmax(axis=2) if threshold is None else (values[:, :, 1] >= threshold).astype(np.int64)
    scored = np.array((1,) if classes == 2 else tuple(range(classes)))
    return Answers(
        task="binary" if classes == 2 else "multiclass",
        scores=values[:, :, scored],
        decided=chosen[:, :, None] == scored,
        truth=(labels[:, None] == scored).astype(np.int64),
        chosen=chosen,
        labels=labels,
        kept=kept,
    )


def _several_labels(values: Floats, truth: Integers, *, threshold: float | None) -> Answers:
    if threshold is not None:
        raise UsageError("a threshold was given for images with several labels: it decides between two classes only")
    kept = (truth != UNKNOWN).any(axis=1)
    values = values[:, kept]
    return Answers(
        task="multilabel",
        scores=values,
        decided=values >= 0.5,
        truth=truth[kept],
        chosen=np.empty((len(values), 0), dtype=np.int64),
        labels=np.empty(0, dtype=np.int64),
        kept=kept,
    )


def _check_probabilities(probabilities: ArrayLike) -> Floats:
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or len(values) < 1 or values.shape[2] < 1:
        raise DataError(f"probabilities {np.shape(probabilities)}: give (images, classes) or (seeds, images, classes)")
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise DataError(
            f"{bad} of {values.size} predictions are not finite numbers: the model diverged or its weights are damaged"
        )
    return values


def _check_labels(labels: ArrayLike, values: Floats) -> Integers:
    """Return labels as whole numbers, `(N,)` or `(N, C)`, unknown ones as `UNKNOWN`."""
    _, images, classes = values.shape
    given = _as_numbers(labels)
    several = given.ndim == 2
    if given.shape != ((images, classes) if several else (images,)) or (classes < 2 and not several):
        raise DataError(
            f"probabilities {values.shape[1:]} and labels {given.shape} do not fit: give (images, classes) or "
            "(seeds, images, classes), and one label per image, or one per image and class"
        )
    found = np.where(np.isnan(given), UNKNOWN, given)
    most = 1 if several else classes - 1
    known = found[found != UNKNOWN]
    wrong = known[(known < 0) | (known > most) | (known != np.round(known))]
    if len(wrong):
        allowed = "0 and 1" if several else f"0..{most}, which are predicted,"
        raise DataError(f"labels {wrong.min():g}..{wrong.max():g} given, only {allowed} or -1 for unknown are allowed")
    return found.astype(np.int64)


def _as_numbers(labels: ArrayLike) -> Floats:
    try:
        return np.asarray(labels, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"labels must be numbers ({error}): give the number of the class, and -1 or NaN where it is not known"
        ) from error
