"""The images that an export is judged by, from validation, and those that 8-bit ranges come from, from training."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.data.cache import PixelCache
from ttl_deploy.data.labels import classes_of
from ttl_deploy.plugins import Progress, Proof
from ttl_deploy.records.artifacts import CalibrationImages, Gate, Precision
from ttl_deploy.records.data import Manifest, Sample

GATE_IMAGES = 2_000
"""Validation images that a file below single precision is judged by, at most."""
SINGLE_IMAGES = 128
"""Those on which a file in single precision is compared with the recorded probabilities."""
CALIBRATION_IMAGES = 300
SEED = 0


def gather(
    data: Manifest,
    cache: PixelCache,
    probabilities: NDArray[np.float32],
    *,
    precision: Precision,
    gate: Gate,
    progress: Progress,
) -> Proof:
    """Read the images of a proof; `probabilities` `(n, classes)` are the calibrated model's of all of validation."""
    positions = np.array(data.of_split("val"))
    limit = SINGLE_IMAGES if precision == "fp32" else GATE_IMAGES
    spread = np.unique(np.linspace(0, len(positions) - 1, min(limit, len(positions))).astype(int))
    judged = [data.samples[position] for position in positions[spread]]
    chosen = choose_calibration(data, seed=SEED) if precision == "int8" else []
    return Proof(
        images=cache.pixels(positions[spread]),
        labels=[sample.label for sample in judged],
        patients=[sample.patient_id for sample in judged],
        probabilities=probabilities[spread],
        gate=gate,
        calibration=cache.pixels(np.array(chosen, dtype=np.intp)),
        calibrated_on=_describe([data.samples[position] for position in chosen], classes=len(data.classes)),
        progress=progress,
    )


def choose_calibration(data: Manifest, *, seed: int, count: int = CALIBRATION_IMAGES) -> list[int]:
    """Return positions of `count` training images, or all where they are fewer, equally many per class if they last.

    Where images can have several classes, as many are drawn that have none. Within a class one image per patient,
    drawn at random, before any patient gives a second.
    """
    rng = np.random.default_rng(seed)
    by_class = [_one_per_patient_first(data, label, rng) for label in range(len(data.classes))]
    if data.multilabel:
        by_class = [*by_class, _one_per_patient_first(data, None, rng)]
    chosen: dict[int, None] = {}
    while len(chosen) < count and any(by_class):
        for waiting in by_class:
            if waiting and len(chosen) < count:
                chosen[waiting.pop(0)] = None
    return list(chosen)


def _one_per_patient_first(data: Manifest, label: int | None, rng: np.random.Generator) -> list[int]:
    """Order a class's training images, or those of none, at random, each patient's first before anybody's second."""
    held = {position: classes_of(data.samples[position].label) for position in data.of_split("train")}
    own = [position for position, found in held.items() if (label in found if label is not None else not found)]
    seen: dict[str, int] = {}
    order = []
    for position in rng.permutation(own):
        patient = data.samples[position].patient_id
        seen[patient] = seen.get(patient, 0) + 1
        order.append((seen[patient], int(position)))
    return [position for _, position in sorted(order, key=lambda pair: pair[0])]


def _describe(samples: Sequence[Sample], *, classes: int) -> CalibrationImages:
    hashes = "\n".join(sorted(sample.sha256 for sample in samples))
    return CalibrationImages(
        split="train",
        images=len(samples),
        patients=len({sample.patient_id for sample in samples}),
        per_class=tuple(sum(label in classes_of(sample.label) for sample in samples) for label in range(classes)),
        seed=SEED,
        sha256=hashlib.sha256(hashes.encode()).hexdigest(),
    )
