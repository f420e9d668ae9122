"""Scores per group are those of the group's images alone; small groups, and what cannot be scored, say so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import recall_score, roc_auc_score

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import intervals
from ttl_deploy.evidence.columns import find_groupings
from ttl_deploy.evidence.subgroups import Cases, Scored, score_columns, score_split

REPLICATES = 100


def make_cases(labels, patients, classes=("normal", "ill"), **options):
    given_options = {"split": "test", "replicates": REPLICATES, "permutations": 99} | options
    return Cases(labels=np.asarray(labels), patients=np.asarray(patients), classes=classes, **given_options)


def draw(patients=200, *, per_patient=2, classes=2, seed=0):
    """Return labels, patients and probabilities of patients with one label each."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(generator.integers(0, classes, patients), per_patient)
    logits = generator.normal(size=(len(labels), classes)) + 1.2 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, np.repeat([f"P{number}" for number in range(patients)], per_patient), probabilities


def columns_of(cases, probabilities, cells, *, reference=None, threshold=None):
    """Score one column or several, given as name to cells."""
    rows = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    groupings, _ = find_groupings(rows)
    other = None if reference is None else Scored(probabilities=reference)
    return score_columns(cases, groupings, Scored(probabilities=probabilities, threshold=threshold), other)


def by_name(column):
    return {group.name: group for group in column.groups}


@pytest.mark.parametrize("threshold", [None, 0.3])
def test_scores_are_scikit_learns_on_the_groups_own_images(threshold):
    labels, patients, probabilities = draw()
    sex = np.where(np.arange(len(labels)) % 4 < 2, "F", "M")
    (column,) = columns_of(make_cases(labels, patients), probabilities, {"sex": sex}, threshold=threshold)
    assert [group.name for group in column.groups] == ["F", "M"]
    for group in column.groups:
        own = sex == group.name
        truth, scores = labels[own], probabilities[own, 1]
        decided = probabilities[own].argmax(axis=1) if threshold is None else (scores >= threshold).astype(int)
        assert group.score("auroc").value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        assert group.score("sensitivity").value == pytest.approx(recall_score(truth, decided), abs=1e-12)
        assert group.score("specificity").value == pytest.approx(recall_score(1 - truth, 1 - decided), abs=1e-12)
        assert (group.images, group.patients) == (own.sum(), len(set(patients[own])))
        assert group.per_class == ((truth == 0).sum(), (truth == 1).sum())
        assert group.positives == truth.sum()
        assert group.small == ""


def test_intervals_resample_the_patients_of_the_group():
    labels, patients, probabilities = draw()
    view = np.tile(["AP", "PA"], 200)
    (column,) = columns_of(make_cases(labels, patients), probabilities, {"view": view})
    for group in column.groups:
        own = view == group.name
        expected = intervals.score(
            "auroc", probabilities[own], labels[own], patients[own], split="test", replicates=REPLICATES
        )
        assert group.score("auroc") == expected


def test_groups_add_up_to_the_split_and_the_split_is_scored_as_ever():
    labels, patients, probabilities = draw()
    generator = np.random.default_rng(1)
    cells = {"site": generator.choice(["A", "B", ""], 400), "age": generator.integers(20, 90, 400).astype(str)}
    cases = make_cases(labels, patients)
    for column in columns_of(cases, probabilities, cells):
        assert sum(group.images for group in column.groups) == 400
        assert np.sum([group.per_class for group in column.groups], axis=0).tolist() == np.bincount(labels).tolist()
    overall = score_split(cases, Scored(probabilities=probabilities))
    assert overall.score("auroc").value == pytest.approx(roc_auc_score(labels, probabilities[:, 1]), abs=1e-12)
    assert (overall.name, overall.images, overall.patients) == ("all", 400, 200)


def test_the_reference_is_scored_beside_it():
    labels, patients, probabilities = draw()
    reference = draw(seed=5)[2]
    sex = np.repeat(["F", "M"], 200)
    (column,) = columns_of(make_cases(labels, patients), probabilities, {"sex": sex}, reference=reference)
    for group in column.groups:
        own = sex == group.name
        score = group.reference_score("auroc")
        assert score.value == pytest.approx(roc_auc_score(labels[own], reference[own, 1]), abs=1e-12)


def test_a_small_group_keeps_its_scores_and_loses_its_intervals():
    labels, patients, probabilities = draw()
    positive = np.flatnonzero(labels == 1)[:8]  # 4 patients of two images
    negative = np.flatnonzero(labels == 0)[:40]
    site = np.full(400, "A")
    site[np.concatenate([positive, negative])] = "B"
    (column,) = columns_of(make_cases(labels, patients), probabilities, {"site": site})
    small = by_name(column)["B"]
    assert small.small == "too small to judge: 4 patients with ill"
    auroc, sensitivity, specificity = small.scores
    own = site == "B"
    assert auroc.value == pytest.approx(roc_auc_score(labels[own], probabilities[own, 1]), abs=1e-12)
    assert (auroc.low, auroc.high, auroc.delong) == (None, None, None)
    assert sensitivity.low is None
    assert "4 patients of one kind" in sensitivity.method
    assert specificity.low is not None  # rests on 20 patients without
    assert small.to_rest is None
    assert by_name(column)["A"].to_rest is None  # the rest of A is B


