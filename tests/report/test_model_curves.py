"""ROC curves, bands and reliability bins, beside scikit-learn and plain loops."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score, roc_curve

from ttl_deploy.evidence.counts import BINS
from ttl_deploy.report.curve_plots import draw_reliability, draw_roc
from ttl_deploy.report.model_curves import Predicted, bin_shares, trace_models, trace_roc


def draw(seed, images=80, *, ties=False):
    """Draw scores, truth and patients of two images each."""
    generator = np.random.default_rng(seed)
    truth = np.repeat(generator.random(images // 2) < 0.4, 2).astype(np.int64)
    scores = np.clip(0.4 * truth + 0.6 * generator.random(images), 0, 1)
    return np.round(scores, 1) if ties else scores, truth, np.arange(images) // 2


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_is_scikit_learns(ties):
    scores, truth, units = draw(0, ties=ties)
    roc = trace_roc(scores, truth, units, level=0.95, replicates=20)
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    for x, y in zip(roc.false, roc.true, strict=True):
        assert np.isclose(np.stack([false, true], axis=1), (x, y), atol=1e-4).all(axis=1).any()
    assert np.trapezoid(roc.true, roc.false) == pytest.approx(roc_auc_score(truth, scores), abs=1e-3)


def test_the_band_is_what_resampling_patients_one_by_one_gives():
    scores, truth, units = draw(1, images=40)
    roc = trace_roc(scores, truth, units, level=0.9, replicates=300)
    generator, reached = np.random.default_rng(0), []
    grid = np.array(roc.grid)
    for _ in range(300):
        drawn = generator.integers(0, 20, size=20)
        images = np.concatenate([np.flatnonzero(units == one) for one in drawn])
        if len(set(truth[images])) < 2:
            continue
        false, true, _ = roc_curve(truth[images], scores[images], drop_intermediate=False)
        reached.append([true[false <= share + 1e-9].max() for share in grid])
    low, high = np.quantile(reached, (0.05, 0.95), axis=0)
    assert roc.low == pytest.approx(low, abs=1e-4)
    assert roc.high == pytest.approx(high, abs=1e-4)


def test_bins_are_scikit_learns_and_bounds_hold_the_share():
    scores, truth, units = draw(2, images=400)
    bins = bin_shares(scores, truth, units, level=0.95, replicates=200)
    shares, means = calibration_curve(truth, scores, n_bins=BINS)
    assert [one.share for one in bins] == pytest.approx(shares, abs=1e-4)
    assert [one.probability for one in bins] == pytest.approx(means, abs=1e-4)
    assert sum(one.images for one in bins) == 400
    known = [one for one in bins if one.low is not None]
    assert known
    assert all(one.low <= one.share <= one.high for one in known)
    assert all(one.share in (0, 1) or one.images < 5 for one in bins if one.low is None)


def test_a_clean_separation_and_a_single_patient_have_no_band():
    truth = np.array([0, 0, 1, 1])
    clean = trace_roc(np.array([0.1, 0.2, 0.8, 0.9]), truth, np.arange(4), level=0.95, replicates=50)
    alone = trace_roc(np.array([0.1, 0.9, 0.8, 0.2]), truth, np.zeros(4, dtype=int), level=0.95, replicates=50)
    assert clean.grid == alone.grid == ()
    assert clean.true == (0.0, 1.0, 1.0)


def trace(labels, classes, **options):
    generator = np.random.default_rng(3)
    labels = np.asarray(labels)
    probabilities = generator.random((len(labels), len(classes)))
    if labels.ndim == 1:
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    model = Predicted(role="chosen", key="k", probabilities=probabilities, **options)
    patients = np.arange(len(labels))
    found = trace_models([model], labels, patients, classes=classes, split="test", replicates=20)
    return found, probabilities


def test_of_two_classes_the_second_is_traced_and_of_several_each():
    assert trace([0, 1] * 10, ("healthy", "ill"))[0].names == ("ill",)
    found, probabilities = trace([0, 1, 2] * 10, ("a", "b", "c"))
    assert found.names == ("a", "b", "c")
    areas = [one.scores[0].value for one in found.models[0].classes]
    truth = np.array([0, 1, 2] * 10)
    assert areas == pytest.approx([roc_auc_score(truth == k, probabilities[:, k]) for k in range(3)])


def test_unknown_labels_count_for_nothing_and_one_kind_alone_is_undefined():
    labels = np.array([[1, -1, 1], [0, 1, 1], [1, 0, 1], [0, -1, 1]] * 5)
    found, probabilities = trace(labels, ("a", "b", "c"))
    first, second, third = found.models[0].classes
    known = labels[:, 1] >= 0
    assert (second.positives, second.negatives) == (5, 5)
    assert second.scores[0].value == pytest.approx(roc_auc_score(labels[known, 1], probabilities[known, 1]))
    assert third.roc is None
    assert third.scores[0].value is None
    assert third.scores[0].reason
    assert first.exported == ()


def test_the_exported_files_bins_are_of_calibrated_probabilities():
    found, _ = trace([0, 1] * 20, ("healthy", "ill"), temperature=4.0)
    one = found.models[0].classes[0]
    reach = [max(abs(b.probability - 0.5) for b in bins) for bins in (one.bins, one.exported)]
    assert reach[1] < reach[0]
    names = [trace["name"] for trace in draw_reliability(found)["data"]]
    assert "exported file, temperature 4" in names


def test_figures_name_the_class_of_every_trace_and_show_the_first_alone():
    found, _ = trace([0, 1, 2] * 10, ("a", "b", "c"))
    for plot in (draw_roc(found), draw_reliability(found)):
        classed = [one for one in plot["data"] if "meta" in one]
        assert {one["meta"]["class"] for one in classed} == {"0", "1", "2"}
        assert all(one["visible"] == (one["meta"]["class"] == "0") for one in classed)
