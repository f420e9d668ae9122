"""How far two sets of probabilities for the same images lie apart, and what that does to decisions and AUROC."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttl_deploy import plugins
from ttl_deploy.evidence import noninferiority
from ttl_deploy.evidence.intervals import LEVEL, resample, subtract_resampled
from ttl_deploy.records.artifacts import ArtifactManifest, AurocDrop, Execution, Gate, Parity
from ttl_deploy.records.data import Label, Split
from ttl_deploy.records.scores import Metric, Needed, PairedDifference
from ttl_deploy.runtime.artifact import decide
from ttl_deploy.runtime.inference import run_batches

PARITY_LIMIT = 1e-4
_LEAST = 1e-30
_LEAST_OF_TWO = 2.0**-24  # nearer to 1 than this no number of single precision comes
_ONLY: tuple[Metric, ...] = ("auroc",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Labels and patients of the images that probabilities are compared on, one of each per image."""

    labels: Sequence[Label]
    patients: Sequence[str]
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a file said, and what ran it."""

    probabilities: NDArray[np.float32]
    execution: Execution


def answer(
    target: str, model: Path, images: NDArray[np.uint8], batch: int, threads: int, precision: str | None
) -> Answered:
    """Open a model file on a target and run images through it; made to be called in a child process."""
    opened = plugins.load("targets", target)()
    session = opened.open(model, threads=threads, precision=precision)
    return Answered(probabilities=run_batches(session, images, max_batch=batch), execution=describe(session, target))


def describe(session: plugins.Session, target: str) -> Execution:
    """Return what a session says of itself."""
    return Execution(target=target, runtime=session.runtime, precision=session.precision, layers=dict(session.layers))


def compare(
    given: NDArray[np.float32],
    expected: NDArray[np.float32],
    manifest: ArtifactManifest,
    *,
    limit: float = PARITY_LIMIT,
    reference: str,
    count_flips: bool = True,
    truth: Truth | None = None,
    gate: Gate | None = None,
    executed: Execution | None = None,
) -> Parity:
    """Compare probabilities `(N, classes)` with the reference's; `reference` says in words what that is.

    A value that is not finite counts as a difference of 1. Without `count_flips` only differences
    count: for synthetic images, which may lie on a decision's edge and mean nothing there. With a `truth` the AUROCs
    are compared too; a `gate` judges by it, and by the decisions, instead of the limit.
    """
    difference = np.abs(given.astype(np.float64) - expected.astype(np.float64))
    difference = np.where(np.isfinite(difference), difference, 1.0)
    flipped = count_flipped(given, expected, manifest) if count_flips else 0
    several = manifest.decision == "each"
    worst = difference.max(axis=1) if difference.size else np.zeros(0)
    return Parity(
        images=len(given),
        max_difference=float(difference.max(initial=0.0)),
        mean_difference=float(difference.mean()) if difference.size else 0.0,
        decisions_flipped=flipped,
        limit=limit,
        reference=reference,
        percentiles=_percentiles(worst),
        sqnr_db=sqnr_db(given, expected, multilabel=several),
        auroc=None if truth is None else compare_auroc(given, expected, truth, gate=gate),
        gate=gate,
        executed=executed,
    )


def count_flipped(given: NDArray[np.float32], expected: NDArray[np.float32], manifest: ArtifactManifest) -> int:
    """Return for how many images another decision is made; of several per image, any other."""
    differ = decide(given, manifest) != decide(expected, manifest)
    return int((differ.any(axis=1) if differ.ndim == 2 else differ).sum())


def sqnr_db(given: NDArray[np.float32], expected: NDArray[np.float32], *, multilabel: bool = False) -> float | None:
    """Return the power of the reference's log-probabilities over that of their error, in decibels.

    They are centred per image, which turns them into logits but for a constant; with `multilabel` they are the logits
    of each class. None where there is nothing to compare, no error, or a value that is not finite.
    """
    if not given.size or not (np.isfinite(given).all() and np.isfinite(expected).all()):
        return None
    noise = error_power(given, expected, multilabel=multilabel)
    signal = float(np.square(_logits(expected, multilabel=multilabel)).sum())
    return float(10 * np.log10(signal / noise)) if noise > 0 and signal > 0 else None


def error_power(given: NDArray[np.float32], expected: NDArray[np.float32], *, multilabel: bool = False) -> float:
    """Return the sum of squares by which centred log-probabilities `(N, classes)` differ; infinite where not finite.

    With `multilabel` it is the logits of each class that are compared.
    """
    if not np.isfinite(given).all():
        return float("inf")
    own, others = (_logits(one, multilabel=multilabel) for one in (given, expected))
    return float(np.square(own - others).sum())


def compare_auroc(
    given: NDArray[np.float32], expected: NDArray[np.float32], truth: Truth, *, gate: Gate | None = None
) -> AurocDrop:
    """Compare the AUROCs of file and model on the same resamples of patients; says in words where that cannot be."""
    images, patients = len(truth.labels), len(set(truth.patients))
    reason = why_undefined(given, truth)
    if reason:
        return AurocDrop(file=None, model=None, difference=None, images=images, patients=patients, reason=reason)
    level = LEVEL if gate is None else gate.level
    of_file, of_model = (resample(one, truth.labels, truth.patients, only=_ONLY) for one in (given, expected))
    difference = subtract_resampled(of_file, of_model, reference="the trained model", level=level)
    return AurocDrop(
        file=of_file.evaluations["auroc"].value,
        model=of_model.evaluations["auroc"].value,
        difference=difference,
        images=images,
        patients=patients,
        needed=_need(given, expected, truth, gate, difference),
    )


def _percentiles(worst: NDArray[np.float64]) -> tuple[float, float, float] | None:
    if not len(worst):
        return None
    median, high, highest = np.percentile(worst, (50, 95, 99))
    return float(median), float(high), float(highest)


def _logits(probabilities: NDArray[np.float32], *, multilabel: bool) -> NDArray[np.float64]:
    values = probabilities.astype(np.float64)
    if multilabel:
        bounded = np.clip(values, _LEAST_OF_TWO, 1 - _LEAST_OF_TWO)
        return np.asarray(np.log(bounded) - np.log1p(-bounded))
    logs = np.log(np.maximum(values, _LEAST))
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))


def why_undefined(given: NDArray[np.float32], truth: Truth) -> str:
    """Say why AUROCs cannot be compared on such images, whatever a file says of them; nothing where they can."""
    if not np.isfinite(given).all():
        return "some probabilities are not finite"
    labels, patients = np.asarray(truth.labels), np.asarray(truth.patients)
    if labels.ndim == 2:
        both = labels[:, ((labels == 1).any(axis=0)) & ((labels == 0).any(axis=0))]
        if not both.shape[1]:
            return "no class is present in some images and absent in others"
        sides = [patients[column == mark] for column in both.T for mark in (0, 1)]
    elif len(np.unique(labels)) < 2:
        return "all images are of one class"
    else:
        sides = [patients[labels == one] for one in np.unique(labels)]
    fewest = min(len(np.unique(side)) for side in sides)
    if fewest < noninferiority.FEWEST_PATIENTS:
        return f"a class stands for {fewest} patients only, fewer than {noninferiority.FEWEST_PATIENTS}"
    return ""


def _need(
    given: NDArray[np.float32],
    expected: NDArray[np.float32],
    truth: Truth,
    gate: Gate | None,
    difference: PairedDifference,
) -> Needed | None:
    """Return how much data would decide, where the gate's margin lies inside the interval."""
    if gate is None or not difference.low <= -gate.max_drop < difference.value:
        return None
    compared = noninferiority.compare(
        {"the trained model": expected, "the file": given},
        truth.labels,
        truth.patients,
        split=truth.split,
        margin=gate.max_drop,
        level=gate.level,
    )
    return compared.verdicts[0].needed
