"""From a data set to a manifest: classes, splits, leakage, warnings, and the way to disk and back."""

import csv
import json
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttl_deploy.data import fingerprint, limit_train, load_manifest, prepare, save_manifest
from ttl_deploy.data.labelling import order_classes
from ttl_deploy.data.leakage import check
from ttl_deploy.errors import DataError, LabelError, LeakageError, StorageError, UsageError
from ttl_deploy.files import sha256_file
from ttl_deploy.records.data import DataWarning, Manifest, Sample


def rows(per_class=12, per_patient=2, **columns):
    """Return table rows: two classes, patients of `per_patient` images."""
    return [
        {"path": f"{label}/{i}.png", "label": label, "patient_id": f"{label}{i // per_patient}", **columns}
        for label in ("cat", "dog")
        for i in range(per_class)
    ]


def kinds(manifest):
    return [warning.kind for warning in manifest.warnings]


def in_two_splits(manifest, key):
    found = {}
    for sample in manifest.samples:
        found.setdefault(key(sample), set()).add(sample.split)
    return [name for name, splits in found.items() if len(splits) > 1]


# classes


@pytest.mark.parametrize(
    ("labels", "ordered"),
    [
        ({"PNEUMONIA", "NORMAL"}, ("NORMAL", "PNEUMONIA")),
        ({"benign", "Malignant"}, ("benign", "Malignant")),
        ({"finding", "no_finding"}, ("no_finding", "finding")),
        ({"covid", "healthy"}, ("healthy", "covid")),
        ({"zebra", "ant"}, ("ant", "zebra")),
        ({"1", "0"}, ("0", "1")),
        ({"yes", "no"}, ("no", "yes")),
        ({"10", "9", "2"}, ("2", "9", "10")),
        ({"virus", "normal", "bacteria"}, ("bacteria", "normal", "virus")),
    ],
)
def test_classes_are_sorted_and_of_two_the_normal_one_comes_first(labels, ordered):
    assert order_classes(labels) == ordered


def test_one_class_only_is_refused(make_table):
    folder = make_table([row for row in rows() if row["label"] == "cat"])
    with pytest.raises(DataError, match=r"only the class 'cat'.*at least two"):
        prepare(str(folder))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no images") as caught:
        prepare(str(tmp_path))
    assert caught.value.exit_code == 3


# splits


def test_without_splits_all_three_are_made_by_patient(make_table):
    manifest = prepare(str(make_table(rows())))
    assert {sample.split for sample in manifest.samples} == {"train", "val", "test"}
    assert not in_two_splits(manifest, lambda sample: sample.patient_id)
    assert "made-splits" in kinds(manifest)
    assert manifest.patients_known


def test_samples_carry_the_hash_of_their_file(make_table):
    folder = make_table(rows())
    for sample in prepare(str(folder)).samples:
        assert sample.sha256 == sha256_file(folder / sample.path)


def test_an_official_test_split_is_kept_and_val_comes_out_of_train(make_table):
    table = rows()
    for row in table:
        row["split"] = "test" if row["patient_id"] in ("cat0", "dog0", "dog1") else "train"
    manifest = prepare(str(make_table(table)))
    official = {row["path"] for row in table if row["split"] == "test"}
    assert {sample.path for sample in manifest.samples if sample.split == "test"} == official
    assert manifest.of_split("val")
    assert not in_two_splits(manifest, lambda sample: sample.patient_id)


def test_official_splits_in_full_are_kept_as_they_are(make_table):
    table = rows()
    for row in table:
        row["split"] = {"0": "test", "1": "val"}.get(row["patient_id"][-1], "train")
    manifest = prepare(str(make_table(table)))
    assert {s.path: s.split for s in manifest.samples} == {row["path"]: row["split"] for row in table}
    assert "made-splits" not in kinds(manifest)


def test_a_table_that_says_train_everywhere_gets_val_and_test(make_table):
    manifest = prepare(str(make_table(rows(split="train"))))
    assert all(manifest.of_split(split) for split in ("train", "val", "test"))


