"""Manifests of large sets are remembered, and made anew where anything they depend on was changed."""

import os
import shutil
from dataclasses import replace

import pytest

from ttl_deploy.data import fingerprint, load_manifest, manifest_files, prepare, remembered, save_manifest
from ttl_deploy.data import manifest as manifest_module
from ttl_deploy.errors import DataError, UnreadableImageError
from ttl_deploy.records.data import Reading
from ttl_deploy.records.folds import Fold


@pytest.fixture(autouse=True)
def small_sets_count_as_large_and_young_files_as_settled(monkeypatch):
    monkeypatch.setattr(remembered, "WORTH_IMAGES", 1)
    monkeypatch.setattr(remembered, "SETTLED_NS", -(10**15))


@pytest.fixture
def makings(monkeypatch):
    """Return a list that gets an entry whenever a manifest is made from files."""
    found = []

    def count(data, *arguments, **options):
        found.append(data)
        return make(data, *arguments, **options)

    make = manifest_module._make
    monkeypatch.setattr(manifest_module, "_make", count)
    return found


@pytest.fixture
def table(make_table):
    rows = [
        {"path": f"{label}/{i}.png", "label": label, "patient_id": f"{label}{i // 2}", "age": i, "=sum": '"a,b"'}
        for label in ("cat", "dog")
        for i in range(12)
    ]
    return make_table(rows)


@pytest.mark.parametrize("kind", ["table", "folder"])
def test_what_was_remembered_is_what_would_be_made(table, makings, kind):
    if kind == "folder":
        (table / "labels.csv").unlink()
    first = prepare(str(table))
    again = prepare(str(table))
    assert again == first
    assert fingerprint(again) == manifest_files._fingerprint(first)
    assert len(makings) == 1


def _edit_image(folder, draw):
    path = folder / "cat" / "3.png"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    times = path.stat()
    path.write_bytes(content)  # of the same size, and with the old time put back
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _edit_table(folder, draw):
    table = folder / "labels.csv"
    times = table.stat()
    table.write_text(table.read_text().replace("dog/3.png,dog", "dog/3.png,cat"))
    os.utime(table, ns=(times.st_atime_ns, times.st_mtime_ns))


def _swap_images(folder, draw):
    first, second, third = folder / "cat" / "1.png", folder / "dog" / "1.png", folder / "third"
    first.rename(third)
    second.rename(first)
    third.rename(second)


@pytest.mark.parametrize("change", [_edit_image, _edit_table, _swap_images])
def test_a_changed_image_or_table_is_noticed(table, makings, draw, change):
    first = prepare(str(table))
    change(table, draw)
    changed = prepare(str(table))
    assert len(makings) == 2
    assert fingerprint(changed) != fingerprint(first)


def test_an_image_that_is_added_or_gone_is_noticed(table, draw):
    images = len(prepare(str(table)).samples)
    (table / "labels.csv").rename(table.parent / "labels.csv")
    assert len(prepare(str(table)).samples) == images  # by folders now
    draw(table / "cat" / "new.png", 4711)
    assert len(prepare(str(table)).samples) == images + 1
    (table / "cat" / "new.png").unlink()
    (table.parent / "labels.csv").rename(table / "labels.csv")
    assert len(prepare(str(table)).samples) == images
    (table / "cat" / "0.png").unlink()
    with pytest.raises(UnreadableImageError):
        prepare(str(table))


def test_every_option_counts(table, makings):
    prepare(str(table))
    prepare(str(table), val_fraction=0.2)
    prepare(str(table), test_fraction=0.2)
    prepare(str(table), split_seed=1)
    prepare(str(table), fold=Fold(count=3, number=1))
    prepare(str(table), reading=Reading(classes={"cat": "animal"}))
    prepare(str(table / "labels.csv"))
    assert len(makings) == 7


def test_other_code_or_a_file_in_doubt_is_a_reason_to_make_it_anew(table, makings, cache_dir, monkeypatch):
    first = prepare(str(table))
    (kept,) = (cache_dir / "manifests").iterdir()
    assert kept.parent.stat().st_mode & 0o077 == 0  # patients' ids stand in it
    content = kept.read_bytes()
    for spoilt in (content[:-1], content[:-9] + bytes([content[-9] ^ 1]) + content[-8:], b"", b"{}\n"):
        kept.write_bytes(spoilt)
        assert prepare(str(table)) == first
    assert len(makings) == 5
    monkeypatch.setattr(remembered, "_digest_code", lambda: "other")
    prepare(str(table))
    assert len(makings) == 6


def test_what_was_changed_a_moment_ago_is_not_remembered(table, makings, monkeypatch):
    monkeypatch.setattr(remembered, "SETTLED_NS", 2 * 10**9)
    prepare(str(table))
    prepare(str(table))
    assert len(makings) == 2


def test_where_a_link_leads_elsewhere_or_much_else_lies_beside_nothing_is_remembered(table, makings, tmp_path, draw):
    (tmp_path / "elsewhere").mkdir()
    (table / "link").symlink_to(tmp_path / "elsewhere")
    prepare(str(table))
    prepare(str(table))
    assert len(makings) == 2
    (table / "link").unlink()
    for i in range(24 * 10):
        (table / f"{i}.txt").touch()
    prepare(str(table))
    prepare(str(table))
    assert len(makings) == 4


def test_a_moved_data_set_is_another(table, tmp_path, makings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = prepare("set")
    shutil.copytree(table, tmp_path / "other" / "set")
    monkeypatch.chdir(tmp_path / "other")
    there = prepare("set")
    assert (here.root, there.root) == (str(table), str(tmp_path / "other" / "set"))
    assert len(makings) == 2


def test_a_stored_manifest_is_remembered_by_its_content(table, tmp_path, monkeypatch):
    manifest = prepare(str(table))
    save_manifest(manifest, tmp_path / "data")
    assert load_manifest(tmp_path / "data") == manifest
    monkeypatch.setattr(manifest_files, "_load", lambda folder: pytest.fail("it is remembered"))
    assert load_manifest(tmp_path / "data") == manifest
    monkeypatch.undo()
    stored = tmp_path / "data" / "manifest.csv"
    stored.write_bytes(stored.read_bytes().replace(b",cat,", b",dog,", 1))
    with pytest.raises(DataError, match="does not fit"):
        load_manifest(tmp_path / "data")


def test_the_fingerprint_is_that_of_the_manifest_that_is_asked_about(table):
    manifest = prepare(str(table))
    other = replace(manifest, samples=manifest.samples[1:])
    first = fingerprint(manifest)
    assert fingerprint(other) != first
    assert fingerprint(manifest) == first
