"""Thresholds against all thresholds of scikit-learn's ROC curve, and what is refused."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from ttl_deploy.errors import DataError, InfeasibleError, UnknownNameError, UsageError
from ttl_deploy.evidence.operating_point import ARGMAX, Rule, choose_operating_point, count_near, parse_rule

RULES = ("youden", "sensitivity=0.9", "sensitivity=0.5", "specificity=0.9", "specificity=0.6")


def two_classes(scores):
    scores = np.asarray(scores, dtype=np.float32)
    return np.column_stack([1 - scores, scores])


def make_study(seed, *, images=60, digits=2):
    """Draw scores of a fair model, rounded so that some are equal."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, images)
    scores = np.clip(generator.normal(0.4 + 0.2 * labels, 0.15), 0.01, 0.99).round(digits)
    return two_classes(scores), labels


def rates(scores, labels, threshold):
    called = scores >= threshold
    return float(called[labels == 1].mean()), float((~called)[labels == 0].mean())


def best_of_all(rule, scores, labels):
    """Try every threshold of the ROC curve; returns the best sensitivity and specificity by the rule."""
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    points = [(float(sens), 1 - float(one)) for sens, one in zip(true, false, strict=True)]
    if rule.name == "youden":
        return max(points, key=lambda point: (round(point[0] + point[1], 9), point[0]))
    if rule.name == "sensitivity":
        return max((p for p in points if p[0] >= rule.target - 1e-9), key=lambda point: (point[1], point[0]))
    return max((p for p in points if p[1] >= rule.target - 1e-9), key=lambda point: point)


def choose(text, probabilities, labels, patients=None, **options):
    units = np.arange(len(labels)) if patients is None else patients
    return choose_operating_point(parse_rule(text), probabilities, labels, units, **{"replicates": 50} | options)


@pytest.mark.parametrize("text", RULES)
@given(seed=st.integers(0, 10_000), images=st.integers(6, 60), digits=st.sampled_from([1, 2, 7]))
def test_the_threshold_is_the_best_of_all(text, seed, images, digits):
    probabilities, labels = make_study(seed, images=images, digits=digits)
    assume(0 < labels.sum() < images)
    expected = best_of_all(parse_rule(text), probabilities[:, 1], labels)
    try:
        point = choose(text, probabilities, labels, replicates=1)
    except InfeasibleError:
        assert 0 in expected
        return
    assert rates(probabilities[:, 1], labels, point.threshold) == pytest.approx(expected)
    assert float(np.float32(point.threshold)) == point.threshold


@pytest.mark.parametrize("text", RULES)
def test_the_threshold_lies_halfway_between_two_scores(text):
    probabilities, labels = make_study(1)
    threshold = choose(text, probabilities, labels).threshold
    scores = np.unique(probabilities[:, 1])
    above, below = scores[scores >= threshold].min(), scores[scores < threshold].max()
    assert threshold == pytest.approx((float(above) + float(below)) / 2, abs=1e-7)


def test_neighbouring_floats_are_still_told_apart():
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    probabilities = two_classes([low, low, high, high])
    threshold = choose("youden", probabilities, np.array([0, 0, 1, 1])).threshold
    assert rates(probabilities[:, 1], np.array([0, 0, 1, 1]), threshold) == (1, 1)


def resampled(text, scores, labels, patients, drawn):
    """Choose on a resample whose images are really copied."""
    rows = np.concatenate([np.flatnonzero(patients == one) for one in drawn])
    if len(set(labels[rows])) < 2:
        return np.nan
    try:
        return choose(text, two_classes(scores[rows]), labels[rows], replicates=1).threshold
    except InfeasibleError:
        return None