def test_a_table_without_training_images_is_refused(make_table):
    with pytest.raises(LabelError, match="no training images"):
        prepare(str(make_table(rows(split="test"))))


def test_the_order_of_rows_changes_nothing(make_table):
    folder = make_table(rows())
    first = prepare(str(folder))
    header, *lines = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join([header, *reversed(lines)]))
    assert prepare(str(folder)) == first


def test_the_seed_decides_the_split(make_table):
    folder = str(make_table(rows(per_class=30)))
    assert prepare(folder, split_seed=1) == prepare(folder, split_seed=1)
    assert prepare(folder, split_seed=1).samples != prepare(folder, split_seed=2).samples


@pytest.mark.parametrize("fraction", [0.0, 0.5, -1.0])
def test_fractions_out_of_range_are_a_usage_error(fraction):
    with pytest.raises(UsageError, match=r"val_fraction"):
        prepare("phantom", val_fraction=fraction)


# leakage


def test_a_patient_in_two_splits_is_named(make_table):
    table = rows(split="train")
    table[1]["split"] = "test"
    with pytest.raises(LeakageError, match=r"patient 'cat0' is in train and test") as caught:
        prepare(str(make_table(table)))
    assert caught.value.exit_code == 3


def test_identical_files_in_two_splits_are_named(make_table):
    table = rows(split="train")
    table[0] |= {"split": "test", "patient_id": "x", "seed": 99}
    table[5] |= {"seed": 99}
    with pytest.raises(LeakageError, match=r"identical files cat/5\.png \(train\) and cat/0\.png \(test\)"):
        prepare(str(make_table(table)))


def test_without_patients_identical_files_are_named_and_no_made_up_patient(make_table):
    table = [{k: v for k, v in row.items() if k != "patient_id"} for row in rows(split="train")]
    table[0] |= {"split": "test", "seed": 99}
    table[5] |= {"seed": 99}
    with pytest.raises(LeakageError, match=r"^identical files"):
        prepare(str(make_table(table)))


def test_many_leaks_are_counted():
    samples = [
        Sample(path=f"{i}", label=0, patient_id=f"p{i // 2}", split="train" if i % 2 else "val", sha256=f"{i}")
        for i in range(16)
    ]
    with pytest.raises(LeakageError, match=r"'p0'.*'p4' is in train and val; and 3 more"):
        check(samples)


def test_copies_under_two_patients_stay_together_in_made_splits(make_table):
    table = rows(per_class=20)
    for i in range(0, 10, 2):
        table[i]["seed"] = table[i + 3]["seed"] = 1000 + i  # chains patients 0-1-2-…
    manifest = prepare(str(make_table(table)))
    assert not in_two_splits(manifest, lambda sample: sample.patient_id)
    assert not in_two_splits(manifest, lambda sample: sample.sha256)
    assert "identical-images" in kinds(manifest)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 15)), min_size=4, max_size=40))
@settings(deadline=None, max_examples=60)
def test_the_check_finds_exactly_the_leaks_that_brute_force_finds(pairs):
    samples = [
        Sample(path=str(i), label=0, patient_id=f"p{p}", split="train" if i % 3 else "test", sha256=f"h{h}")
        for i, (p, h) in enumerate(pairs)
    ]
    leaking = any(
        a.split != b.split and (a.patient_id == b.patient_id or a.sha256 == b.sha256) for a in samples for b in samples
    )
    if leaking:
        with pytest.raises(LeakageError):
            check(samples)
    else:
        check(samples)


# warnings


def test_missing_patients_are_warned_of_and_each_distinct_image_is_one(make_table):
    table = [{k: v for k, v in row.items() if k != "patient_id"} for row in rows()]
    table[3]["seed"] = table[4]["seed"] = 99
    manifest = prepare(str(make_table(table)))
    assert not manifest.patients_known
    assert "no-patient-ids" in kinds(manifest)
    assert len({sample.patient_id for sample in manifest.samples}) == len(table) - 1


