"""Linear probes against scikit-learn's ridge regression, fold by fold."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss

from ttl_deploy.errors import DataError
from ttl_deploy.evidence.linear_probe import STRENGTHS, _divide_groups, _Ridge, fit_probe

CLASSES = 3


def draw(images: int, features: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.str_]]:
    """Draw features of which the first two tell the classes, with different scales, and patients of 1 to 4 images."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASSES, size=images, p=[0.6, 0.3, 0.1])
    drawn = rng.normal(size=(images, features))
    drawn[:, 0] += labels
    drawn[:, 1] -= labels == 1
    patients = np.array([f"p{number}" for number in rng.integers(0, images // 2, images)])
    return drawn * rng.uniform(0.1, 50, features) + rng.normal(size=features), labels, patients


def refit(features: NDArray[np.float64], labels: NDArray[np.int64], penalty: float, rows: NDArray[np.intp]) -> Ridge:
    """Fit scikit-learn's ridge on some rows, standardised and weighted as over all of them."""
    weights = 1.0 / np.bincount(labels)[labels]
    weights *= len(labels) / weights.sum()
    mean = np.average(features, axis=0, weights=weights)
    spread = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weights))
    base = np.average(np.eye(CLASSES)[labels], axis=0, weights=weights)
    model = Ridge(alpha=penalty, fit_intercept=False, solver="svd")
    return model.fit(((features - mean) / spread)[rows], (np.eye(CLASSES)[labels] - base)[rows], weights[rows])


def scores_of(model: Ridge, features: NDArray[np.float64], labels: NDArray[np.int64], rows: NDArray[np.intp]):
    weights = 1.0 / np.bincount(labels)[labels]
    mean = np.average(features, axis=0, weights=weights)
    spread = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weights))
    base = np.average(np.eye(CLASSES)[labels], axis=0, weights=weights)
    return model.predict(((features - mean) / spread)[rows]) + base


@pytest.mark.parametrize("features", [7, 150])
@pytest.mark.parametrize("penalty", [0.3, 40.0])
def test_scores_are_those_of_scikit_learns_ridge_refitted_without_each_fold(features: int, penalty: float) -> None:
    given, labels, patients = draw(90, features)
    parts = _divide_groups(patients, folds=5, seed=0)
    found = _Ridge(given, labels, classes=CLASSES).cross_validate(penalty, parts)
    for part in parts:
        rest = np.setdiff1d(np.arange(len(labels)), part)
        expected = scores_of(refit(given, labels, penalty, rest), given, labels, part)
        np.testing.assert_allclose(found[part], expected, atol=1e-7)


@pytest.mark.parametrize("features", [7, 150])
def test_held_out_scores_are_those_of_scikit_learns_ridge_on_all_training_images(features: int) -> None:
    given, labels, _ = draw(90, features)
    weights, bias = _Ridge(given, labels, classes=CLASSES).fit(3.0)
    found = given[:20] @ weights.T + bias
    expected = scores_of(refit(given, labels, 3.0, np.arange(90)), given, labels, np.arange(20))
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_no_patient_is_in_two_folds_and_the_folds_are_even() -> None:
    _, _, patients = draw(200, 2)
    parts = _divide_groups(patients, folds=5, seed=0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(200))
    of_patient = [set(patients[part]) for part in parts]
    assert sum(len(names) for names in of_patient) == len(set(patients))
    assert max(map(len, parts)) - min(map(len, parts)) <= 4


def test_a_probe_reads_what_is_there_and_nothing_where_nothing_is() -> None:
    given, labels, patients = draw(400, 20)
    fit = fit_probe(given, labels, patients, given[:50], classes=CLASSES)
    assert fit.cv_auroc is not None
    assert fit.cv_auroc > 0.75
    assert fit.held_out.shape == (50, CLASSES)
    assert fit.strength in STRENGTHS
    shuffled = np.random.default_rng(1).permutation(labels)
    nothing = fit_probe(given, shuffled, patients, given[:50], classes=CLASSES)
    assert nothing.cv_auroc is not None
    assert abs(nothing.cv_auroc - 0.5) < 0.1


def test_a_patients_copies_do_not_leak_into_the_score() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 2, 60), 4)
    copies = np.repeat(rng.normal(size=(60, 80)), 4, axis=0)
    patients = np.repeat(np.arange(60), 4)
    honest = fit_probe(copies, labels, patients, copies[:2], classes=2)
    leaking = fit_probe(copies, labels, np.arange(240), copies[:2], classes=2)
    assert honest.cv_auroc is not None
    assert leaking.cv_auroc is not None
    assert abs(honest.cv_auroc - 0.5) < 0.2 < leaking.cv_auroc - honest.cv_auroc


def test_constant_features_and_a_class_without_images_are_no_obstacle() -> None:
    given, labels, patients = draw(60, 4)
    given[:, 2] = 5.0
    fit = fit_probe(given, np.minimum(labels, 1), patients, given[:5], classes=3)
    assert np.isfinite(fit.held_out).all()


def test_features_that_are_not_finite_are_refused() -> None:
    given, labels, patients = draw(30, 4)
    given[3, 1] = np.nan
    with pytest.raises(DataError, match="not finite"):
        fit_probe(given, labels, patients, given[:0], classes=CLASSES)


def test_logits_are_the_scores_at_the_scale_where_they_are_calibrated() -> None:
    given, labels, patients = draw(600, 5)
    fit = fit_probe(given, labels, patients, given[:100], classes=CLASSES)
    logits = given @ fit.weights.T + fit.bias
    factors = (logits[:100] - logits[:100].mean(0)) / (fit.held_out - fit.held_out.mean(0))
    np.testing.assert_allclose(factors, factors[0, 0], rtol=1e-6)
    balance = 1 / np.bincount(labels)[labels]

    def loss(scale: float) -> float:
        return float(log_loss(labels, softmax(scale * logits, axis=1), sample_weight=balance))

    assert loss(1.0) < min(loss(0.5), loss(2.0))
