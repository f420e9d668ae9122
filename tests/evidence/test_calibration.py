"""The temperature against other optimisers, and everything it must leave as it was."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from ttl_deploy.errors import DataError
from ttl_deploy.evidence.calibration import (
    FLATTEST,
    SHARPEST,
    apply_temperature,
    fit_temperature,
    negative_log_likelihood,
)


def softmax(logits, kind=np.float32):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(kind)


def make_study(seed, *, classes=2, images=300, sharpness=2.5):
    """Draw labels from a model's true probabilities, and say its logits are `sharpness` times as large."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(images, classes))
    labels = (softmax(logits).cumsum(axis=1) < generator.random((images, 1))).sum(axis=1).clip(max=classes - 1)
    return sharpness * logits, labels


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("sharpness", [0.4, 1.0, 3.0])
def test_the_temperature_is_that_of_another_optimiser(classes, sharpness):
    logits, labels = make_study(classes, classes=classes, sharpness=sharpness)
    best = minimize_scalar(
        lambda log_t: log_loss(labels, softmax(logits / np.exp(log_t), float), labels=range(classes)),
        bounds=(np.log(SHARPEST), np.log(FLATTEST)),
        method="bounded",
        options={"xatol": 1e-8},
    )
    fitted = fit_temperature(softmax(logits), labels)
    assert fitted.note == ""
    assert fitted.value == pytest.approx(np.exp(best.x), rel=1e-5)


def test_scikit_learn_fits_the_same_temperature():
    generator = np.random.default_rng(3)
    images, labels = generator.normal(size=(400, 4)), generator.integers(0, 3, 400)
    images[np.arange(400), labels] += 1
    model = LogisticRegression(C=1e4).fit(images[:40], labels[:40])
    theirs = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(images[40:], labels[40:])
    given = model.predict_proba(images[40:])
    ours = apply_temperature(given, fit_temperature(given, labels[40:]).value)
    assert np.abs(given - ours).max() > 0.02
    np.testing.assert_allclose(ours, theirs.predict_proba(images[40:]), atol=1e-4)


@given(st.integers(0, 10_000), st.floats(0.2, 5), st.integers(2, 5))
def test_fitting_never_makes_the_split_less_likely(seed, sharpness, classes):
    logits, labels = make_study(seed, classes=classes, images=60, sharpness=sharpness)
    before = softmax(logits)
    fitted = fit_temperature(before, labels)
    after = apply_temperature(before, fitted.value)
    assert negative_log_likelihood(after, labels) <= negative_log_likelihood(before, labels) + 1e-7
    assert SHARPEST <= fitted.value <= FLATTEST
    assert (fitted.value == 1) == bool(fitted.note)


@given(st.integers(0, 10_000), st.floats(SHARPEST, FLATTEST), st.integers(2, 5))
def test_the_most_probable_class_and_the_order_of_two_classes_stay(seed, temperature, classes):
    logits, labels = make_study(seed, classes=classes, images=40, sharpness=1.0)
    before = softmax(logits)
    after = apply_temperature(before, temperature)
    np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-6)
    assert (after[np.arange(40), before.argmax(axis=1)] == after.max(axis=1)).all()
    if classes == 2 and 0 < labels.sum() < 40:
        gaps = np.diff(np.sort(after[:, 1]))
        ours, theirs = (roc_auc_score(labels, one[:, 1].astype(float)) for one in (after, before))
        assert ours == pytest.approx(theirs, abs=1e-12) or gaps.min() < 1e-7  # single precision may tie two scores


@given(st.integers(0, 10_000), st.floats(SHARPEST, FLATTEST))
def test_stored_probabilities_do_for_logits(seed, temperature):
    logits, _ = make_study(seed, classes=3, images=30, sharpness=4.0)
    np.testing.assert_allclose(
        apply_temperature(softmax(logits), temperature), softmax(logits / temperature), atol=1e-5
    )


def test_probabilities_that_were_rounded_to_zero_do_no_harm_at_any_temperature():
    logits = np.array([[0.0, 120.0], [400.0, 0.0], [0.0, 1.0]])
    for temperature in (SHARPEST, 1.5, FLATTEST):
        given = apply_temperature(softmax(logits), temperature)
        np.testing.assert_allclose(given, softmax(logits / temperature), atol=2e-5)


def test_a_temperature_of_one_changes_no_bit():
    before = softmax(make_study(0)[0])
    assert apply_temperature(before, 1.0) is before


RIGHT = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])


@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [
        (RIGHT, [0, 1, 0], "all 3 validation images are answered right"),
        (RIGHT, [1, 1, 1], "all 3 validation images are of one class"),
        (RIGHT, [1, 0, 1], "the best one is above 8"),
        (np.tile([0.50001, 0.49999], (1000, 1)), [0] * 999 + [1], "the best one is below 0.05"),
        (np.tile([0.5, 0.5], (4, 1)), [0, 1, 0, 1], "no other makes"),
    ],
)
def test_what_the_data_do_not_determine_is_left_at_one_and_said(probabilities, labels, words):
    fitted = fit_temperature(probabilities, labels)
    assert fitted.value == 1
    assert re.search(words, fitted.note)


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [(RIGHT, [0, 1]), (RIGHT[:0], []), (RIGHT[:, :1], [0, 0, 0]), (RIGHT * np.nan, [0, 1, 0])],
)
def test_predictions_that_do_not_fit_are_refused(probabilities, labels):
    with pytest.raises(DataError, match=r"do not fit|not finite"):
        fit_temperature(probabilities, labels)