def test_identical_images_with_different_labels_are_warned_of(make_table):
    table = rows()
    table[0]["seed"] = table[12]["seed"] = 99
    message = next(w.message for w in prepare(str(make_table(table))).warnings if w.kind == "conflicting-labels")
    assert "cat/0.png (cat) and dog/0.png (dog)" in message


def test_imbalance_and_a_shift_of_prevalence_are_named(make_table):
    table = [row for row in rows(per_class=60) if row["label"] == "dog" or int(row["path"][4:-4]) < 20]
    for row in table:
        number = int(row["path"][4:-4])
        row["split"] = "test" if number < 10 else "val" if number < 14 else "train"
    found = kinds(prepare(str(make_table(table))))
    assert "class-imbalance" in found
    assert "prevalence-shift" in found


def test_a_class_missing_from_official_test_is_named(make_table):
    table = rows(per_class=30)
    for row in table:
        row["split"] = "test" if row["label"] == "dog" and int(row["path"][4:-4]) < 12 else "train"
    messages = [w.message for w in prepare(str(make_table(table))).warnings if w.kind == "class-missing"]
    assert messages == ["test holds no image of class 'cat': its scores are undefined there"]


# limiting


def test_a_limit_keeps_whole_patients_and_leaves_val_and_test_alone(make_table):
    manifest = prepare(str(make_table(rows(per_class=40))))
    limited = limit_train(manifest, 20, 0)
    kept = {limited.samples[i].patient_id for i in limited.of_split("train")}
    whole = [s for s in manifest.samples if s.split == "train" and s.patient_id in kept]
    assert [limited.samples[i] for i in limited.of_split("train")] == whole
    assert len(whole) == 20
    assert [s for s in limited.samples if s.split != "train"] == [s for s in manifest.samples if s.split != "train"]
    assert limit_train(manifest, 10_000, 0) is manifest


def test_a_limit_without_room_for_every_class_is_refused(make_table):
    manifest = prepare(str(make_table(rows())))
    with pytest.raises(UsageError, match="no room for a whole patient of class"):
        limit_train(manifest, 2, 0)
    with pytest.raises(UsageError, match="below the number of classes"):
        limit_train(manifest, 1, 0)


# hashing


def test_hashes_are_remembered_and_a_changed_file_is_read_again(make_table, draw, monkeypatch):
    folder = make_table(rows())
    for path in folder.rglob("*.png"):
        os.utime(path, (1_000_000, 1_000_000))
    # A file counts as settled once its change time lies behind us; the test cannot wait for that.
    monkeypatch.setattr("ttl_deploy.data.hashes.SETTLED_NS", -(10**12))
    first = prepare(str(folder))
    read = []
    monkeypatch.setattr("ttl_deploy.data.hashes.sha256_file", lambda path: read.append(path) or sha256_file(path))
    assert prepare(str(folder)) == first
    assert read == []
    draw(folder / "cat" / "0.png", 4711)
    changed = next(sample for sample in prepare(str(folder)).samples if sample.path == "cat/0.png")
    assert [path.name for path in read] == ["0.png"]
    assert changed.sha256 == sha256_file(folder / "cat" / "0.png")


def test_a_file_written_just_now_is_not_remembered(make_table, cache_dir):
    prepare(str(make_table(rows())))
    assert [json.loads(path.read_text()) for path in (cache_dir / "hashes").iterdir()] in ([], [{}])


def test_a_damaged_index_is_built_anew(make_table, cache_dir):
    folder = str(make_table(rows()))
    (cache_dir / "hashes").mkdir()
    first = prepare(folder)
    for path in (cache_dir / "hashes").iterdir():
        path.write_text('{"cat/0.png": 3}')
    assert prepare(folder) == first


