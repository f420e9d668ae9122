"""The patient bootstrap against copying images about, scikit-learn, and its own promise of coverage."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import delong, intervals
from ttl_deploy.records.scores import METRICS

from . import references

OF_TWO = METRICS[:-1]
"""Those of two classes: kappa is for grades."""


def binary(scores):
    return np.stack([1 - scores, scores], axis=-1)


def clustered(generator, *, patients, per_patient, shift=1.0):
    """Draw images whose scores share a part within a patient, the label being the patient's."""
    of_patient = generator.integers(0, 2, patients)
    labels = np.repeat(of_patient, per_patient)
    shared = np.repeat(generator.normal(size=patients), per_patient)
    logits = shift * labels + np.sqrt(0.7) * shared + np.sqrt(0.3) * generator.normal(size=labels.size)
    return binary(norm.cdf(logits)), labels, np.repeat(np.arange(patients), per_patient)


def copied_replicates(probabilities, labels, patients, *, replicates, seed, only=OF_TWO, threshold=None):
    """Bootstrap the slow way: draw patients, copy their images, ask scikit-learn; NaN where the split has more."""
    generator = np.random.default_rng(seed)
    names = np.unique(patients)
    whole = {metric: references.of_task(metric, probabilities, labels)[1] for metric in only}
    found = {metric: [] for metric in only}
    for _ in range(replicates):
        drawn = generator.integers(0, len(names), size=(1, len(names)))[0]
        rows = np.concatenate([np.flatnonzero(patients == names[i]) for i in drawn])
        for metric in only:
            value, per_class = references.of_task(metric, probabilities[rows], labels[rows], threshold=threshold)
            lacks = any(a is not None and b is None for a, b in zip(whole[metric], per_class, strict=True)) and not (
                metric == "accuracy" and labels.ndim == 1
            )
            found[metric].append(np.nan if lacks or value is None else value)
    return found


@pytest.mark.parametrize("task", ["binary", "threshold", "multiclass", "multilabel"])
def test_replicates_equal_copying_the_drawn_patients_images(task):
    generator = np.random.default_rng(3)
    classes = 2 if task in ("binary", "threshold") else 3
    labels = generator.integers(0, classes, 60)
    probabilities = generator.integers(1, 9, (60, classes)) + 0.0
    probabilities /= 9 if task == "multilabel" else probabilities.sum(axis=1, keepdims=True)
    if task == "multilabel":
        labels = generator.integers(-1, 2, (60, classes))
    patients = generator.integers(0, 20, 60)
    threshold = 0.4 if task == "threshold" else None
    fast = intervals.resample(
        probabilities, labels, patients, replicates=25, seed=7, threshold=threshold, graded=True
    ).replicates
    assert set(fast) == {*OF_TWO, *(["kappa"] if task == "multiclass" else [])}
    slow = copied_replicates(
        probabilities, labels, patients, replicates=25, seed=7, only=tuple(fast), threshold=threshold
    )
    for metric, values in fast.items():
        np.testing.assert_allclose(values, slow[metric], rtol=0, atol=1e-10, err_msg=metric)


def test_one_metric_alone_is_resampled_as_among_all():
    probabilities, labels, patients = clustered(np.random.default_rng(2), patients=30, per_patient=2)
    everything = intervals.resample(probabilities, labels, patients, replicates=60)
    for metric in OF_TWO:
        alone = intervals.resample(probabilities, labels, patients, replicates=60, only=(metric,))
        assert set(alone.replicates) == {metric}
        np.testing.assert_array_equal(alone.replicates[metric], everything.replicates[metric])


