"""MedMNIST's files: labels and pixels come out as they went in, and damaged files are refused."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.data import prepare
from ttl_deploy.data.readers.medmnist import MedmnistReader
from ttl_deploy.errors import DataError, LabelError, StorageError, UsageError
from ttl_deploy.records.data import Reading

COUNTS = {"train": 8, "val": 3, "test": 4}


def make(path, *, shape=(28, 28), labels=None, seed=0, save=np.savez_compressed):
    """Write a file of MedMNIST's layout; returns its arrays."""
    random = np.random.default_rng(seed)
    arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = random.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = labels(count) if labels else (np.arange(count, dtype=np.uint8) % 2)[:, None]
    save(path, **arrays)
    return arrays


def read(path, **options):
    reader = MedmnistReader()
    assert reader.recognises(str(path))
    return reader.read(str(path), Reading(**options))


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3), (64, 64), (224, 224, 3)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_pixels_and_labels_come_out_as_they_went_in(tmp_path, shape, save):
    arrays = make(tmp_path / "pneumoniamnist_28.npz", shape=shape, save=save)
    raw = read(tmp_path / "pneumoniamnist_28.npz")
    for split, count in COUNTS.items():
        samples = [s for s in raw.samples if s.split == split]
        assert len(samples) == count
        for sample, pixels, label in zip(
            samples, arrays[f"{split}_images"], arrays[f"{split}_labels"][:, 0], strict=True
        ):
            assert np.array_equal(np.asarray(Image.open(raw.root / sample.path)), pixels)
            assert sample.label == ["normal", "pneumonia"][label]
            assert sample.patient_id is None


def test_several_labels_are_findings(tmp_path):
    marks = np.random.default_rng(1).integers(0, 2, (max(COUNTS.values()), 14), dtype=np.uint8)
    make(tmp_path / "chestmnist.npz", labels=lambda count: marks[:count])
    samples = read(tmp_path).samples
    assert list(samples[0].label)[:3] == ["atelectasis", "cardiomegaly", "effusion"]
    for sample, row in zip([s for s in samples if s.split == "train"], marks, strict=True):
        assert [("absent", "present").index(mark) for mark in sample.label.values()] == row.tolist()


def test_a_file_of_another_name_has_numbers_for_classes(tmp_path):
    make(tmp_path / "mine.npz", labels=lambda count: (np.arange(count) % 12).astype(np.int64)[:, None])
    assert [s.label for s in read(tmp_path / "mine.npz").samples][:8] == [str(i) for i in range(8)]


def test_grades_keep_their_order_and_the_splits_are_kept(tmp_path):
    make(tmp_path / "retinamnist.npz", labels=lambda count: (np.arange(count) % 2 + 1).astype(np.uint8)[:, None])
    manifest = prepare(str(tmp_path / "retinamnist.npz"))
    assert manifest.classes == ("1", "2")
    assert not manifest.patients_known
    assert {split: len(manifest.of_split(split)) for split in COUNTS} == COUNTS


def test_a_second_reading_writes_nothing(tmp_path, cache_dir):
    make(tmp_path / "bloodmnist.npz")
    first = read(tmp_path / "bloodmnist.npz")
    stamps = {path: path.stat().st_mtime_ns for path in first.root.rglob("*.png")}
    (tmp_path / "bloodmnist.npz").rename(tmp_path / "bloodmnist_64.npz")
    second = read(tmp_path / "bloodmnist_64.npz")
    assert second.root == first.root
    assert second.samples == first.samples
    assert {path: path.stat().st_mtime_ns for path in second.root.rglob("*.png")} == stamps
    assert [path.name for path in (cache_dir / "unpacked").iterdir() if not path.name.startswith(".")] == [
        first.root.name
    ]


def test_a_label_beyond_the_known_classes_is_refused(tmp_path):
    make(tmp_path / "breastmnist.npz", labels=lambda count: np.full((count, 1), 2, np.uint8))
    with pytest.raises(LabelError, match="has the label 2; the set has the classes 0 to 1"):
        read(tmp_path / "breastmnist.npz")


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, cache_dir, monkeypatch):
    make(tmp_path / "a.npz")
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1 << 20})())
    with pytest.raises(StorageError, match="MB are needed"):
        read(tmp_path / "a.npz")
    assert not list((cache_dir / "unpacked").rglob("*.png"))


