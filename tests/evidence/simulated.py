"""Patients with several images, scored by models whose true AUROCs are known: the binormal model of Obuchowski 1997."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

WITHIN_MODELS = 0.85
"""Correlation of two models' scores on the same image."""
WITHIN_PATIENTS = 0.6
"""Correlation of one model's scores on two images of a patient, both of one class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Labels and patients `(N,)`, and per model probabilities `(N, 2)`; the first is the reference."""

    labels: NDArray[np.int64]
    patients: NDArray[np.int64]
    models: dict[str, NDArray[np.float64]]


def draw(
    generator: np.random.Generator,
    aurocs: Sequence[float],
    *,
    patients: int,
    per_patient: int = 1,
    prevalence: float = 0.4,
) -> Study:
    """Draw a study; the label is the patient's, and so is a part of every score."""
    positive = (generator.random(patients) < prevalence).astype(np.int64)
    labels, owners = np.repeat(positive, per_patient), np.repeat(np.arange(patients), per_patient)
    of_patient = np.repeat(_correlated(generator, patients, len(aurocs)), per_patient, axis=0)
    of_image = _correlated(generator, len(labels), len(aurocs))
    noise = np.sqrt(WITHIN_PATIENTS) * of_patient + np.sqrt(1 - WITHIN_PATIENTS) * of_image
    scores = norm.cdf(noise + labels[:, None] * np.sqrt(2) * norm.ppf(aurocs))
    names = ["full", *(f"small{number}" for number in range(1, len(aurocs)))]
    models = {name: binary(scores[:, column]) for column, name in enumerate(names)}
    return Study(labels=labels, patients=owners, models=models)


def binary(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities of two classes `(N, 2)` from those of the second."""
    return np.stack([1 - scores, scores], axis=-1)


def _correlated(generator: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    shared = generator.normal(size=(rows, 1))
    own = generator.normal(size=(rows, columns))
    return np.asarray(np.sqrt(WITHIN_MODELS) * shared + np.sqrt(1 - WITHIN_MODELS) * own)