def test_a_group_of_one_class_is_undefined_with_the_name_of_the_class():
    labels, patients, probabilities = draw()
    site = np.where(labels == 1, "A", "B")
    (column,) = columns_of(make_cases(labels, patients), probabilities, {"site": site})
    a, b = column.groups
    assert a.score("auroc").value is None
    assert a.score("auroc").reason == f"all {a.images} images are of class ill"
    assert a.score("sensitivity").value is not None
    assert a.score("specificity").value is None
    assert a.small == "too small to judge: 0 patients without ill"
    assert b.small == "too small to judge: 0 patients with ill"
    assert column.test is None


def test_both_sides_can_be_small():
    labels, patients, probabilities = draw(10)
    site = np.repeat(["A", "B"], 10)
    (column,) = columns_of(make_cases(labels, patients), probabilities, {"site": site})
    counts = [len(set(patients[(site == "A") & (labels == k)])) for k in (1, 0)]
    assert column.groups[0].small == f"too small to judge: {counts[0]} patients with ill, {counts[1]} without"


def test_patients_in_several_groups_count_in_each_and_these_are_not_compared():
    labels, patients, probabilities = draw()
    view = np.tile(["AP", "PA"], 200)
    view[:2] = "AP"
    (column,) = columns_of(make_cases(labels, patients), probabilities, {"view": view})
    assert column.shared_patients == 199
    assert [group.patients for group in column.groups] == [200, 199]
    assert column.untested == "199 patients have images in several groups"
    assert all(group.to_rest is None for group in column.groups)


def test_columns_are_tested_and_corrected_for_their_number():
    labels, patients, probabilities = draw(400)
    generator = np.random.default_rng(2)
    cells = {name: np.repeat(generator.choice(["A", "B"], 400), 2) for name in ("sex", "site", "ward")}
    bad = cells["site"] == "B"
    probabilities[bad] = np.array([0.5, 0.5]) + 0.01 * generator.normal(size=(bad.sum(), 1)) * [-1, 1]
    columns = columns_of(make_cases(labels, patients), probabilities, cells)
    tests = [column.test for column in columns]
    ordered = sorted(test.p for test in tests)
    for test in tests:
        steps = [min(1.0, (3 - step) * p) for step, p in enumerate(ordered) if p <= test.p]
        assert test.p_holm == max(steps)  # Holm's step-down
    assert tests[1].p == 1 / 100
    assert tests[1].groups == ("A", "B")
    rest = by_name(columns[1])["B"].to_rest
    assert rest.high < 0


def test_only_groups_that_are_large_enough_are_tested():
    labels, patients, probabilities = draw(300)
    site = np.repeat(np.where(np.arange(300) < 40, "C", np.where(np.arange(300) < 160, "A", "B")), 2)
    (column,) = columns_of(make_cases(labels, patients), probabilities, {"site": site})
    assert column.test.groups == ("A", "B")
    (column,) = columns_of(make_cases(labels[:120], patients[:120]), probabilities[:120], {"site": site[:120]})
    assert column.untested == "fewer than two groups have 30 patients with, and without, ill"


def test_several_classes_are_scored_and_not_tested():
    labels, patients, probabilities = draw(300, classes=3)
    site = np.repeat(np.where(np.arange(300) % 2, "A", "B"), 2)
    site[labels == 2] = "A"
    cases = make_cases(labels, patients, classes=("x", "y", "z"))
    (column,) = columns_of(cases, probabilities, {"site": site})
    a, b = column.groups
    assert a.positives is None
    assert a.small == ""
    assert b.small == "too small to judge: 0 patients with z"
    assert (b.score("auroc").defined, b.score("auroc").low) == (2, None)
    assert column.untested == "more than two classes"
    own = site == "A"
    values = [roc_auc_score(labels[own] == k, probabilities[own, k]) for k in range(3)]
    assert a.score("auroc").value == pytest.approx(np.mean(values), abs=1e-12)


def test_a_band_without_images_says_so():
    labels, patients, probabilities = draw(100)
    age = [{"age": "50"}] * 100 + [{"age": "60"}] * 100
    groupings, _ = find_groupings(age, bands={"age": (18, 55)})
    (column,) = score_columns(make_cases(labels, patients), groupings, Scored(probabilities=probabilities))
    empty = by_name(column)["below 18"]
    assert (empty.images, empty.small, empty.score("auroc").value) == (0, "no images", None)
    assert empty.score("auroc").reason == "no images"


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="give one of each per image"):
        make_cases([0, 1], ["a"])


@settings(max_examples=25)
@given(cells=st.lists(st.sampled_from(["F", "M", "", "unknown", "Ü", "7", "07", "<b>"]), min_size=40, max_size=40))
def test_any_cells_give_scores_that_are_those_of_the_images(cells):
    labels, patients, probabilities = draw(40, per_patient=1)
    for column in columns_of(make_cases(labels, patients, replicates=10), probabilities, {"x": cells}):
        assert sum(group.images for group in column.groups) == 40
        for group in column.groups:
            own = np.array(cells) == ("" if group.name == "(blank)" else group.name)
            value = group.score("auroc").value
            if len(set(labels[own])) == 2:
                assert value == pytest.approx(roc_auc_score(labels[own], probabilities[own, 1]), abs=1e-12)
            else:
                assert value is None
