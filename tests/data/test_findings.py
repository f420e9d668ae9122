"""A data set whose images have several findings: splits, storage, shares of the training images."""

import csv

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.data.labels import classes_of, label_array, unknown_of
from ttl_deploy.data.manifest import limit_train, prepare, share_train
from ttl_deploy.data.manifest_files import fingerprint, load_manifest, save_manifest
from ttl_deploy.errors import DataError
from ttl_deploy.records.data import Reading

FINDINGS = ("edema", "effusion", "fracture")
READING = Reading(label_col=",".join(FINDINGS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """160 tiny pictures of 80 patients, findings of different frequency, a tenth of them uncertain."""
    root, rng = tmp_path_factory.mktemp("findings"), np.random.default_rng(5)
    rows = []
    for number in range(160):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(root / f"{number:03d}.png")
        present = rng.random(3) < (0.5, 0.3, 0.15)
        marks = ["-1" if rng.random() < 0.1 else "1" if one else rng.choice(["0", ""]) for one in present]
        rows.append([f"{number:03d}.png", f"p{number // 2}", *marks])
    with open(root / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "patient_id", *FINDINGS], *rows])
    return root


@pytest.fixture(scope="module")
def manifest(folder):
    return prepare(str(folder), reading=READING)


def shares(manifest, split):
    marks = label_array(manifest.samples)[list(manifest.of_split(split))]
    return (marks == 1).mean(axis=0)


def test_splits_keep_patients_whole_and_every_finding_in_proportion(manifest):
    assert manifest.multilabel
    assert manifest.classes == FINDINGS
    splits = {}
    for sample in manifest.samples:
        splits.setdefault(sample.patient_id, set()).add(sample.split)
    assert {len(found) for found in splits.values()} == {1}
    sizes = {split: len(manifest.of_split(split)) for split in ("train", "val", "test")}
    assert abs(sizes["val"] - 24) <= 3
    assert abs(sizes["test"] - 24) <= 3
    for split in ("val", "test"):
        np.testing.assert_allclose(shares(manifest, split), shares(manifest, "train"), atol=0.08)


def test_a_stored_manifest_is_read_back_exactly_and_a_changed_mark_is_noticed(manifest, tmp_path):
    save_manifest(manifest, tmp_path)
    assert load_manifest(tmp_path) == manifest
    text = (tmp_path / "manifest.csv").read_text()
    assert "?" in text
    (tmp_path / "manifest.csv").write_text(text.replace("?", "0", 1))
    with pytest.raises(DataError, match="does not fit its fingerprint"):
        load_manifest(tmp_path)
    (tmp_path / "manifest.csv").write_text(text.replace("?", "x", 1))
    with pytest.raises(DataError, match="cannot read"):
        load_manifest(tmp_path)


def test_the_fingerprint_counts_present_and_unknown_findings(manifest):
    for counts in fingerprint(manifest).counts:
        samples = [manifest.samples[position] for position in manifest.of_split(counts.split)]
        for number in range(3):
            assert counts.per_class[number] == sum(number in classes_of(sample.label) for sample in samples)
            assert counts.unknown[number] == sum(number in unknown_of(sample.label) for sample in samples)


def test_another_policy_is_another_data_set(folder, manifest):
    masked = fingerprint(manifest).sha256
    others = [Reading(label_col=READING.label_col, uncertain=policy) for policy in ("ones", "zeros")]
    assert len({masked, *(fingerprint(prepare(str(folder), reading=one)).sha256 for one in others)}) == 3


@pytest.mark.parametrize("reduce", [lambda m: limit_train(m, 40, seed=1), lambda m: share_train(m, 0.4, seed=1)])
def test_a_part_of_the_training_images_keeps_patients_whole_and_findings_in_proportion(manifest, reduce):
    less = reduce(manifest)
    kept = {sample.patient_id for sample in less.samples if sample.split == "train"}
    everybody = [sample for sample in manifest.samples if sample.split == "train"]
    assert sum(sample.split == "train" for sample in less.samples) == sum(s.patient_id in kept for s in everybody)
    assert 30 <= len(less.of_split("train")) <= 50
    np.testing.assert_allclose(shares(less, "train"), shares(manifest, "train"), atol=0.12)
    assert [less.samples[i] for i in less.of_split("val")] == [manifest.samples[i] for i in manifest.of_split("val")]
