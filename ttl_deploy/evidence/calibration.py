"""One temperature for a model's logits, so that its probabilities come true about as often as they say.

Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks", section 4.2: logits z become
z / T, with the T that minimises the negative log-likelihood on held-out data. Log-probabilities are logits
up to a constant per image, which softmax does not see, so stored probabilities are all it takes. Where an image can
have several labels, each known one is a case of two classes, present and absent, and all share the temperature.
The order of two classes' scores, and the most probable class, stay as they are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ttl_deploy.errors import DataError

SHARPEST = 0.05
"""A temperature below would be read off a few hard images: it is not taken."""
FLATTEST = 8.0
"""A temperature above is not taken: from there on, probabilities that single precision rounded to 0 would count."""
_SMALLEST = float(np.finfo(np.float32).tiny)
_STEPS = 100
_PRECISION = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperature:
    """A fitted temperature; or 1, and `note` says why none was fitted."""

    value: float
    note: str = ""


def fit_temperature(probabilities: ArrayLike, labels: ArrayLike) -> Temperature:
    """Fit one temperature to validation's probabilities `(N, C)` and labels `(N,)`, or `(N, C)` of several each.

    It stays 1, with a note, where the data do not determine it: one class only, every image answered right (the
    sharper the better, without end), an optimum outside of `SHARPEST` to `FLATTEST`, or no gain.
    """
    logs, truth = _logs(probabilities, labels)
    reason = _undetermined(logs, truth)
    if reason:
        return Temperature(value=1.0, note=f"the temperature was left at 1: {reason}")
    value = 1 / _best_sharpness(logs, truth)
    if not _mean_loss(logs / value, truth) < _mean_loss(logs, truth):
        return Temperature(
            value=1.0, note="the temperature was left at 1: no other makes the validation split likelier"
        )
    return Temperature(value=value)


def apply_temperature(probabilities: ArrayLike, temperature: float, *, multilabel: bool = False) -> NDArray[np.float32]:
    """Return softmax(log p / T) of probabilities `(N, C)`, which is softmax(logits / T); T = 1 changes nothing.

    With several labels per image it is the sigmoid of logits / T.
    """
    given = np.asarray(probabilities)
    values = given.astype(np.float32, copy=False)
    if temperature == 1:
        return values
    if multilabel:
        logits = (_safe_logs(given) - _safe_logs(1 - given)) / temperature
        return (1 / (1 + np.exp(-logits))).astype(np.float32)
    return np.exp(_normalised(_safe_logs(values) / temperature)).astype(np.float32)


def negative_log_likelihood(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean of -log p of the true class over `(N, C)`, in nats; 0 counts as the smallest single float."""
    return _mean_loss(*_logs(probabilities, labels))


def _logs(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if values.ndim == 2 and truth.shape == values.shape:
        values, truth = np.stack((1 - values.ravel(), values.ravel()), axis=1), truth.ravel()
    if values.ndim != 2 or values.shape[1] < 2 or truth.shape != values.shape[:1] or len(truth) == 0:
        raise DataError(
            f"probabilities {values.shape} and labels {truth.shape} do not fit: give (N, C) and (N,) or (N, C), N > 0"
        )
    if not np.isfinite(values).all():
        raise DataError("some predictions are not finite numbers: the model diverged or its weights are damaged")
    known = truth >= 0  # -1: nobody knows it
    return _safe_logs(values[known]), truth[known]


def _safe_logs(values: NDArray[np.floating]) -> NDArray[np.float64]:
    logs: NDArray[np.float64] = np.log(np.maximum(values.astype(np.float64), _SMALLEST))
    return logs


def _normalised(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract the log of the sum of exponentials of each row."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised


def _mean_loss(logits: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    return float(-_normalised(logits)[np.arange(len(truth)), truth].mean())


def _undetermined(logs: NDArray[np.float64], truth: NDArray[np.int64]) -> str:
    """Say why no temperature can be fitted, or nothing."""
    if (truth == truth[0]).all():
        return f"all {len(truth)} validation images are of one class"
    at_least = logs >= logs[np.arange(len(truth)), truth][:, None]
    if (at_least.sum(axis=1) == 1).all():
        return f"all {len(truth)} validation images are answered right, so a sharper model always looks better"
    if _derivatives(logs, truth, 1 / SHARPEST)[0] < 0:
        return f"the best one is below {SHARPEST:g}, too sharp to rest on {len(truth)} images"
    if _derivatives(logs, truth, 1 / FLATTEST)[0] > 0:
        return f"the best one is above {FLATTEST:g}: the probabilities say next to nothing of the labels"
    return ""


def _derivatives(logs: NDArray[np.float64], truth: NDArray[np.int64], sharpness: float) -> tuple[float, float]:
    """Return first and second derivative of the mean loss by the sharpness 1/T, in which it is convex."""
    weights = np.exp(_normalised(logs * sharpness))
    means = (weights * logs).sum(axis=1)
    variances = (weights * (logs - means[:, None]) ** 2).sum(axis=1)
    return float((means - logs[np.arange(len(truth)), truth]).mean()), float(variances.mean())


def _best_sharpness(logs: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Find where the slope is zero by Newton's steps, halving the bracket wherever a step would leave it."""
    low, high, sharpness = 1 / FLATTEST, 1 / SHARPEST, 1.0
    for _ in range(_STEPS):
        slope, curvature = _derivatives(logs, truth, sharpness)
        low, high = (low, sharpness) if slope > 0 else (sharpness, high)
        step = sharpness - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - sharpness) <= _PRECISION * sharpness:
            break
        sharpness = following
    return sharpness
