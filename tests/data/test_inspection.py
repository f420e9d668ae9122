"""What a data set holds: counted as by hand, with the copies that matter and without those that do not."""

import csv

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.data import inspection, near_duplicates
from ttl_deploy.data.manifest import prepare
from ttl_deploy.data.traits import look_at
from ttl_deploy.errors import LeakageError, UnreadableImageError
from ttl_deploy.records import codec
from ttl_deploy.records.data import Reading
from ttl_deploy.records.inspection import Inspection
from ttl_deploy.search.inspection import describe_alarm, examine_confounding, inspect_data

SETTINGS = {"reading": Reading(), "val_fraction": 0.15, "test_fraction": 0.15, "split_seed": 0, "image_size": 64}
SPLITS = ("train", "train", "val", "test")


def draw(seed, side=64):
    coarse = np.random.default_rng(seed).integers(30, 200, (14, 14), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def make(tmp_path):
    """Return a function that writes a table; a row is `(name, picture, label, patient, split)`."""

    def write(rows, *, patients=True):
        with (tmp_path / "labels.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "patient_id", "split"] if patients else ["path", "label", "split"])
            for name, image, label, patient, split in rows:
                if image is not None:
                    image.save(tmp_path / name, **({"quality": 60} if name.endswith("jpg") else {}))
                writer.writerow([name, label, patient, split] if patients else [name, label, split])
        return tmp_path

    return write


def plain_rows(count=16):
    """Two classes in all splits, every image of a patient of its own."""
    return [(f"i{n}.png", draw(n), ("sick", "well")[n % 2], f"p{n}", SPLITS[n // 2 % 4]) for n in range(count)]


def inspect(folder, **changes):
    told = []
    found = inspect_data(str(folder), **SETTINGS | changes, progress=lambda *step: told.append(step))
    assert {step[0] for step in told} >= {"hashing", "looking at the images"}
    return found


def test_counts_sizes_and_greys_are_those_of_the_files(make):
    rows = plain_rows()
    rows[0] = ("i0.png", Image.new("L", (120, 40), 70), "sick", "p0", "train")
    rows[1] = ("i1.bmp", draw(1).convert("RGB"), "well", "p0", "train")
    found = inspect(make(rows))
    assert found.classes == ("sick", "well")
    assert [(count.split, count.images, count.patients) for count in found.splits] == [
        ("train", 8, 7),
        ("val", 4, 4),
        ("test", 4, 4),
    ]
    assert (found.images_per_patient.smallest, found.images_per_patient.largest) == (1, 2)
    assert (found.sizes.width.largest, found.sizes.height.smallest, found.sizes.distinct) == (120, 40, 2)
    assert found.sizes.enlarged == 0
    assert inspect(found.root, image_size=100).sizes.enlarged == 15
    assert found.file_types == {"PNG": 15, "BMP": 1}
    assert found.modes == {"L": 15, "RGB": 1}
    assert found.near_duplicates.blank == 1
    first = found.brightness[0]
    greys = [np.asarray(row[1].convert("L"), dtype=float) for row in rows if row[2] == "sick" and row[4] == "train"]
    assert (first.split, first.label, first.images) == ("train", "sick", 4)
    assert first.mean == pytest.approx(np.mean([grey.mean() for grey in greys]), abs=0.5)
    assert first.darkest == pytest.approx(min(grey.min() for grey in greys), abs=3)


def test_a_record_survives_its_file(make, tmp_path_factory):
    found = inspect(make(plain_rows()))
    path = tmp_path_factory.mktemp("out") / "inspect.json"
    codec.save(path, found)
    assert codec.load(Inspection, path) == found


def test_copies_across_splits_patients_and_labels_are_counted_and_named(make):
    rows = plain_rows()
    rows[1] = ("torn.jpg", rows[4][1], "well", "p1", "train")  # i4.png is in val, of another class and patient
    rows[6] = ("same.jpg", rows[7][1], "sick", "p7", "test")  # i7.png: the same patient and split, another class
    near = inspect(make(rows)).near_duplicates
    assert (near.images, near.across_splits, near.across_patients, near.across_labels) == (16, 1, 1, 2)
    assert {tuple(sorted(pair.paths)) for pair in near.pairs} == {("i4.png", "torn.jpg"), ("i7.png", "same.jpg")}
    assert near.pairs[0].match >= near.pairs[1].match >= near.least_match


def test_copies_of_one_patient_in_one_split_and_class_do_no_harm_and_are_not_reported(make):
    rows = plain_rows()
    rows[8] = ("again.jpg", rows[0][1], "sick", "p0", "train")
    found = inspect(make(rows))
    assert found.near_duplicates.pairs == ()
    assert not [warning for warning in found.warnings if warning.kind == "near-duplicates"]


def test_without_patients_no_pair_is_of_different_ones(make):
    rows = plain_rows()
    rows[1] = ("torn.jpg", rows[4][1], "well", "", "train")
    found = inspect(make(rows, patients=False))
    near = found.near_duplicates
    assert (near.across_splits, near.across_patients, near.across_labels) == (1, 0, 1)
    first = next(warning for warning in found.warnings if warning.kind == "near-duplicates")
    assert first.message.startswith("1 pairs of nearly equal pictures in different splits")


def test_pictures_that_look_alike_are_not_taken_for_copies(make):
    base = np.asarray(draw(0), dtype=float)
    bumps = [np.asarray(draw(100 + n), dtype=float) - 115 for n in range(16)]
    rows = plain_rows()
    for n, bump in enumerate(bumps):
        alike = Image.fromarray(np.clip(base + 0.35 * bump, 0, 255).astype(np.uint8))
        rows[n] = (rows[n][0], alike, *rows[n][2:])
    rows[1] = ("torn.jpg", rows[4][1], "well", "p1", "train")
    near = inspect(make(rows)).near_duplicates
    assert near.least_match == near_duplicates.STRICT_MATCH
    assert [tuple(sorted(pair.paths)) for pair in near.pairs] == [("i4.png", "torn.jpg")]


def test_byte_identical_files_are_counted_apart(make):
    rows = plain_rows()
    rows[1] = ("i1.png", rows[0][1], "well", "p1", "train")
    found = inspect(make(rows))
    assert (found.copies.groups, found.copies.across_patients, found.copies.across_labels) == (1, 1, 1)
    assert found.near_duplicates.images == 15
    assert found.near_duplicates.pairs == ()


def test_files_that_do_not_decode_are_named_and_the_rest_is_looked_at(make):
    rows = plain_rows()
    rows[3] = ("broken.png", None, "well", "p3", "train")
    folder = make(rows)
    (folder / "broken.png").write_bytes(b"GIF89a no image at all")
    found = inspect(folder)
    (bad,) = found.unreadable
    assert bad.path == "broken.png"
    assert "is not an image" in bad.reason
    assert sum(row.images for row in found.brightness) == 15
    assert "unreadable-images" in {warning.kind for warning in found.warnings}


def test_nothing_readable_and_leakage_stop_the_inspection_as_they_stop_a_search(make):
    rows = [(name, None, *rest) for name, _, *rest in plain_rows()]
    folder = make(rows)
    for number, row in enumerate(rows):
        (folder / row[0]).write_bytes(b"nothing %d" % number)
    with pytest.raises(UnreadableImageError, match="none of the 16 images"):
        inspect(folder)
    leaking = [(*row[:3], "one", row[4]) for row in plain_rows()]
    with pytest.raises(LeakageError) as refused:
        inspect(make(leaking))
    with pytest.raises(LeakageError) as as_search:
        prepare(str(folder))
    assert str(refused.value) == str(as_search.value)


def test_many_files_are_looked_at_in_processes_with_the_same_result(make):
    rows = [(f"i{n}.png", draw(n, side=24), ("sick", "well")[n % 2], f"p{n}", SPLITS[n % 4]) for n in range(130)]
    folder = make(rows)
    (folder / "i7.png").write_bytes(b"")
    paths = [row[0] for row in rows]
    alone, together = look_at(folder, paths, workers=1), look_at(folder, paths, workers=2)
    assert alone[1] == together[1]
    assert list(alone[1]) == [7]
    assert all((alone[0][n] == together[0][n]).all() for n in alone[0])
    assert len(together[0]) == 129


@pytest.mark.parametrize("telling", [True, False])
def test_an_alarm_names_the_trait_and_noise_gives_none(make, telling):
    sides = np.random.default_rng(0).integers(0, 2, 60)
    rows = [
        (f"i{n}.png", draw(n, side=48 if (n % 2 if telling else sides[n]) else 40), "ab"[n % 2], f"p{n}", SPLITS[n % 4])
        for n in range(60)
    ]
    rows = [(*row[:4], SPLITS[n // 2 % 4]) for n, row in enumerate(rows)]
    manifest = prepare(str(make(rows)))
    looks, _ = look_at(make(rows), [sample.path for sample in manifest.samples])
    examined = examine_confounding(manifest, np.arange(60), np.stack([looks[n] for n in range(60)]))
    alarms = [score for score in examined.traits if score.alarming]
    if not telling:
        assert alarms == []
        return
    assert {"image width", "image height"} <= {score.trait for score in alarms}
    width = next(score for score in alarms if score.trait == "image width")
    assert describe_alarm(width) == (
        "image width alone predicts the label with AUROC 1.00: the classes may come from different machines"
    )


@pytest.mark.parametrize(("patients", "alarmed"), [(9, False), (10, True)])
def test_few_patients_give_no_alarm_however_well_a_trait_separates_them(make, patients, alarmed):
    rows = [
        (f"i{n}.png", draw(n, side=40 + 8 * (n % 2)), "ab"[n % 2], f"p{n}", SPLITS[n // 2 % 4])
        for n in range(2 * patients)
    ]
    widths = [score for score in inspect(make(rows)).confounding.traits if score.trait == "image width"]
    assert [(score.auroc, score.alarming) for score in widths] == [(1, alarmed)]


def test_a_spread_of_numbers():
    spread = inspection.measure_spread([3, 1, 2, 10])
    assert (spread.smallest, spread.median, spread.largest) == (1, 2.5, 10)
