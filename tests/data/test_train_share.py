"""A share of the training patients: whole patients, every class, and nothing else changed."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttl_deploy.data import prepare
from ttl_deploy.data.manifest import share_train
from ttl_deploy.errors import UsageError
from ttl_deploy.records.data import Manifest, Sample


def cohort(held, *, val=2, test=2):
    """Return a manifest with a training patient for each tuple of labels in `held`, an image per label."""
    labels = [("train", labels) for labels in held] + [("val", (0, 1))] * val + [("test", (0, 1))] * test
    samples = tuple(
        Sample(path=f"{p}-{i}", label=label, patient_id=f"p{p}", split=split, sha256=f"{p * 7919 % 10007:05d}{i}")
        for p, (split, labels) in enumerate(labels)
        for i, label in enumerate(labels)
    )
    return Manifest(name="n", root="/r", reader="t", classes=("a", "b", "c", "d"), samples=samples, patients_known=True)


def training_patients(manifest):
    """Return the labels of every training patient."""
    found = {}
    for i in manifest.of_split("train"):
        found.setdefault(manifest.samples[i].patient_id, []).append(manifest.samples[i].label)
    return found


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_a_fraction_keeps_that_share_of_each_class_in_whole_patients_of_any_size(fraction):
    sizes = [1, 2, 7, 1, 3]
    held = [(0,) * sizes[i % 5] for i in range(80)] + [(1,) * sizes[i % 5] for i in range(20)]
    manifest = cohort(held)
    shared = share_train(manifest, fraction, 0)
    kept, before = training_patients(shared), training_patients(manifest)
    assert {name: before[name] for name in kept} == kept
    firsts = [labels[0] for labels in kept.values()]
    assert (firsts.count(0), firsts.count(1)) == (80 * fraction, 20 * fraction)


def test_a_fraction_leaves_val_and_test_alone_and_says_what_is_used():
    manifest = cohort([(0, 0)] * 30 + [(1, 1)] * 10)
    shared = share_train(manifest, 0.5, 0)
    assert [s for s in shared.samples if s.split != "train"] == [s for s in manifest.samples if s.split != "train"]
    assert [w.message for w in shared.warnings] == ["40 of 80 training images are used"]
    assert share_train(manifest, 1.0, 0) is manifest


def test_the_seed_and_the_content_decide_who_is_in_a_fraction_and_the_order_does_not():
    manifest = cohort([(0,)] * 60 + [(1,)] * 40)
    backwards = replace(manifest, samples=manifest.samples[::-1])
    chosen = [set(training_patients(share_train(m, 0.3, seed))) for m, seed in ((manifest, 1), (backwards, 1))]
    assert chosen[0] == chosen[1] != set(training_patients(share_train(manifest, 0.3, 2)))


def test_the_smallest_fraction_still_has_a_patient_of_every_class():
    kept = training_patients(share_train(cohort([(0,)] * 90 + [(1,)] * 8 + [(2,)] * 2), 0.001, 0))
    assert sorted(kept.values()) == [[0], [1], [2]]


@pytest.mark.parametrize("seed", range(5))
def test_a_patient_with_two_classes_counts_for_the_rarer_one(seed):
    kept = training_patients(share_train(cohort([(1,)] * 90 + [(0, 1)] * 10), 0.2, seed))
    assert sorted(kept.values()) == [[0, 1]] * 2 + [[1]] * 18


@pytest.mark.parametrize("seed", range(12))
def test_a_class_that_stands_beside_other_classes_only_is_not_lost(seed):
    held = [labels for label in (0, 1, 2) for labels in [(label, 3), (label,), (label,)]]
    kept = training_patients(share_train(cohort(held), 0.01, seed))
    assert set().union(*kept.values()) == {0, 1, 2, 3}
    assert len(kept) <= 4


@given(
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), min_size=2, max_size=40),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
@settings(deadline=None, max_examples=80)
def test_a_fraction_of_patients_with_several_classes_stays_near_its_share_and_loses_no_class(held, fraction, seed):
    manifest = cohort(held)
    kept, before = training_patients(share_train(manifest, fraction, seed)), training_patients(manifest)
    assert {name: before[name] for name in kept} == kept
    assert set().union(*kept.values()) == set().union(*before.values())
    # Every class may cost one patient more, and one less by rounding.
    assert abs(len(kept) - fraction * len(before)) <= 4.5


def test_patients_with_identical_images_stay_together_in_a_fraction(make_table):
    table = [
        {"path": f"{label}/{i}.png", "label": label, "patient_id": f"{label}{i // 2}", "split": "train"}
        for label in ("cat", "dog")
        for i in range(40)
    ]
    for i in range(0, 40, 4):
        table[i]["seed"] = table[i + 2]["seed"] = 1000 + i  # patients 0-1, 2-3, …
    manifest = prepare(str(make_table(table)))
    shared = share_train(manifest, 0.4, 0)
    kept = {shared.samples[i].sha256 for i in shared.of_split("train")}
    left_out = {manifest.samples[i].sha256 for i in manifest.of_split("train")} - kept
    names = training_patients(shared)
    twins = [(f"cat{i}", f"cat{i + 1}") for i in range(0, 20, 2)]
    both = [(a in names, b in names) for a, b in twins if {a, b} & set(training_patients(manifest))]
    assert left_out
    assert all(a == b for a, b in both)
    assert any(a for a, b in both)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, float("nan")])
def test_a_fraction_out_of_range_is_a_usage_error(fraction):
    with pytest.raises(UsageError, match=r"--train-fraction .*above 0 and up to 1"):
        share_train(cohort([(0,), (1,)]), fraction, 0)