@pytest.mark.parametrize("text", RULES)
def test_the_interval_repeats_the_rule_on_copied_patients(text):
    probabilities, labels = make_study(8, images=90)
    patients = np.repeat(np.arange(30), 3)
    point = choose(text, probabilities, labels, patients, replicates=300, seed=5)
    generator = np.random.default_rng(9)
    copied = [resampled(text, probabilities[:, 1], labels, patients, generator.integers(0, 30, 30)) for _ in range(300)]
    expected = np.quantile([one for one in copied if one is not None], (0.025, 0.975))
    assert (point.low, point.high) == pytest.approx(expected, abs=0.04)  # two sets of 300 draws
    assert point.low <= point.threshold <= point.high
    assert (point.images, point.patients, point.split) == (90, 30, "val")
    assert "300 resamples of 30 patients" in point.method


def test_more_images_of_the_same_patients_make_the_threshold_no_surer():
    probabilities, labels = make_study(2, images=40)
    once = choose("youden", probabilities, labels, replicates=400)
    thrice = choose(
        "youden", np.repeat(probabilities, 3, axis=0), np.repeat(labels, 3), np.repeat(np.arange(40), 3), replicates=400
    )
    assert (thrice.threshold, thrice.low, thrice.high) == (once.threshold, once.low, once.high)


def test_the_same_seed_gives_the_same_interval_and_one_patient_gives_none():
    probabilities, labels = make_study(3)
    assert choose("youden", probabilities, labels) == choose("youden", probabilities, labels)
    alone = choose("youden", probabilities, labels, np.zeros(60))
    assert (alone.low, alone.high) == (None, None)
    assert "one patient" in alone.method


def test_argmax_has_no_threshold_and_takes_any_number_of_classes():
    point = choose("argmax", np.full((4, 3), 1 / 3), np.array([0, 1, 2, 0]))
    assert (point.rule, point.threshold, point.low) == ("argmax", None, None)
    assert parse_rule("argmax") == ARGMAX


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("youden", Rule(name="youden")),
        ("sensitivity=0.95", Rule(name="sensitivity", target=0.95)),
        (" specificity=.9", Rule(name="specificity", target=0.9)),
    ],
)
def test_rules_are_read(text, rule):
    assert parse_rule(text) == rule
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize("text", ["sensitivity", "sensitivity=", "sensitivity=0", "specificity=1", "specificity=95 %"])
def test_shares_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="above 0 and below 1, such as s"):
        parse_rule(text)


@pytest.mark.parametrize(("text", "words"), [("sensitivty=0.9", "did you mean sensitivity"), ("", "known: argmax")])
def test_unknown_rules_are_refused_with_the_known_ones(text, words):
    with pytest.raises(UnknownNameError, match=words):
        parse_rule(text)


def test_youden_takes_no_share():
    with pytest.raises(UsageError, match="takes no share"):
        parse_rule("youden=0.5")


def test_three_classes_are_refused():
    with pytest.raises(UsageError, match="for two classes, and there are 3"):
        choose("youden", np.full((4, 3), 1 / 3), np.array([0, 1, 2, 0]))


def test_one_class_only_is_refused():
    with pytest.raises(DataError, match="all 60 images are of one class"):
        choose("youden", make_study(0)[0], np.ones(60, int))


@pytest.mark.parametrize(
    ("text", "scores", "answer"),
    [
        ("specificity=0.9", [0.9, 0.8, 0.2], "negative"),
        ("sensitivity=0.9", [0.7, 0.1, 0.6], "positive"),
        ("youden", [0.9, 0.1, 0.5], "positive"),
    ],
)
def test_a_threshold_that_says_one_thing_of_all_is_refused(text, scores, answer):
    labels = np.array([0, 1, 1])
    with pytest.raises(InfeasibleError, match=f"than calling every image {answer}"):
        choose(text, two_classes(scores), labels)


def test_images_near_the_decision_are_counted():
    probabilities = two_classes([0.3, 0.49996, 0.50004, 0.6])
    assert count_near(probabilities, 0.6, limit=1e-4) == 1
    assert count_near(probabilities, 0.7, limit=1e-4) == 0
    assert count_near(probabilities, None, limit=1e-4) == 2
    assert count_near(np.array([[0.4, 0.39995, 0.2], [0.5, 0.3, 0.2]]), None, limit=1e-4) == 1
