"""Going through the images with all resamples at once against all thresholds of each resample at once."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ttl_deploy.evidence import curves


@pytest.mark.parametrize("grid", [None, 7, 60])
@pytest.mark.parametrize("prevalence", [0.05, 0.5, 0.95])
def test_both_ways_measure_the_same(grid, prevalence):
    generator = np.random.default_rng(4)
    positive = generator.random(3000) < prevalence
    scores = positive + 1.5 * generator.normal(size=3000)
    scores = scores if grid is None else np.round(scores * grid / 8)
    ranking = curves.rank(positive, scores, generator.integers(0, 900, 3000))
    drawn = np.array([np.bincount(generator.integers(0, 900, 900), minlength=900) for _ in range(12)])
    drawn[0] = 1
    slow = curves.measure(ranking, drawn)
    fast = curves.measure_many(ranking, np.ascontiguousarray(drawn.T).astype(float))
    for name in ("roc", "steps", "sensitivity", "specificity"):
        np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), rtol=0, atol=1e-12, err_msg=name)
    assert fast.roc[0] == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)


def test_a_resample_without_a_class_is_undefined_and_leaves_the_others_alone():
    ranking = curves.rank(np.array([True, False, False]), np.array([0.3, 0.6, 0.1]), np.arange(3))
    weights = np.array([[1.0, 0.0, 2.0], [1.0, 2.0, 0.0], [1.0, 1.0, 1.0]])
    found = curves.measure_many(ranking, weights)
    np.testing.assert_array_equal(found.roc, [0.5, np.nan, 1.0])
    np.testing.assert_array_equal(found.specificity, [0.5, np.nan, 1.0])


def test_the_fixed_point_is_reached_where_counts_meet_it_exactly():
    # 0.1 of 30 negatives are 3, which floating point would miss: (1 - 0.9) * 30 is below 3.
    positive = np.array([False] * 3 + [True] * 5 + [False] * 27)
    ranking = curves.rank(positive, -np.arange(35.0), np.arange(35))
    for found in (
        curves.measure(ranking, np.ones((1, 35), dtype=int)),
        curves.measure_many(ranking, np.ones((35, 1))),
    ):
        assert found.sensitivity == 1.0
        assert found.specificity == 0.9


def test_no_images_are_undefined():
    empty = curves.rank(np.empty(0, dtype=bool), np.empty(0), np.empty(0, dtype=int))
    for found in (curves.measure(empty, np.ones((2, 4), dtype=int)), curves.measure_many(empty, np.ones((4, 2)))):
        assert np.isnan(found.roc).all()
        assert np.isnan(found.sensitivity).all()