def test_a_column_option_is_a_usage_error(tmp_path):
    make(tmp_path / "a.npz")
    with pytest.raises(UsageError, match="--label-col dx"):
        read(tmp_path / "a.npz", label_col="dx")


def damaged(tmp_path, change):
    """Return a file whose arrays were changed before they were written."""
    arrays = make(tmp_path / "a.npz")
    change(arrays)
    np.savez(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("val_labels"), "has val_images and no val_labels"),
        (lambda a: [a.pop(name) for name in list(a) if "images" in name], "expected are train_images"),
        (lambda a: a.update(train_images=np.zeros((8, 28, 28, 28), np.uint8)), "volumes"),
        (lambda a: a.update(train_images=np.zeros((8, 28, 28), np.float32)), r"uint8 \(N, S, S\)"),
        (lambda a: a.update(train_labels=np.zeros((7, 1), np.uint8)), "for 8 images"),
        (lambda a: a.update(train_labels=np.zeros((8, 3), np.uint8)), "labels of different shapes"),
        (lambda a: a.update(train_labels=np.array([["x"]] * 8)), "allowed are plain numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        read(damaged(tmp_path, change))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return open, (str(self.place), "w")


def test_pickles_are_never_loaded(tmp_path):
    objects = np.empty((8, 1), dtype=object)
    objects[:] = Trap(tmp_path / "sprung")
    path = damaged(tmp_path, lambda arrays: arrays.update(train_labels=objects))
    (tmp_path / "sprung").unlink(missing_ok=True)
    with pytest.raises(DataError):
        read(path)
    assert not (tmp_path / "sprung").exists()


def test_a_header_that_announces_too_much_is_refused_before_anything_is_allocated(tmp_path):
    make(tmp_path / "a.npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40, 28, 28)})
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("train_images.npy", header.getvalue() + b"x")
        archive.writestr("train_labels.npy", header.getvalue() + b"x")
    with pytest.raises(DataError, match="announces 862,017,116,176,384 bytes and has 1"):
        read(tmp_path / "b.npz")


@pytest.mark.parametrize("kept", [0, 10, 100, 2000, 5000])
def test_a_cut_off_file_is_refused(tmp_path, kept):
    make(tmp_path / "a.npz")
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[:kept])
    with pytest.raises(DataError, match="Download it again"):
        read(tmp_path / "a.npz")


def test_a_changed_byte_is_refused_or_harmless(tmp_path):
    arrays = make(tmp_path / "a.npz")
    content = bytearray((tmp_path / "a.npz").read_bytes())
    random = np.random.default_rng(0)
    refused = 0
    for place in random.integers(0, len(content), 60):
        changed = content.copy()
        changed[place] ^= 1 << int(random.integers(8))
        (tmp_path / "a.npz").write_bytes(changed)
        try:
            raw = read(tmp_path / "a.npz")
        except DataError:
            refused += 1
            continue
        pixels = [np.asarray(Image.open(raw.root / s.path)) for s in raw.samples if s.split == "train"]
        assert np.array_equal(pixels, arrays["train_images"])
        assert [s.label for s in raw.samples if s.split == "train"] == ["0", "1"] * 4
    assert refused > 40


def test_the_checksum_of_a_stored_array_is_checked_and_nothing_is_left(tmp_path, cache_dir):
    make(tmp_path / "a.npz", save=np.savez)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    offset = content.index(struct.pack("<I", 0x04034B50)) + 400
    content[offset] ^= 255
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read(tmp_path / "a.npz")
    assert not list((cache_dir / "unpacked").rglob("*.png"))


def test_a_large_array_is_never_in_memory_as_a_whole(tmp_path):
    images = np.zeros((300, 224, 224, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(300) % 256
    np.savez_compressed(tmp_path / "a.npz", train_images=images, train_labels=(np.arange(300) % 2)[:, None])
    size = images.nbytes
    del images
    tracemalloc.start()
    raw = read(tmp_path / "a.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 2
    assert np.asarray(Image.open(raw.root / raw.samples[299].path))[0, 0, 0] == 299 % 256