def test_progress_is_told(make_table):
    told = []
    prepare(str(make_table(rows())), progress=lambda *step: told.append(step))
    assert told[-1] == ("hashing", 24, 24)


def test_a_cache_folder_that_cannot_be_written_names_the_variable(make_table, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StorageError, match="Set TTL_DEPLOY_CACHE") as caught:
        prepare(str(make_table(rows())))
    assert caught.value.exit_code == 74


# disk

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@given(st.lists(st.tuples(TEXT.filter(bool), TEXT, TEXT), min_size=2, max_size=8, unique_by=lambda row: row[0]))
@settings(deadline=None, max_examples=20)
def test_a_manifest_comes_back_exactly(tmp_path_factory, table):
    folder = tmp_path_factory.mktemp("run")
    samples = tuple(
        Sample(
            path=path,
            label=i % 2,
            patient_id=patient,
            split=("train", "val", "test")[i % 3],
            sha256=f"{i:064x}",
            extra={"label": extra, "=cmd": patient},
        )
        for i, (path, patient, extra) in enumerate(table)
    )
    manifest = Manifest(
        name="n",
        root="/r",
        reader="table",
        classes=("-a", "b,'\""),
        samples=samples,
        patients_known=True,
        warnings=(DataWarning(kind="k", message="ü"),),
    )
    save_manifest(manifest, folder)
    assert load_manifest(folder) == manifest


def test_the_files_say_what_was_checked_and_hold_no_path_in_the_fingerprint(make_table, tmp_path):
    folder = make_table(rows(sex="F"))
    save_manifest(prepare(str(folder)), tmp_path / "data")
    checks = json.loads((tmp_path / "data" / "checks.json").read_text())
    assert checks["images"] == 24
    assert "no patient stands in two splits" in checks["passed"]
    assert "made-splits" in [warning["kind"] for warning in checks["warnings"]]
    assert str(folder) not in (tmp_path / "data" / "fingerprint.json").read_text()
    with (tmp_path / "data" / "manifest.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert (first["path"], first["label"], first["extra:sex"]) == ("cat/0.png", "cat", "F")


def test_a_changed_manifest_is_noticed(make_table, tmp_path):
    save_manifest(prepare(str(make_table(rows()))), tmp_path / "data")
    path = tmp_path / "data" / "manifest.csv"
    path.write_text(path.read_text().replace(",cat,", ",dog,", 1))
    with pytest.raises(DataError, match="does not fit its fingerprint"):
        load_manifest(tmp_path / "data")


def test_a_missing_manifest_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        load_manifest(tmp_path)


def test_the_fingerprint_depends_on_content_and_not_on_place_or_order(make_table, tmp_path):
    here = prepare(str(make_table(rows())))
    there = prepare(str(make_table(rows(), folder=tmp_path / "other" / "set")))
    assert here.root != there.root
    assert fingerprint(here) == fingerprint(there)
    assert fingerprint(replace(here, samples=here.samples[::-1])) == fingerprint(here)


@pytest.mark.parametrize("change", [{"label": 1}, {"split": "test"}, {"patient_id": "x"}, {"sha256": "0" * 64}])
def test_the_fingerprint_changes_with_each_thing_it_covers(make_table, change):
    manifest = prepare(str(make_table(rows())))
    sample = next(s for s in manifest.samples if s.label == 0 and s.split == "train")
    samples = tuple(replace(s, **change) if s == sample else s for s in manifest.samples)
    assert fingerprint(replace(manifest, samples=samples)).sha256 != fingerprint(manifest).sha256


def test_the_fingerprint_counts_images_patients_and_classes(make_table):
    manifest = prepare(str(make_table(rows())))
    counts = fingerprint(manifest).counts
    assert [count.split for count in counts] == ["train", "val", "test"]
    assert sum(count.images for count in counts) == 24
    assert sum(count.patients for count in counts) == 12
    assert [sum(column) for column in zip(*(count.per_class for count in counts), strict=True)] == [12, 12]
