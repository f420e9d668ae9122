"""AUROC, average precision and accuracy against scikit-learn and brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, roc_auc_score

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import metrics
from ttl_deploy.records.scores import METRICS

# A coarse grid of scores makes ties the rule rather than the exception.
cases = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(0, 4)), min_size=2, max_size=40)


def both_classes(labels, weights):
    return weights[labels == 1].sum() > 0 and weights[labels == 0].sum() > 0


def softmax(logits):
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


@settings(deadline=None)
@given(cases)
def test_binary_areas_equal_scikit_learn_with_ties_and_weights(case):
    labels, scores, weights = (np.array(column) for column in zip(*case, strict=True))
    if not both_classes(labels, weights):
        assert metrics.auroc(labels, scores / 6, weights) is None
        assert metrics.average_precision(labels, scores / 6, weights) is None
        return
    expected = roc_auc_score(labels, scores, sample_weight=weights)
    assert metrics.auroc(labels, scores / 6, weights) == pytest.approx(expected, abs=1e-12)
    # scikit-learn keeps images of weight 0 and warns when the first thresholds hold nothing else.
    kept = weights > 0
    expected = average_precision_score(labels[kept], scores[kept], sample_weight=weights[kept])
    assert metrics.average_precision(labels, scores / 6, weights) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(cases)
def test_auroc_is_the_share_of_pairs_in_the_right_order(case):
    labels, scores, _ = (np.array(column) for column in zip(*case, strict=True))
    positive, negative = scores[labels == 1], scores[labels == 0]
    if not len(positive) or not len(negative):
        assert metrics.auroc(labels, scores) is None
        return
    pairs = [float(p > n) + 0.5 * float(p == n) for p in positive for n in negative]
    assert metrics.auroc(labels, scores) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


@settings(deadline=None)
@given(cases)
def test_a_weight_of_k_is_the_same_as_the_image_k_times(case):
    labels, scores, weights = (np.array(column) for column in zip(*case, strict=True))
    repeated = np.repeat(labels, weights), np.repeat(scores, weights)
    for area in (metrics.auroc, metrics.average_precision):
        weighted, expected = area(labels, scores, weights), area(*repeated)
        assert (weighted is None) == (expected is None)
        assert expected is None or weighted == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_large_untied_samples_equal_scikit_learn(seed):
    generator = np.random.default_rng(seed)
    labels = (generator.random(5000) < 0.07).astype(int)
    scores = generator.random(5000).astype(np.float32)
    assert metrics.auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert metrics.average_precision(labels, scores) == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )


def test_several_classes_are_scored_one_against_the_rest():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 300)
    probabilities = softmax(generator.normal(size=(300, 4)) + np.eye(4)[labels])
    one_hot = np.eye(4)[labels]
    expected = {
        "auroc": roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"),
        "auprc": average_precision_score(one_hot, probabilities, average="macro"),
        "accuracy": accuracy_score(labels, probabilities.argmax(axis=1)),
    }
    for metric in METRICS:
        evaluation = metrics.evaluate(metric, probabilities, labels)
        assert evaluation.value == pytest.approx(expected[metric], abs=1e-12)
        assert len(evaluation.per_class) == evaluation.defined == 4


def test_the_macro_mean_leaves_out_a_class_without_images():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 100)
    probabilities = softmax(generator.normal(size=(100, 3)))
    evaluation = metrics.evaluate("auroc", probabilities, labels)
    expected = [roc_auc_score(labels == k, probabilities[:, k]) for k in (0, 1)]
    assert evaluation.per_class == (*(pytest.approx(value, abs=1e-12) for value in expected), None)
    assert evaluation.defined == 2
    assert evaluation.value == pytest.approx(np.mean(expected), abs=1e-12)


def test_class_one_is_the_positive_of_two():
    probabilities = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    evaluation = metrics.evaluate("auroc", probabilities, [0, 1, 1])
    assert evaluation == metrics.Evaluation(value=1.0, per_class=(1.0,), defined=1)


def test_accuracy_of_a_class_is_the_share_of_its_images_found():
    probabilities = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]]
    evaluation = metrics.evaluate("accuracy", probabilities, [0, 1, 1, 0])
    assert (evaluation.value, evaluation.per_class) == (0.75, (0.5,))
    assert metrics.accuracy(probabilities, [0, 1, 1, 0], [1, 0, 3, 0]) == 0.25


def test_seeds_are_averaged_metric_by_metric():
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 2, 60)
    probabilities = softmax(generator.normal(size=(3, 60, 2)))
    for metric in METRICS:
        apart = [metrics.evaluate(metric, one, labels).value for one in probabilities]
        assert metrics.evaluate(metric, probabilities, labels).value == pytest.approx(np.mean(apart), abs=1e-15)


@pytest.mark.parametrize("metric", ["auroc", "auprc"])
def test_one_class_alone_is_undefined_with_a_reason(metric):
    evaluation = metrics.evaluate(metric, [[0.4, 0.6], [0.1, 0.9]], [1, 1])
    assert (evaluation.value, evaluation.per_class, evaluation.defined) == (None, (None,), 0)
    assert evaluation.reason == "all 2 images are of class 1"


@pytest.mark.parametrize("metric", METRICS)
def test_no_images_are_undefined_with_a_reason(metric):
    evaluation = metrics.evaluate(metric, np.empty((0, 3)), [])
    assert (evaluation.value, evaluation.per_class, evaluation.reason) == (None, (None,) * 3, "no images")


def test_empty_inputs_have_no_value():
    assert metrics.auroc([], []) is None
    assert metrics.average_precision([], []) is None
    assert metrics.accuracy(np.empty((0, 2)), []) is None


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, np.nan]], [0], "not finite"),
        ([[0.5, 0.5]], [0, 1], "do not fit"),
        ([0.5, 0.5], [0, 1], "do not fit"),
        ([[1.0], [1.0]], [0, 0], "do not fit"),
        ([[0.5, 0.5]], [2], "only 0..1"),
        ([[0.5, 0.5]], [-1], "only 0..1"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(probabilities, labels, message):
    with pytest.raises(DataError, match=message):
        metrics.evaluate("auroc", probabilities, labels)


def test_labels_other_than_0_and_1_are_refused_by_the_binary_areas():
    with pytest.raises(DataError, match="0 or 1"):
        metrics.auroc([0, 2], [0.1, 0.2])


def test_fractional_weights_are_refused():
    with pytest.raises(DataError, match="whole numbers"):
        metrics.auroc([0, 1], [0.1, 0.2], [0.5, 0.5])
