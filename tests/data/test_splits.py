"""Made splits keep groups whole, classes in proportion, and depend on content and seed only."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttl_deploy.data.splits import assign_splits, choose_groups, group_samples
from ttl_deploy.errors import DataError

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


def flood(patients, hashes):
    """Find the connected components by brute force."""
    component = list(range(len(patients)))
    changed = True
    while changed:
        changed = False
        for i in range(len(patients)):
            for j in range(i):
                if (patients[i] == patients[j] or hashes[i] == hashes[j]) and component[i] != component[j]:
                    component[i] = component[j] = min(component[i], component[j])
                    changed = True
    return component


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 12)), min_size=1, max_size=25))
@settings(deadline=None, max_examples=150)
def test_groups_are_the_connected_components(pairs):
    patients, hashes = [f"p{p}" for p, _ in pairs], [f"h{h}" for _, h in pairs]
    groups, expected = group_samples(patients, hashes), flood(patients, hashes)
    for i in range(len(pairs)):
        for j in range(i):
            assert (groups[i] == groups[j]) == (expected[i] == expected[j])


def cohort(patients=300, classes=3, seed=0):
    """Return labels, groups and keys of patients with 1 to 8 images; rare last class."""
    rng = np.random.default_rng(seed)
    weights = np.array([0.6, 0.3, 0.1][:classes])
    labels, groups = [], []
    for patient in range(patients):
        label = int(rng.choice(classes, p=weights / weights.sum()))
        count = int(rng.integers(1, 9))
        labels += [label] * count
        groups += [patient] * count
    return labels, groups, [f"{i:06d}" for i in range(len(labels))]


def split(labels, groups, keys, *, seed=0, fractions=FRACTIONS):
    classes = [str(label) for label in range(max(labels) + 1)]
    return assign_splits(labels, groups, keys=keys, classes=classes, fractions=fractions, seed=seed)


def where_groups_are(groups, splits):
    found = defaultdict(set)
    for group, name in zip(groups, splits, strict=True):
        found[group].add(name)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_fractions_of_images_classes_and_patients_are_met(seed):
    labels, groups, keys = cohort(seed=seed)
    splits = np.array(split(labels, groups, keys, seed=seed))
    found = where_groups_are(groups, splits)
    assert all(len(names) == 1 for names in found.values())
    for name, fraction in FRACTIONS.items():
        assert np.mean(splits == name) == pytest.approx(fraction, abs=0.01)
        assert sum(name in names for names in found.values()) / 300 == pytest.approx(fraction, abs=0.03)
        for label in range(3):
            assert np.mean(splits[np.array(labels) == label] == name) == pytest.approx(fraction, abs=0.03)


def test_the_result_does_not_depend_on_the_order_of_the_samples():
    labels, groups, keys = cohort(patients=60)
    there = dict(zip(keys, split(labels, groups, keys), strict=True))
    order = np.random.default_rng(1).permutation(len(labels))
    shuffled = [[column[i] for i in order] for column in (labels, groups, keys)]
    assert dict(zip(shuffled[2], split(*shuffled), strict=True)) == there


def test_another_seed_gives_another_split():
    cohort_of_60 = cohort(patients=60)
    assert split(*cohort_of_60, seed=0) == split(*cohort_of_60, seed=0)
    assert split(*cohort_of_60, seed=0) != split(*cohort_of_60, seed=1)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 6)), min_size=0, max_size=12), st.integers(0, 99))
@settings(deadline=None, max_examples=150)
def test_every_class_is_in_every_split_however_few_patients_there_are(more, seed):
    patients = [(label, 1) for label in (0, 1, 2) for _ in range(3)] + more
    labels = [label for label, count in patients for _ in range(count)]
    groups = [number for number, (_, count) in enumerate(patients) for _ in range(count)]
    splits = split(labels, groups, [f"{i:04d}" for i in range(len(labels))], seed=seed)
    assert {(label, name) for label, name in zip(labels, splits, strict=True)} == {
        (label, name) for label in range(3) for name in FRACTIONS
    }


def test_one_huge_patient_goes_to_train():
    labels, groups = [0] * 50 + [1] * 50, [0] * 40 + list(range(1, 61))
    splits = split(labels, groups, [f"{i:04d}" for i in range(100)])
    assert splits[0] == "train"


def test_a_class_with_too_few_patients_is_named():
    with pytest.raises(DataError, match="class '1' has 2 patients"):
        split([0] * 9 + [1] * 9, [*range(9), *([20] * 5), *([21] * 4)], [str(i) for i in range(18)])


@pytest.mark.parametrize("limit", [10, 100, 333, 1000])
def test_a_subsample_keeps_patients_whole_and_classes_in_proportion(limit):
    labels, groups, keys = cohort()
    chosen = choose_groups(labels, groups, keys=keys, limit=limit, seed=3)
    assert limit - 8 <= len(chosen) <= limit
    kept = {groups[i] for i in chosen}
    assert [i for i in range(len(labels)) if groups[i] in kept] == chosen
    for label in range(3):
        share = np.mean(np.array(labels) == label)
        assert sum(labels[i] == label for i in chosen) == pytest.approx(share * limit, abs=8)
