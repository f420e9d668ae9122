"""What an artifact's probabilities mean: temperature and threshold from validation, and what they do on each split."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.evidence import calibration, intervals, operating_point
from ttl_deploy.evidence.front import LabelledSplit
from ttl_deploy.evidence.operating_point import Rule
from ttl_deploy.records.artifacts import Calibration, CalibrationEffect, OperatingPoint
from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import Metric, Score

Predicted = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """Probabilities `(n, C)` as the file gives them, by split, with what was settled about them and their scores."""

    probabilities: dict[Split, Predicted]
    calibration: Calibration | None
    operating_point: OperatingPoint
    scores: tuple[Score, ...]


def settle(
    probabilities: Mapping[Split, Predicted], truth: Mapping[Split, LabelledSplit], *, rule: Rule, calibrate: bool
) -> Settled:
    """Fit the temperature on `val`, choose the threshold there on what it gives, and score every split with both.

    `probabilities` are the model's own, of `val` and, where it was opened, `test`, on which nothing is fitted.
    Errors as of `operating_point.choose_operating_point`.
    """
    own = truth["val"]
    temperature = calibration.fit_temperature(probabilities["val"], own.labels) if calibrate else None
    value = 1.0 if temperature is None else temperature.value
    several = np.ndim(own.labels) == 2
    after = {
        split: calibration.apply_temperature(given, value, multilabel=several) for split, given in probabilities.items()
    }
    point = operating_point.choose_operating_point(rule, after["val"], own.labels, own.patients)
    scored = {split: _scores(after[split], truth[split], point.threshold) for split in after}
    scores = tuple(score for of_split in scored.values() for score in of_split)
    return Settled(
        probabilities=after,
        calibration=None if temperature is None else _record(temperature, probabilities, after, truth, scored),
        operating_point=operating_point.with_scores(point, scores),
        scores=scores,
    )


def _record(
    temperature: calibration.Temperature,
    before: Mapping[Split, Predicted],
    after: Mapping[Split, Predicted],
    truth: Mapping[Split, LabelledSplit],
    scored: Mapping[Split, tuple[Score, ...]],
) -> Calibration:
    effects = tuple(_effect(before[split], after[split], truth[split], scored[split]) for split in before)
    return Calibration(
        temperature=temperature.value,
        split="val",
        images=effects[0].images,
        patients=effects[0].patients,
        effects=effects,
        note=temperature.note,
    )


def _effect(before: Predicted, after: Predicted, truth: LabelledSplit, scored: tuple[Score, ...]) -> CalibrationEffect:
    return CalibrationEffect(
        split=truth.split,
        images=scored[0].images,
        patients=scored[0].patients,
        nll_before=calibration.negative_log_likelihood(before, truth.labels),
        nll_after=calibration.negative_log_likelihood(after, truth.labels),
        error_before=_calibration_error(_scores(before, truth, None)),
        error_after=_calibration_error(scored),
    )


def _scores(probabilities: Predicted, truth: LabelledSplit, threshold: float | None) -> tuple[Score, ...]:
    return intervals.scores(
        probabilities, truth.labels, truth.patients, split=truth.split, threshold=threshold, graded=truth.graded
    )


def _calibration_error(scores: tuple[Score, ...]) -> Score | None:
    wanted: Metric = "calibration_error"
    return next((score for score in scores if score.metric == wanted), None)
