"""How often intervals and verdicts are right, over simulated studies with patients of several images.

The short tests have bounds that chance alone passes; the slow one prints the figures of docs/evidence.md.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from ttl_deploy.evidence import intervals, noninferiority, sample_size

from .simulated import draw

MARGIN = 0.1
FULL = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Shares of studies: the interval covers the truth, resampled by patient and by image; each wrong verdict."""

    covered: float
    covered_by_image: float
    wrongly_non_inferior: float
    wrongly_inferior: float


def repeat(studies, *, models=1, patients=120, per_patient=4, replicates=300, margin=MARGIN, full=FULL):
    """Draw studies in which every model is worse by exactly the margin, where both verdicts are wrong."""
    generator = np.random.default_rng(11)
    aurocs = (full, *[full - margin] * models)
    counts = np.zeros(4)
    for number in range(studies):
        study = draw(generator, aurocs, patients=patients, per_patient=per_patient)
        options = {"replicates": replicates, "seed": number}
        comparison = noninferiority.compare(
            study.models, study.labels, study.patients, split="test", margin=margin, **options
        )
        found = [one.verdict for one in comparison.verdicts]
        image = intervals.paired_difference(
            *(study.models["small1"], study.models["full"], study.labels, np.arange(len(study.labels))),
            reference="full",
            **options,
        )
        patient = comparison.verdicts[0].difference
        counts += (
            patient.low <= -margin <= patient.high,
            image.low <= -margin <= image.high,
            "non-inferior" in found,
            "inferior" in found,
        )
    return Shares(
        covered=float(counts[0]) / studies,
        covered_by_image=float(counts[1]) / studies,
        wrongly_non_inferior=float(counts[2]) / studies,
        wrongly_inferior=float(counts[3]) / studies,
    )


def power(true_difference, *, margin, pilots, studies, per_patient=2, replicates=300, patients=200):
    """Return the share of decided studies at the size that pilots ask for, and that size in patients."""
    generator = np.random.default_rng(12)
    aurocs = (FULL, FULL + true_difference)
    errors = []
    for number in range(pilots):
        pilot = draw(generator, aurocs, patients=patients, per_patient=per_patient)
        (found,) = noninferiority.compare(
            pilot.models, pilot.labels, pilot.patients, split="test", margin=margin, replicates=replicates, seed=number
        ).verdicts
        errors.append(found.standard_error)
    factor = sample_size.needed_factor(float(np.mean(errors)), margin + true_difference, alpha=0.025)
    size, decided = round(factor * patients), 0
    for number in range(studies):
        study = draw(generator, aurocs, patients=size, per_patient=per_patient)
        (found,) = noninferiority.compare(
            study.models, study.labels, study.patients, split="test", margin=margin, replicates=replicates, seed=number
        ).verdicts
        decided += found.verdict == "non-inferior"
    return decided / studies, size


def test_the_interval_covers_by_patient_and_not_by_image_and_the_verdict_is_rarely_wrong():
    found = repeat(400)
    assert 0.93 <= found.covered <= 0.97
    assert found.covered_by_image < 0.85
    assert found.wrongly_non_inferior <= 0.05
    assert found.wrongly_inferior <= 0.05


@pytest.mark.slow
def test_any_wrong_verdict_over_four_models_is_as_rare():
    found = repeat(200, models=4, per_patient=2)
    assert found.wrongly_non_inferior <= 0.05
    assert found.wrongly_inferior <= 0.05


def test_the_stated_number_of_patients_decides_with_the_stated_probability():
    share, size = power(-0.02, margin=0.05, pilots=30, studies=250)
    assert size > 200
    assert share == pytest.approx(sample_size.POWER, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("full", "margin", "patients", "per_patient", "models"),
    [
        (0.85, 0.1, 120, 4, 1),
        (0.85, 0.05, 300, 3, 1),
        (0.85, 0.05, 300, 1, 1),
        (0.95, 0.03, 400, 2, 1),
        (0.97, 0.02, 600, 1, 1),
        (0.85, 0.05, 300, 2, 4),
    ],
)
def test_the_same_over_many_settings(full, margin, patients, per_patient, models):
    found = repeat(
        1000, models=models, patients=patients, per_patient=per_patient, replicates=400, margin=margin, full=full
    )
    print(f"\n| {full} | {margin} | {patients} × {per_patient} | {models} | {found} |")
    assert 0.93 <= found.covered <= 0.97
    assert found.wrongly_non_inferior <= 0.05
    assert found.wrongly_inferior <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("true_difference", "margin", "within"), [(0.0, 0.03, 0.05), (-0.02, 0.05, 0.05), (-0.05, 0.1, 0.08)]
)
def test_the_power_is_about_as_stated_and_less_so_with_few_patients(true_difference, margin, within):
    share, size = power(true_difference, margin=margin, pilots=100, studies=1000, replicates=400)
    print(f"\n| {margin} | {true_difference} | {size} | {share:.3f} |")
    assert share == pytest.approx(sample_size.POWER, abs=within)
