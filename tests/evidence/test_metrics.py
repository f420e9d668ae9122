"""Every metric against scikit-learn and brute force, on every kind of task, with labels as they really come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from ttl_deploy.errors import DataError, UsageError
from ttl_deploy.evidence import metrics
from ttl_deploy.evidence.answers import are_grades
from ttl_deploy.records.scores import METRICS

from . import references

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


def same(found, expected):
    """Tell whether an evaluation is what the reference says, undefined where that is."""
    value, per_class = expected
    assert (found.value is None) == (value is None)
    assert value is None or found.value == pytest.approx(value, abs=1e-10)
    assert len(found.per_class) == len(per_class)
    for ours, theirs in zip(found.per_class, per_class, strict=True):
        assert (ours is None) == (theirs is None)
        assert theirs is None or ours == pytest.approx(theirs, abs=1e-10)
    assert found.defined == sum(one is not None for one in per_class)
    assert bool(found.reason) == (value is None)
    return True


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("task", ["binary", "threshold", "multiclass", "multilabel"])
def test_every_metric_equals_scikit_learn_on_every_task(metric, task):
    generator = np.random.default_rng(len(metric))
    classes = 2 if task in ("binary", "threshold") else 4
    labels = generator.integers(0, classes, 300)
    probabilities = softmax(generator.normal(size=(300, classes)) + 0.7 * np.eye(classes)[labels])
    if task == "multilabel":
        labels = generator.integers(-1, 2, (300, classes))
    threshold = 0.3 if task == "threshold" else None
    found = metrics.evaluate(metric, probabilities, labels, threshold=threshold)
    if metric == "kappa" and task != "multiclass":
        assert (found.value, found.reason) == (None, "kappa is for three or more classes")
        return
    assert same(found, references.of_task(metric, probabilities, labels, threshold=threshold))


def test_a_label_that_nobody_knows_counts_for_nothing():
    probabilities = softmax(np.random.default_rng(5).normal(size=(40, 2)))
    labels = np.random.default_rng(6).integers(0, 2, 40)
    unknown = np.array([*labels, -1, np.nan, -1])
    more = np.concatenate([probabilities, [[0.1, 0.9]] * 3])
    for metric in METRICS:
        assert metrics.evaluate(metric, more, unknown) == metrics.evaluate(metric, probabilities, labels)


messy = st.integers(2, 4).flatmap(
    lambda classes: st.tuples(
        st.lists(
            st.tuples(
                st.lists(st.sampled_from([1, 0, -1, np.nan]), min_size=classes, max_size=classes),
                st.lists(st.integers(0, 6), min_size=classes, max_size=classes),
            ),
            min_size=1,
            max_size=25,
        ),
        st.sampled_from(METRICS),
    )
)


@given(messy)
def test_sparse_label_matrices_are_scored_where_they_can_be_and_never_become_zero(case):
    rows, metric = case
    labels = np.array([row for row, _ in rows], dtype=float)
    probabilities = np.array([scores for _, scores in rows]) / 6
    found = metrics.evaluate(metric, probabilities, labels)
    if metric == "kappa":
        assert found.value is None
        return
    known = np.where(np.isnan(labels), -1, labels).astype(int)
    assert same(found, references.of_task(metric, probabilities, known))


@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 2, -1]), st.lists(st.integers(0, 5), min_size=3, max_size=3)), max_size=25
    ),
    st.sampled_from([metric for metric in METRICS if metric != "kappa"]),
)
def test_labels_of_one_class_or_of_none_are_undefined_with_a_reason(rows, metric):
    labels = np.array([label for label, _ in rows], dtype=int)
    probabilities = np.array([scores for _, scores in rows], dtype=float).reshape(-1, 3) / 5
    found = metrics.evaluate(metric, probabilities, labels)
    value, per_class = references.of_task(metric, probabilities, labels)
    if not (labels >= 0).any():
        assert found.value is None
        assert found.reason == ("no images" if not len(labels) else f"no label is known of {len(labels)} images")
        return
    assert same(found, (value, per_class))


@pytest.mark.parametrize("labels", [["", "1"], [None, "a"], [0.5, 1], [2, 1], [-2, 0], [[0, 2], [1, 0]]])
def test_labels_that_are_no_class_are_refused_and_none_is_guessed(labels):
    with pytest.raises(DataError, match="-1"):
        metrics.evaluate("auroc", [[0.5, 0.5], [0.2, 0.8]], labels)


def test_the_threshold_decides_between_two_classes_only():
    found = metrics.evaluate("sensitivity", [[0.8, 0.2], [0.7, 0.3]], [1, 1], threshold=0.3)
    assert found.value == 0.5
    with pytest.raises(UsageError, match="two"):
        metrics.evaluate("sensitivity", [[0.2, 0.3, 0.5]], [1], threshold=0.3)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("0", "1", "2", "3"), True),
        (("grade 0", "Grade 1", "grade 2"), True),
        (("KL0", "KL1", "KL2"), True),
        (("0", "1"), False),  # two classes are no grades
        (("grade 1", "grade 10", "grade 2"), False),  # not in their order
        (("normal", "1", "2"), False),
        (("t1a", "t2a", "t3a"), False),
        (("a 1", "b 2", "c 3"), False),
        (("1", "01", "2"), False),
    ],
)
def test_grades_are_known_by_their_names(classes, expected):
    assert are_grades(classes) is expected


def test_kappa_of_a_single_grade_is_undefined():
    found = metrics.evaluate("kappa", np.eye(3)[[1, 1]], [1, 1])
    assert (found.value, found.per_class) == (None, ())
    assert found.reason == "all 2 images are of class 1"


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
    assert evaluation == metrics.Evaluation(value=1.0, per_class=(1.0,), defined=1, per_seed=(1.0,))


def test_accuracy_of_a_class_is_the_share_of_its_images_found():
    probabilities = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]]
    evaluation = metrics.evaluate("accuracy", probabilities, [0, 1, 1, 0])
    assert (evaluation.value, evaluation.per_class) == (0.75, (0.5,))


def test_seeds_are_averaged_metric_by_metric():
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 2, 60)
    probabilities = softmax(generator.normal(size=(3, 60, 2)))
    for metric in METRICS[:-1]:
        apart = [metrics.evaluate(metric, one, labels).value for one in probabilities]
        together = metrics.evaluate(metric, probabilities, labels)
        assert together.value == pytest.approx(np.mean(apart), abs=1e-15)
        assert together.per_seed == tuple(apart)


@pytest.mark.parametrize("metric", ["auroc", "auprc"])
def test_one_class_alone_is_undefined_with_a_reason(metric):
    evaluation = metrics.evaluate(metric, [[0.4, 0.6], [0.1, 0.9]], [1, 1])
    assert (evaluation.value, evaluation.per_class, evaluation.defined) == (None, (None,), 0)
    assert evaluation.reason == "all 2 images are of class 1"


@pytest.mark.parametrize("metric", METRICS)
def test_no_images_are_undefined_with_a_reason(metric):
    evaluation = metrics.evaluate(metric, np.empty((0, 3)), [])
    per_class = () if metric == "kappa" else (None,) * 3
    assert (evaluation.value, evaluation.per_class, evaluation.reason) == (None, per_class, "no images")


def test_empty_inputs_have_no_value():
    assert metrics.auroc([], []) is None
    assert metrics.average_precision([], []) is None


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.5, np.nan]], [0], "not finite"),
        ([[0.5, 0.5]], [0, 1], "do not fit"),
        ([0.5, 0.5], [0, 1], "give"),
        ([[1.0], [1.0]], [0, 0], "do not fit"),
        ([[0.5, 0.5]], [2], "only 0..1"),
        ([[0.5, 0.5]], [[0, 1, 1]], "do not fit"),
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
