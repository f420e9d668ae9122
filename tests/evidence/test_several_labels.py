"""Several labels per image, some not known: calibration, decisions, probes and subgroups, each label by itself."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.linear_model import Ridge
from sklearn.metrics import log_loss, recall_score, roc_auc_score

from ttl_deploy.errors import UsageError
from ttl_deploy.evidence import operating_point
from ttl_deploy.evidence.calibration import apply_temperature, fit_temperature, negative_log_likelihood
from ttl_deploy.evidence.columns import find_groupings
from ttl_deploy.evidence.linear_probe import _Ridge, fit_probe
from ttl_deploy.evidence.subgroups import Cases, Scored, score_columns, score_split

COUNT, CLASSES = 400, 3


def draw(seed=0, *, sharpness=2.0):
    """Draw logits, marks of which a fifth is not known, and two images per patient."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(COUNT, CLASSES)) + np.array([-0.5, 0.0, 1.0])
    marks = (rng.random((COUNT, CLASSES)) < expit(logits)).astype(np.int64)
    marks[rng.random((COUNT, CLASSES)) < 0.2] = -1
    return sharpness * logits, marks, np.repeat([f"P{i}" for i in range(COUNT // 2)], 2)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_is_that_of_another_optimiser_over_the_known_labels(sharpness):
    logits, marks, _ = draw(sharpness=sharpness)
    known = marks >= 0

    def loss(log_t):
        return log_loss(marks[known], expit(logits[known] / np.exp(log_t)))

    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(8)), method="bounded", options={"xatol": 1e-9})
    fitted = fit_temperature(expit(logits), marks)
    assert fitted.note == ""
    assert fitted.value == pytest.approx(np.exp(best.x), rel=1e-5)
    assert negative_log_likelihood(expit(logits), marks) == pytest.approx(loss(0.0), abs=1e-12)


def test_what_is_not_known_changes_nothing():
    logits, marks, _ = draw()
    other = logits.copy()
    other[marks < 0] = 12.0
    assert fit_temperature(expit(other), marks).value == fit_temperature(expit(logits), marks).value


def test_probabilities_at_a_temperature_are_the_sigmoid_of_divided_logits_also_near_one():
    logits = np.array([[-30.0, -4.0, 0.0], [3.0, 18.0, 33.0]])
    given = apply_temperature(expit(logits), 3.0, multilabel=True)
    np.testing.assert_allclose(given, expit(logits / 3), rtol=1e-3)
    assert given.dtype == np.float32
    np.testing.assert_array_equal(apply_temperature(expit(logits), 1.0, multilabel=True), expit(logits).astype("f4"))


def test_every_label_is_decided_by_itself_and_no_threshold_is_chosen():
    logits, marks, patients = draw()
    point = operating_point.choose_operating_point(operating_point.ARGMAX, expit(logits), marks, patients)
    assert (point.rule, point.threshold) == ("each", None)
    with pytest.raises(UsageError, match="search with --label for one finding"):
        operating_point.choose_operating_point(operating_point.parse_rule("youden"), expit(logits), marks, patients)


def test_images_near_a_decision_are_those_with_any_label_near_one_half():
    given = np.array([[0.5, 0.9], [0.4, 0.51], [0.3, 0.7]], dtype=np.float32)
    assert operating_point.count_near(given, None, limit=0.02, multilabel=True) == 2
    assert operating_point.count_near(given, None, limit=0.001, multilabel=True) == 1


def test_a_probe_fits_each_label_as_scikit_learns_ridge_does_where_all_are_known():
    rng = np.random.default_rng(1)
    features, marks = rng.normal(size=(90, 6)), rng.integers(0, 2, (90, 2))
    weights, bias = _Ridge(features, marks, classes=2).fit(4.0)
    scaled = (features - features.mean(0)) / features.std(0)
    for k in range(2):
        model = Ridge(alpha=4.0, solver="svd").fit(scaled, marks[:, k])
        np.testing.assert_allclose(features @ weights[k] + bias[k], model.predict(scaled), atol=1e-7)


def test_a_probe_reads_labels_of_which_some_are_not_known():
    logits, marks, patients = draw()
    features = np.column_stack([logits, np.random.default_rng(2).normal(size=(COUNT, 5))])
    fit = fit_probe(features, marks, patients, features[:50], classes=CLASSES)
    single = [roc_auc_score(marks[marks[:, k] >= 0, k], logits[marks[:, k] >= 0, k]) for k in range(CLASSES)]
    assert fit.cv_auroc == pytest.approx(np.mean(single), abs=0.03)
    centred = features @ fit.weights.T + fit.bias
    np.testing.assert_allclose(centred.mean(axis=0), 0, atol=1e-9)  # logits are 0 at each label's prevalence


def test_subgroups_score_each_label_on_its_known_images():
    logits, marks, patients = draw()
    sex = np.repeat(np.where(np.arange(COUNT // 2) % 3 == 0, "F", "M"), 2)
    cases = Cases(labels=marks, patients=patients, classes=("a", "b", "c"), split="test", replicates=50)
    groupings, _ = find_groupings([{"sex": one} for one in sex])
    (column,) = score_columns(cases, groupings, Scored(probabilities=expit(logits)))
    for group in column.groups:
        own = sex == group.name
        known = [own & (marks[:, k] >= 0) for k in range(CLASSES)]
        areas = [roc_auc_score(marks[rows, k], logits[rows, k]) for k, rows in enumerate(known)]
        found = [recall_score(marks[rows, k], logits[rows, k] >= 0) for k, rows in enumerate(known)]
        assert group.score("auroc").value == pytest.approx(np.mean(areas), abs=1e-12)
        assert group.score("sensitivity").value == pytest.approx(np.mean(found), abs=1e-12)
        assert group.per_class == tuple((marks[own] == 1).sum(axis=0))
        assert (group.images, group.to_rest, group.positives) == (own.sum(), None, None)
    assert column.untested == "several classes per image"
    assert score_split(cases, Scored(probabilities=expit(logits))).images == COUNT


def test_logits_of_probabilities_survive_double_precision():
    values = np.linspace(-30, 30, 13)
    np.testing.assert_allclose(logit(expit(values)), values, atol=2e-3)
