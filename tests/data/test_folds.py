"""Cross-validation's splits: whole patients, each tested once, the same folds in every run."""

from collections import Counter

import numpy as np
import pytest

from ttl_deploy.data.folds import assign_folds, split_by_fold
from ttl_deploy.errors import DataError, UsageError
from ttl_deploy.records.data import Sample
from ttl_deploy.records.folds import Fold

CLASSES = ("a", "b", "c")


def make_samples(*, patients=60, several=False, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for patient in range(patients):
        kind = int(rng.choice(3, p=(0.5, 0.3, 0.2)))
        for image in range(int(rng.integers(1, 4))):
            label = tuple(int(mark) for mark in rng.choice((1, 0, -1), 3, p=(0.3, 0.6, 0.1))) if several else kind
            name = f"{patient}-{image}"
            found.append(Sample(path=name, label=label, patient_id=f"p{patient}", split="train", sha256=name))
    return tuple(found)


def split(samples, number, count=5):
    return split_by_fold(samples, [None] * len(samples), CLASSES, Fold(number=number, count=count), seed=4)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("count", [3, 5])
def test_every_image_is_tested_once_and_validated_on_once(several, count):
    samples = make_samples(several=several)
    runs = [split(samples, number, count) for number in range(1, count + 1)]
    for held_out in ("test", "val"):
        times = Counter(sample.path for run in runs for sample in run if sample.split == held_out)
        assert times == Counter(sample.path for sample in samples)
    for number, run in enumerate(runs, start=1):
        following = runs[number % count]
        assert {s.path for s in run if s.split == "val"} == {s.path for s in following if s.split == "test"}


@pytest.mark.parametrize("several", [False, True])
def test_patients_stay_whole(several):
    run = split(make_samples(several=several), 2)
    splits = {sample.patient_id: set() for sample in run}
    for sample in run:
        splits[sample.patient_id].add(sample.split)
    assert {len(found) for found in splits.values()} == {1}


def test_every_fold_has_about_its_share_of_each_class():
    samples = make_samples(patients=300)
    folds = assign_folds(samples, CLASSES, count=5, seed=0)
    for label in range(3):
        counts = np.bincount(
            [fold for fold, one in zip(folds, samples, strict=True) if one.label == label], minlength=5
        )
        assert counts.max() - counts.min() <= max(4, 0.1 * counts.mean())


def test_every_fold_has_about_its_share_of_each_of_several_labels_and_of_the_images():
    samples = make_samples(patients=300, several=True)
    folds = np.array(assign_folds(samples, CLASSES, count=5, seed=0))
    marks = np.array([sample.label for sample in samples])
    for counts in (np.bincount(folds), *(np.bincount(folds[marks[:, k] == 1], minlength=5) for k in range(3))):
        assert counts.max() - counts.min() <= max(4, 0.15 * counts.mean())


def test_folds_do_not_depend_on_the_order_of_rows():
    samples = make_samples()
    turned = tuple(reversed(samples))
    assert assign_folds(turned, CLASSES, count=5, seed=1)[::-1] == assign_folds(samples, CLASSES, count=5, seed=1)


def test_splits_that_the_source_names_are_not_undone():
    samples = make_samples()
    with pytest.raises(UsageError, match="--split-col none to ignore them"):
        split_by_fold(samples, ["train"] * len(samples), CLASSES, Fold(number=1, count=5), seed=0)


def test_a_class_of_too_few_patients_for_so_many_folds_is_refused():
    samples = [s for s in make_samples() if s.label != 2] + [
        Sample(path="x", label=2, patient_id="x", split="train", sha256="x")
    ]
    with pytest.raises(DataError, match="dividing it into 5 folds needs at least 5"):
        assign_folds(samples, CLASSES, count=5, seed=0)


@pytest.mark.parametrize(("number", "count"), [(1, 2), (0, 5), (6, 5), (1, 21)])
def test_numbers_that_make_no_folds_are_refused(number, count):
    with pytest.raises(ValueError, match="fold"):
        Fold(number=number, count=count)
