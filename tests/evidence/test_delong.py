"""DeLong by midranks against all pairs, against DeLong's own formulas, a published package, and simulation."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from MLstatkit import Delong_test
from scipy.stats import rankdata

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import delong

from .simulated import draw


def all_pairs(labels, scores):
    """Return AUROCs and covariance as DeLong 1988, equations 3 to 6, have them: psi over all pairs, O(n²)."""
    positive, negative = scores[:, labels == 1], scores[:, labels == 0]
    psi = np.array([np.heaviside(x[:, None] - y[None, :], 0.5) for x, y in zip(positive, negative, strict=True)])
    areas = psi.mean(axis=(1, 2))
    covariance = np.zeros((len(scores), len(scores)))
    for r in range(len(scores)):
        for s in range(len(scores)):
            v10 = [psi[r].mean(axis=1) - areas[r], psi[s].mean(axis=1) - areas[s]]
            v01 = [psi[r].mean(axis=0) - areas[r], psi[s].mean(axis=0) - areas[s]]
            m, n = psi.shape[1:]
            covariance[r, s] = (v10[0] @ v10[1]) / (m - 1) / m + (v01[0] @ v01[1]) / (n - 1) / n
    return areas, covariance


@st.composite
def tied_scores(draw_from, models):
    """Draw labels with two of each class, and scores on a coarse grid."""
    labels = draw_from(st.lists(st.integers(0, 1), min_size=4, max_size=40))
    assume(2 <= sum(labels) <= len(labels) - 2)
    row = st.lists(st.integers(0, 6), min_size=len(labels), max_size=len(labels))
    return np.array(labels), np.array([draw_from(row) for _ in range(models)]) / 6


@given(tied_scores(3))
def test_areas_and_covariances_equal_those_of_all_pairs(case):
    areas, covariance = all_pairs(*case)
    found = delong.covariance(*case)
    np.testing.assert_allclose(found[0], areas, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[1], covariance, rtol=0, atol=1e-12)


@given(tied_scores(2))
def test_the_test_equals_that_of_a_published_package(case):
    labels, (a, b) = case
    difference, error = delong.compare(labels, a, b)
    assume(error > 1e-6)  # the package bootstraps where there is no variance
    # The package subtracts its first model from its second.
    z, p, _, _, area_b, area_a, _ = Delong_test(labels, b, a)
    assert difference == pytest.approx(area_a - area_b, abs=1e-10)
    assert difference / error == pytest.approx(z, abs=1e-10)
    assert 2 * NormalDist().cdf(-abs(difference / error)) == pytest.approx(p, abs=1e-10)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30))
def test_midranks_are_scipys(values):
    np.testing.assert_array_equal(delong.midranks(np.array(values, dtype=float)), rankdata(values))


def test_seeds_are_averaged_auroc_by_auroc():
    study = draw(np.random.default_rng(0), (0.85, 0.84, 0.86, 0.8), patients=80)
    a, b, c, d = (one[:, 1] for one in study.models.values())
    difference, error = delong.compare(study.labels, np.stack([a, b, c]), d)
    areas, covariance = all_pairs(study.labels, np.stack([a, b, c, d]))
    weights = np.array([1 / 3, 1 / 3, 1 / 3, -1])
    assert difference == pytest.approx(areas[:3].mean() - areas[3], abs=1e-12)
    assert error == pytest.approx(np.sqrt(weights @ covariance @ weights), abs=1e-12)


def test_the_standard_error_is_the_spread_over_studies():
    generator = np.random.default_rng(1)
    studies = [draw(generator, (0.85, 0.8), patients=150) for _ in range(800)]
    found = np.array(
        [delong.compare(one.labels, one.models["small1"][:, 1], one.models["full"][:, 1]) for one in studies]
    )
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(ddof=1), rel=0.06)
    assert found[:, 0].mean() == pytest.approx(-0.05, abs=0.003)


def test_a_model_does_not_differ_from_itself():
    study = draw(np.random.default_rng(2), (0.8,), patients=50)
    scores = study.models["full"][:, 1]
    assert delong.compare(study.labels, scores, scores) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("labels", "scores", "words"),
    [
        ([0, 1, 0, 0], [[0.1, 0.2, 0.3, 0.4]], "1 of 4 images are positive"),
        ([0, 1, 1, 1], [[0.1, 0.2, 0.3, 0.4]], "3 of 4 images are positive"),
        ([0, 1, 2, 1], [[0.1, 0.2, 0.3, 0.4]], "one label, 0 or 1"),
        ([0, 1, 1, 0], [[0.1, 0.2, 0.3]], "do not fit"),
        ([0, 1, 1, 0], [0.1, 0.2, 0.3, 0.4], "do not fit"),
    ],
)
def test_what_has_no_variance_is_refused(labels, scores, words):
    with pytest.raises(DataError, match=words):
        delong.covariance(labels, scores)


def test_scores_of_other_images_are_refused():
    with pytest.raises(DataError, match="the same images"):
        delong.compare([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3])
