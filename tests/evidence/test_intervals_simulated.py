"""How often the 95 % intervals of the metrics hold the truth, over simulated studies with several images per patient.

The truth is the same metric on a million images. `pytest -s -m slow` on this file prints the table of docs/evidence.md.
"""

import numpy as np
import pytest
from scipy.special import expit

from ttl_deploy.evidence import intervals, metrics
from ttl_deploy.records.scores import METRICS

STUDIES = 2500


def draw_study(generator, *, patients, per_patient, prevalence=0.4):
    """Draw images of patients who share a part of their score; the label is the patient's."""
    labels = np.repeat(generator.random(patients) < prevalence, per_patient).astype(int)
    shared = np.repeat(generator.normal(size=patients), per_patient)
    logits = 1.6 * (labels - 0.5) + 0.8 * shared + 0.6 * generator.normal(size=labels.size)
    scores = expit(1.4 * logits - 0.3)
    return np.stack([1 - scores, scores], axis=1), labels, np.repeat(np.arange(patients), per_patient)


@pytest.mark.slow
@pytest.mark.parametrize(("patients", "per_patient"), [(250, 3), (500, 1)])
def test_intervals_hold_the_truth_as_often_as_they_say(patients, per_patient):
    generator = np.random.default_rng(17)
    probabilities, labels, _ = draw_study(generator, patients=1_000_000, per_patient=1)
    truth = {metric: metrics.evaluate(metric, probabilities, labels).value for metric in METRICS[:-1]}
    del truth["calibration_error"]  # has no interval
    held = dict.fromkeys(truth, 0)
    by_image, by_delong = dict(held), 0
    for _ in range(STUDIES):
        study = draw_study(generator, patients=patients, per_patient=per_patient)
        for score in intervals.scores(*study, split="test", replicates=1000):
            if score.metric not in held:
                continue
            held[score.metric] += score.low <= truth[score.metric] <= score.high
            if score.delong:
                by_delong += score.delong[0] <= truth["auroc"] <= score.delong[1]
        images = np.arange(len(study[1]))
        for score in intervals.scores(*study[:2], images, split="test", replicates=1000):
            if score.metric not in held:
                continue
            by_image[score.metric] += score.low <= truth[score.metric] <= score.high
    print(f"\n{patients} patients with {per_patient} images, {STUDIES} studies; by patient, by image")
    for metric in held:
        print(f"{metric:28} {held[metric] / STUDIES:.3f} {by_image[metric] / STUDIES:.3f}")
    for metric in held:
        assert 0.93 <= held[metric] / STUDIES <= 0.97, metric
        assert per_patient == 1 or by_image[metric] / STUDIES < 0.91, metric
    if per_patient == 1:
        print(f"{'auroc by DeLong':28} {by_delong / STUDIES:.3f}")
        assert 0.93 <= by_delong / STUDIES <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("patients", [150, 500])
def test_no_percentiles_of_the_calibration_error_hold_the_truth_often_enough(patients):
    generator = np.random.default_rng(3)
    probabilities, labels, _ = draw_study(generator, patients=1_000_000, per_patient=1)
    truth = metrics.evaluate("calibration_error", probabilities, labels).value
    as_they_are = mirrored = 0
    for _ in range(500):
        study = draw_study(generator, patients=patients, per_patient=1)
        resampled = intervals.resample(*study, replicates=400, only=("calibration_error",))
        value = resampled.evaluations["calibration_error"].value
        low, high = intervals.percentile_interval(resampled.replicates["calibration_error"])
        as_they_are += low <= truth <= high
        mirrored += 2 * value - high <= truth <= 2 * value - low
    print(f"\n{patients} patients: percentiles {as_they_are / 500:.3f}, mirrored {mirrored / 500:.3f}")
    assert as_they_are / 500 < 0.5
    assert mirrored / 500 < 0.9