def test_delong_stands_beside_the_bootstrap_where_cases_are_independent():
    probabilities, labels, _ = clustered(np.random.default_rng(2), patients=200, per_patient=1)
    alone = intervals.score("auroc", probabilities, labels, np.arange(200), split="val", level=0.9)
    _, covariance = delong.covariance(labels, probabilities[:, 1][None])
    reach = norm.ppf(0.95) * np.sqrt(covariance[0, 0])
    assert alone.delong == pytest.approx((alone.value - reach, alone.value + reach), abs=1e-12)
    assert abs(alone.delong[0] - alone.low) < 0.01
    shared = intervals.score("auroc", probabilities, labels, np.arange(200) // 2, split="val")
    assert shared.delong is None


def test_images_without_a_known_label_are_left_out_with_their_patients():
    probabilities, labels, patients = clustered(np.random.default_rng(2), patients=30, per_patient=2)
    unknown = np.where(patients < 4, -1, labels)
    kept = patients >= 4
    left = intervals.scores(probabilities, unknown, patients, split="val", replicates=50)
    assert left == intervals.scores(probabilities[kept], labels[kept], patients[kept], split="val", replicates=50)
    assert (left[0].images, left[0].patients) == (52, 26)


def test_the_spread_over_seeds_is_told_apart_from_the_interval():
    generator = np.random.default_rng(9)
    a, labels, patients = clustered(generator, patients=50, per_patient=2)
    b = np.clip(a + generator.normal(scale=0.3, size=a.shape), 0, 1)
    apart = [intervals.score("auroc", one, labels, patients, split="val", replicates=100) for one in (a, b)]
    both = intervals.score("auroc", np.stack([a, b]), labels, patients, split="val", replicates=100)
    assert both.per_seed == (apart[0].value, apart[1].value)
    assert both.value == pytest.approx((apart[0].value + apart[1].value) / 2, abs=1e-15)
    assert both.low > apart[1].low  # the worse seed does not widen it


def test_the_interval_is_the_percentiles_of_the_replicates():
    probabilities, labels, patients = clustered(np.random.default_rng(0), patients=80, per_patient=3)
    replicates = intervals.resample(probabilities, labels, patients, replicates=500, seed=1).replicates["auprc"]
    score = intervals.score("auprc", probabilities, labels, patients, split="val", level=0.9, replicates=500, seed=1)
    assert (score.low, score.high) == tuple(np.percentile(replicates, [5, 95]))
    assert score.method == "percentile bootstrap over 80 patients, 500 replicates"
    assert (score.images, score.patients, score.split, score.level) == (240, 80, "val", 0.9)


def test_all_metrics_together_equal_each_alone():
    probabilities, labels, patients = clustered(np.random.default_rng(0), patients=30, per_patient=2)
    together = intervals.scores(probabilities, labels, patients, split="test", replicates=200)
    alone = [intervals.score(m, probabilities, labels, patients, split="test", replicates=200) for m in OF_TWO]
    assert list(together) == alone


def test_the_order_of_the_images_and_the_names_of_patients_do_not_matter():
    generator = np.random.default_rng(4)
    probabilities, labels, patients = clustered(generator, patients=40, per_patient=2)
    names = np.array([f"P{number:03d}" for number in patients])
    shuffled = generator.permutation(len(labels))
    found = intervals.scores(probabilities, labels, patients, split="val", replicates=300)
    others = intervals.scores(probabilities[shuffled], labels[shuffled], names[shuffled], split="val", replicates=300)
    for one, other in zip(found, others, strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=1e-14)


def test_another_seed_gives_another_interval():
    probabilities, labels, patients = clustered(np.random.default_rng(0), patients=40, per_patient=2)
    a, b = (
        intervals.score("auroc", probabilities, labels, patients, split="val", replicates=300, seed=seed)
        for seed in (0, 1)
    )
    assert a.value == b.value
    assert (a.low, a.high) != (b.low, b.high)


def test_chunks_do_not_change_the_result(monkeypatch):
    probabilities, labels, patients = clustered(np.random.default_rng(5), patients=25, per_patient=2)
    whole = intervals.resample(probabilities, labels, patients, replicates=90)
    monkeypatch.setattr(intervals, "_CHUNK_ELEMENTS", 350)
    parts = intervals.resample(probabilities, labels, patients, replicates=90)
    for metric in OF_TWO:
        np.testing.assert_array_equal(whole.replicates[metric], parts.replicates[metric])


def test_images_of_one_patient_carry_less_evidence_than_independent_ones():
    probabilities, labels, patients = clustered(np.random.default_rng(6), patients=100, per_patient=6)
    by_patient = intervals.score("auroc", probabilities, labels, patients, split="val", replicates=500)
    by_image = intervals.score("auroc", probabilities, labels, np.arange(600), split="val", replicates=500)
    assert by_patient.value == by_image.value
    assert by_patient.high - by_patient.low > 1.5 * (by_image.high - by_image.low)


def test_the_interval_covers_the_true_auroc_about_as_often_as_it_says():
    generator = np.random.default_rng(8)
    true_auroc, covered, naive = norm.cdf(1 / np.sqrt(2)), 0, 0
    for _ in range(300):
        data = clustered(generator, patients=150, per_patient=3)
        score = intervals.score("auroc", *data, split="val", replicates=400)
        covered += score.low <= true_auroc <= score.high
        image = intervals.score("auroc", data[0], data[1], np.arange(450), split="val", replicates=400)
        naive += image.low <= true_auroc <= image.high
    assert 0.91 <= covered / 300 <= 0.98
    assert naive / 300 < 0.85


def test_seeds_share_the_resamples_and_are_averaged():
    generator = np.random.default_rng(9)
    a, labels, patients = clustered(generator, patients=50, per_patient=2)
    b = np.clip(a + generator.normal(scale=0.05, size=a.shape), 0, 1)
    apart = [intervals.resample(one, labels, patients, replicates=100).replicates for one in (a, b)]
    both = intervals.resample(np.stack([a, b]), labels, patients, replicates=100).replicates
    for metric in OF_TWO:
        np.testing.assert_allclose(both[metric], (apart[0][metric] + apart[1][metric]) / 2, atol=1e-15)


def test_replicates_without_a_class_are_left_out_and_counted():
    labels = np.array([1, 1, 0, 0, 0, 0, 0, 0])
    scores = np.array([0.9, 0.4, 0.5, 0.3, 0.2, 0.1, 0.6, 0.35])
    patients = np.arange(8)
    score = intervals.score("auroc", binary(scores), labels, patients, split="val", replicates=1000)
    slow = np.array(
        copied_replicates(binary(scores), labels, patients, replicates=1000, seed=0, only=("auroc",))["auroc"]
    )
    missing = int(np.isnan(slow).sum())
    assert 50 < missing < 150
    assert f"{missing} of them left out" in score.method
    assert (score.low, score.high) == pytest.approx(np.nanpercentile(slow, [2.5, 97.5]), abs=1e-12)


def test_too_few_defined_replicates_give_no_interval_but_say_why():
    generator = np.random.default_rng(0)
    labels = np.array([0, 1, 2, 3] + [0] * 20)
    probabilities = generator.dirichlet(np.ones(4), size=24)
    score = intervals.score("auroc", probabilities, labels, np.arange(24), split="test", replicates=400)
    assert score.value is not None
    assert (score.low, score.high) == (None, None)
    assert "lack a class" in score.method


def test_a_single_patient_gives_no_interval():
    score = intervals.score("auroc", binary(np.array([0.2, 0.4, 0.3])), [0, 1, 1], ["a"] * 3, split="val")
    assert (score.value, score.low, score.high) == (1.0, None, None)
    assert score.method == "no interval: all images are of one patient"


def test_an_undefined_score_keeps_its_reason_and_accuracy_its_interval():
    probabilities = binary(np.array([0.2, 0.7, 0.9]))
    found = intervals.scores(probabilities, [1, 1, 1], ["a", "b", "c"], split="test", replicates=100)
    by_name = {score.metric: score for score in found}
    accuracy = by_name["accuracy"]
    for undefined in (by_name["auroc"], by_name["auprc"], by_name["specificity"]):
        assert (undefined.value, undefined.low, undefined.high) == (None, None, None)
        assert undefined.reason == "all 3 images are of class 1"
    assert accuracy.value == pytest.approx(2 / 3)
    assert accuracy.low == 0.0
    assert accuracy.high == 1.0


def test_no_images_give_undefined_scores():
    for score in intervals.scores(np.empty((0, 2)), [], [], split="test", replicates=10):
        assert (score.value, score.images, score.patients, score.reason) == (None, 0, 0, "no images")


def test_the_paired_difference_is_taken_replicate_by_replicate():
    generator = np.random.default_rng(10)
    a, labels, patients = clustered(generator, patients=60, per_patient=2)
    b = np.clip(a + generator.normal(scale=0.1, size=a.shape), 0, 1)
    found = intervals.paired_difference(a, b, labels, patients, reference="full", replicates=200, seed=5)
    slow_a = copied_replicates(a, labels, patients, replicates=200, seed=5, only=("auroc",))["auroc"]
    slow_b = copied_replicates(b, labels, patients, replicates=200, seed=5, only=("auroc",))["auroc"]
    differences = np.array(slow_a) - np.array(slow_b)
    assert (found.low, found.high) == pytest.approx(np.percentile(differences, [2.5, 97.5]), abs=1e-12)
    expected = roc_auc_score(labels, a[:, 1]) - roc_auc_score(labels, b[:, 1])
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.reference == "full"


def test_a_model_does_not_differ_from_itself():
    a, labels, patients = clustered(np.random.default_rng(0), patients=20, per_patient=2)
    found = intervals.paired_difference(a, a, labels, patients, reference="full", replicates=100)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_models_with_unequal_numbers_of_seeds_can_be_compared():
    generator = np.random.default_rng(11)
    a, labels, patients = clustered(generator, patients=20, per_patient=2)
    found = intervals.paired_difference(np.stack([a, a]), a, labels, patients, reference="full", replicates=100)
    assert (found.low, found.value, found.high) == (0.0, 0.0, 0.0)


def test_a_difference_of_undefined_scores_is_refused():
    with pytest.raises(DataError, match="all 2 images are of class 0"):
        intervals.paired_difference(
            binary(np.array([0.1, 0.2])), binary(np.array([0.1, 0.2])), [0, 0], [1, 2], reference="full"
        )


def test_patients_that_do_not_match_the_labels_are_refused():
    with pytest.raises(DataError, match="one patient id per image"):
        intervals.scores(binary(np.array([0.1, 0.2])), [0, 1], ["a"], split="val")


def test_a_perfect_score_has_no_interval_because_resampling_cannot_spread_it():
    labels = np.array([0, 1] * 10)
    perfect = np.stack([1 - labels, labels], axis=1).astype(float)
    (auroc, *_) = intervals.scores(perfect, labels, np.arange(20), split="test")
    assert (auroc.value, auroc.low, auroc.high) == (1.0, None, None)
    assert "all resamples of 20 patients give the same value" in auroc.method


def test_a_difference_that_no_resample_changes_is_unknown_unless_it_is_none_at_all():
    labels = np.array([0, 1] * 10)
    right = np.stack([1 - labels, labels], axis=1).astype(float)
    wrong = right[:, ::-1]
    apart = intervals.paired_difference(wrong, right, labels, np.arange(20), reference="full")
    same = intervals.paired_difference(right, right, labels, np.arange(20), reference="full")
    assert (apart.value, apart.low, apart.high) == (-1.0, -1.0, 1.0)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_the_calibration_error_has_no_interval_but_what_chance_would_make_of_it():
    generator = np.random.default_rng(2)
    scores = generator.random(400)
    labels = (generator.random(400) < scores).astype(int)
    found = intervals.score("calibration_error", binary(scores), labels, np.arange(400), split="val")
    assert (found.low, found.high) == (None, None)
    said = float(found.method.split("would be ")[1].split(" ")[0])
    draws = [(generator.random(400) < scores).astype(int) for _ in range(300)]
    expected = np.mean([references.calibration_error(truth, scores) for truth in draws])
    assert said == pytest.approx(expected, abs=0.006)
    assert found.value < 2 * said
