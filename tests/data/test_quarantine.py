"""Few images that do not decode are left out by name, many stop the run, and a resumed one comes to the same."""

import csv
import zlib
from types import SimpleNamespace

import pytest
from PIL import Image

from ttl_deploy.data import load_manifest, open_cache, prepare
from ttl_deploy.data.quarantine import find_unusable, leave_out, load_unusable
from ttl_deploy.errors import DataError, RunMismatchError, UnreadableImageError
from ttl_deploy.records.data import DecodeSettings, Reading
from ttl_deploy.runs.folder import RunFolder

SMALL = DecodeSettings(image_size=12)
BAD = ("empty", "text", "cut", "animated", "bomb")


@pytest.fixture
def make_set(tmp_path, draw):
    """Return a function that makes class folders of so many images, the first of which do not decode."""

    def make(images, bad):
        folder = tmp_path / "set"
        for i in range(images):
            path = draw(folder / ("cat" if i % 2 else "dog") / f"{i:03d}.png", i)
            if i < bad:
                spoil(path, BAD[i % len(BAD)])
        return folder

    return make


def spoil(path, how):
    whole = path.read_bytes()
    if how == "animated":
        first, second = (Image.new("L", (9, 9), grey) for grey in (1, 2))
        first.save(path, format="TIFF", save_all=True, append_images=[second])
    elif how == "bomb":
        head = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + whole[24:29]
        path.write_bytes(whole[:12] + head + zlib.crc32(head).to_bytes(4, "big") + whole[33:])
    else:
        path.write_bytes({"empty": b"", "text": b"no image", "cut": whole[:80]}[how])


def test_one_of_two_hundred_is_left_out_and_nobody_else_moves(make_set):
    folder = make_set(200, 1)
    manifest = prepare(str(folder))
    unusable = find_unusable(manifest, SMALL, max_bad=0.01)
    left = leave_out(manifest, unusable)
    assert [(one.path, one.reason.partition(":")[0]) for one in unusable] == [("dog/000.png", "is empty (0 bytes)")]
    assert left.samples == tuple(sample for sample in manifest.samples if sample.path != "dog/000.png")
    assert left.warnings[:-1] == manifest.warnings
    assert left.warnings[-1].message.startswith("1 of 200 images do not decode and are left out: dog/000.png is empty")
    assert len(open_cache(left, SMALL).rows) == 199


def test_five_of_a_hundred_are_refused_by_name_and_left_out_if_that_is_allowed(make_set):
    manifest = prepare(str(make_set(100, 5)))
    with pytest.raises(UnreadableImageError) as caught:
        find_unusable(manifest, SMALL, max_bad=0.01)
    message = str(caught.value)
    assert caught.value.exit_code == 3
    for words in ("000.png is empty", "001.png is not an image", "002.png does not decode", "003.png holds 2 frames"):
        assert words in message
    assert "004.png has too many pixels" in message
    assert "5.0% of the images do not decode, and --max-bad allows 1.0%" in message
    assert len(find_unusable(manifest, SMALL, max_bad=0.1)) == 5


def test_of_many_ten_are_named(make_set):
    with pytest.raises(UnreadableImageError, match=r"(?s)13 of 40 images cannot be used.*and 3 more") as caught:
        find_unusable(prepare(str(make_set(40, 13))), SMALL, max_bad=0.1)
    assert str(caught.value).count(".png") == 10


@pytest.mark.parametrize(("spoilt", "words"), [("train", "class 'cat' has no training"), ("val", "'val' is empty")])
def test_a_class_or_a_split_that_is_emptied_is_named(make_table, spoilt, words):
    rows = [
        {"path": f"{split}/{label}{i}.png", "label": label, "split": split}
        for split in ("train", "val", "test")
        for label in ("cat", "dog")
        for i in range(3)
    ]
    folder = make_table(rows)
    for row in rows:
        if row["split"] == spoilt and (row["label"] == "cat" or spoilt == "val"):
            (folder / row["path"]).write_text(f"text {row['path']}")
    manifest = prepare(str(folder))
    with pytest.raises(DataError, match=words):
        leave_out(manifest, find_unusable(manifest, SMALL, max_bad=0.5))


@pytest.fixture
def search(tmp_path):
    """Return a function that does what a search does with its data before anything is trained."""
    pytest.importorskip("torch")
    from ttl_deploy.records.trials import SearchSettings
    from ttl_deploy.search.preparation import read_data, settle_data

    def begin(folder, *, max_bad=0.01):
        notes = []
        settings = SearchSettings(backbone="resnet18", data=str(folder), decode=SMALL, reading=Reading(max_bad=max_bad))
        reporter = SimpleNamespace(step=lambda *_: None, note=notes.append)
        study = SimpleNamespace(settings=settings, run=RunFolder(tmp_path / "run"), reporter=reporter)
        return settle_data(study, read_data(study)), notes

    return begin


def test_a_resumed_search_comes_to_the_same_images_without_decoding(make_set, search, tmp_path, monkeypatch):
    folder = make_set(100, 3)
    first, notes = search(folder, max_bad=0.1)
    assert any("3 of 100 images do not decode and are left out" in text for text in notes)
    with (tmp_path / "run" / "data" / "quarantine.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["cat/001.png", "dog/000.png", "dog/002.png"]
    assert rows[1]["reason"].startswith("is empty (0 bytes)")
    assert load_manifest(tmp_path / "run" / "data") == first
    monkeypatch.setattr("ttl_deploy.data.cache.decode_all", lambda *_, **__: pytest.fail("nothing is to be decoded"))
    again, notes = search(folder, max_bad=0.1)
    assert again == first
    assert any("3 of 100 images do not decode and are left out" in text for text in notes)
    (tmp_path / "run" / "data" / "manifest.csv").unlink()  # stopped before it was stored, with the images decoded
    assert search(folder, max_bad=0.1)[0] == first


def test_an_image_that_was_mended_meanwhile_is_another_data_set(make_set, search, draw):
    folder = make_set(100, 1)
    search(folder)
    draw(folder / "dog" / "000.png", 4711)
    with pytest.raises(RunMismatchError, match=r"data\.sha256"):
        search(folder)


def test_refused_data_leave_nothing_in_the_run_folder(make_set, search, tmp_path):
    folder = make_set(100, 5)
    with pytest.raises(UnreadableImageError, match="--max-bad"):
        search(folder)
    assert not (tmp_path / "run").exists()
    assert len(search(folder, max_bad=0.1)[0].samples) == 95


def test_a_quarantine_that_was_changed_is_named(tmp_path):
    (tmp_path / "quarantine.csv").write_text("path,reason\na,b\n")
    with pytest.raises(DataError, match=r"quarantine\.csv: its columns are not path, reason, sha256"):
        load_unusable(tmp_path)
