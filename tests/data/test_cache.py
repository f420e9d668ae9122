"""Images are decoded once, the array holds what `pixels.decode` gives, and damage is noticed."""

import multiprocessing
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from ttl_deploy.data import PixelCache, open_cache, prepare
from ttl_deploy.data import cache as cache_module
from ttl_deploy.data.cache import find_cache
from ttl_deploy.errors import StorageError, UnreadableImageError
from ttl_deploy.pixels import decode
from ttl_deploy.records.data import DecodeSettings

SMALL = DecodeSettings(image_size=12)
SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.fixture
def folder(tmp_path, draw):
    """Return class folders of 2 x 8 images, two of them identical."""
    for label in ("cat", "dog"):
        for i in range(8):
            draw(tmp_path / "set" / label / f"{i}.png", f"{label}{i}".encode()[0] * 100 + i)
    shutil.copy(tmp_path / "set" / "cat" / "0.png", tmp_path / "set" / "cat" / "copy.png")
    return tmp_path / "set"


@pytest.fixture
def manifest(folder):
    return prepare(str(folder))


def expected(manifest, settings=SMALL):
    return np.stack([decode(Path(manifest.root) / sample.path, settings) for sample in manifest.samples])


def no_decoding(*_, **__):
    raise AssertionError("nothing was to be decoded")


def test_the_cache_holds_what_decode_gives_and_each_distinct_image_once(manifest):
    cache = open_cache(manifest, SMALL)
    assert cache.array.shape == (16, 12, 12, 3)
    assert len(cache.rows) == 17
    np.testing.assert_array_equal(cache.pixels(range(17)), expected(manifest))
    np.testing.assert_array_equal(cache.array[cache.rows], expected(manifest))
    positions = [5, 0, 5]
    np.testing.assert_array_equal(cache.pixels(np.array(positions)), expected(manifest)[positions])


def test_the_cache_cannot_be_written_through(manifest):
    with pytest.raises(ValueError, match="read-only"):
        open_cache(manifest, SMALL).array[0] = 0


def test_several_processes_give_the_same_as_one(tmp_path, draw):
    for i in range(140):
        draw(tmp_path / "set" / ("cat" if i % 2 else "dog") / f"{i}.png", i)
    manifest = prepare(str(tmp_path / "set"))
    told = []
    cache = open_cache(manifest, SMALL, workers=2, progress=lambda *step: told.append(step))
    np.testing.assert_array_equal(cache.pixels(range(140)), expected(manifest))
    assert told[-1] == ("decoding", 140, 140)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_the_second_opening_decodes_nothing(manifest, monkeypatch):
    first = open_cache(manifest, SMALL)
    monkeypatch.setattr("ttl_deploy.data.cache.decode_all", no_decoding)
    second = open_cache(manifest, SMALL)
    assert second.path == first.path
    np.testing.assert_array_equal(second.pixels([3]), first.pixels([3]))


@pytest.mark.parametrize("other", [DecodeSettings(image_size=13), DecodeSettings(image_size=12, fit="stretch")])
def test_other_settings_have_a_cache_of_their_own(manifest, other):
    first, second = open_cache(manifest, SMALL), open_cache(manifest, other)
    assert first.path != second.path
    np.testing.assert_array_equal(second.pixels(range(17)), expected(manifest, other))


def test_other_rules_have_a_cache_of_their_own(manifest, monkeypatch):
    first = open_cache(manifest, SMALL)
    monkeypatch.setattr("ttl_deploy.data.cache.PIXELS_VERSION", 999)
    assert open_cache(manifest, SMALL).path != first.path


def test_a_changed_image_has_a_cache_of_its_own(folder, manifest, draw):
    first = open_cache(manifest, SMALL)
    draw(folder / "cat" / "3.png", 4711)
    changed = prepare(str(folder))
    cache = open_cache(changed, SMALL)
    assert cache.path != first.path
    np.testing.assert_array_equal(cache.pixels(range(17)), expected(changed))


def test_a_cache_comes_back_from_its_path_and_from_a_pickle(manifest):
    cache = open_cache(manifest, SMALL)
    for again in (PixelCache.load(cache.path), pickle.loads(pickle.dumps(cache))):
        assert again.settings == SMALL
        np.testing.assert_array_equal(again.rows, cache.rows)
        np.testing.assert_array_equal(again.pixels([0, 16]), cache.pixels([0, 16]))
    assert len(pickle.dumps(cache)) < 1000


def _sum_of(cache, queue):
    queue.put(int(cache.pixels([0, 1, 2]).sum()))


def test_a_spawned_process_reads_the_same_pixels(manifest):
    cache = open_cache(manifest, SMALL)
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=_sum_of, args=(cache, queue))
    process.start()
    process.join(60)
    assert queue.get() == int(cache.pixels([0, 1, 2]).sum())


def flip_byte(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["cut", "gone", "flipped", "view", "journal", "torn journal"])
def test_a_damaged_cache_is_noticed_and_built_anew(manifest, damage):
    view = open_cache(manifest, SMALL).path
    pixels, journal = view.parent / "pixels.raw", view.parent / "journal"
    if damage == "cut":
        os.truncate(pixels, pixels.stat().st_size - 1)
    elif damage == "gone":
        pixels.unlink()
    elif damage == "flipped":
        flip_byte(pixels, 12 * 12 * 3 * 7)
    elif damage == "view":
        flip_byte(view, -9)
    else:
        flip_byte(journal, 40 if damage == "journal" else -1)
    if damage != "flipped":
        with pytest.raises(StorageError, match="missing or damaged"):
            PixelCache.load(view)
    assert find_cache(manifest, SMALL) is None
    np.testing.assert_array_equal(open_cache(manifest, SMALL).pixels(range(17)), expected(manifest))
    assert find_cache(manifest, SMALL) is not None


def test_rows_that_somebody_reads_never_move_nor_change(folder, manifest, draw):
    early = open_cache(manifest, SMALL)
    journal = early.path.parent / "journal"
    for i in range(3):
        draw(folder / "cat" / f"new{i}.png", 100 + i)
        if i:
            os.truncate(journal, journal.stat().st_size - i)  # what it said of the newest rows is lost
        larger = prepare(str(folder))
        np.testing.assert_array_equal(open_cache(larger, SMALL).pixels(range(18 + i)), expected(larger))
        np.testing.assert_array_equal(early.pixels(range(17)), expected(manifest))


def test_searches_over_the_same_images_decode_them_once(folder, manifest, draw, monkeypatch):
    part = replace(manifest, samples=manifest.samples[:5])
    open_cache(part, SMALL)
    told = []
    cache = open_cache(manifest, SMALL, note=told.append)
    np.testing.assert_array_equal(cache.pixels(range(17)), expected(manifest))
    assert told == [f"decoding 11 images (5 more are decoded already): 0.0 MB in {cache.path.parent}"]
    monkeypatch.setattr("ttl_deploy.data.cache.decode_all", no_decoding)
    last = replace(manifest, samples=manifest.samples[:4:-1])
    np.testing.assert_array_equal(open_cache(last, SMALL).pixels(range(12)), expected(last))
    assert (cache.path.parent / "pixels.raw").stat().st_size == 16 * 12 * 12 * 3


def test_only_what_was_not_opened_for_long_is_deleted(folder, manifest, draw, cache_dir):
    old, young = (open_cache(manifest, DecodeSettings(image_size=side)).path.parent for side in (13, 14))
    first = open_cache(manifest, SMALL).path
    for mark in (old / "used", first):
        os.utime(mark, (0, 0))
    earlier = cache_dir / "pixels" / "0123456789abcdef"
    earlier.mkdir()
    (earlier / "index.json").touch()
    stranger = cache_dir / "pixels" / "mine"
    stranger.mkdir()
    for still_there in (True, False):
        draw(folder / "cat" / "new.png", 100 + still_there)
        open_cache(prepare(str(folder)), SMALL)
        assert young.exists()
        assert stranger.exists()
        assert not old.exists()
        assert not first.exists()
        assert earlier.exists() == still_there
        os.utime(earlier / "index.json", (0, 0)) if still_there else None


def test_two_processes_at_once_decode_one_after_the_other(manifest):
    waited = []
    store = cache_module._store_folder(SMALL)
    store.mkdir()
    lock = FileLock(store / ".lock")
    lock.acquire()

    def go_on(text):
        waited.append(text)
        lock.release()

    open_cache(manifest, SMALL, note=go_on)
    assert "another process is decoding" in waited[0]


def test_all_files_that_do_not_decode_are_named(folder):
    (folder / "cat" / "text.jpg").write_text("no image")
    (folder / "dog" / "cut.png").write_bytes((folder / "dog" / "1.png").read_bytes()[:80])
    for _ in range(2):  # the second time nothing is decoded
        with pytest.raises(UnreadableImageError) as caught:
            open_cache(prepare(str(folder)), SMALL)
        message = str(caught.value)
        assert message.startswith("2 of 18 images cannot be used:")
        assert "cat/text.jpg is not an image" in message
        assert "dog/cut.png does not decode" in message


def test_one_file_that_does_not_decode_is_one_line(folder):
    (folder / "cat" / "text.jpg").write_text("no image")
    with pytest.raises(UnreadableImageError, match=r"^[^\n]*text\.jpg is not an image[^\n]*$"):
        open_cache(prepare(str(folder)), SMALL)


@pytest.mark.parametrize("count", [13, 140])
def test_of_many_bad_files_ten_are_named_and_the_rest_counted(folder, count):
    for i in range(count):
        (folder / "cat" / f"bad{i}.jpg").write_text(f"text {i}")
    with pytest.raises(
        UnreadableImageError, match=rf"(?s){count} of {count + 16} images.*and {count - 10} more"
    ) as caught:
        open_cache(prepare(str(folder)), SMALL, workers=2)
    assert str(caught.value).count("is not an image") == 10


def test_a_file_changed_after_hashing_is_noticed(folder, manifest, draw):
    draw(folder / "dog" / "5.png", 4711)
    with pytest.raises(UnreadableImageError, match=r"5\.png was changed since"):
        open_cache(manifest, SMALL)


def test_a_disk_without_room_is_named_before_anything_is_decoded(manifest, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    monkeypatch.setattr("ttl_deploy.data.cache.decode_all", no_decoding)
    with pytest.raises(StorageError, match=r"17 MB are needed, 0 MB are free\. Set TTL_DEPLOY_CACHE"):
        open_cache(manifest, SMALL)


def test_a_disk_that_fills_while_decoding_is_a_storage_error(manifest, cache_dir, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda descriptor, content, offset: len(content) - 1)
    with pytest.raises(StorageError, match="No space left"):
        open_cache(manifest, SMALL)
    assert not list((cache_dir / "pixels").rglob("*.view"))


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_without_the_variable_the_usual_places_are_taken(manifest, tmp_path, monkeypatch, variable):
    for name in ("TTL_DEPLOY_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "place"))
    below = "ttl-deploy" if variable == "XDG_CACHE_HOME" else ".cache/ttl-deploy"
    assert open_cache(manifest, SMALL).path.is_relative_to(tmp_path / "place" / below)


@pytest.mark.skipif(not (SHARED / "data/cxr_kermany_native").exists(), reason="needs the shared data")
def test_radiographs_of_any_size_and_mode_become_one_shape():
    manifest = prepare(str(SHARED / "data/cxr_kermany_native"))
    cache = open_cache(manifest, DecodeSettings(image_size=96))
    pixels = cache.pixels(range(24))
    assert pixels.shape == (24, 96, 96, 3)
    colours = {sample.extra["mode"]: np.ptp(pixels[i], axis=-1).max() for i, sample in enumerate(manifest.samples)}
    assert set(colours) == {"L", "RGB"}
    assert colours["L"] == 0
    assert (pixels.std(axis=(1, 2, 3)) > 20).all()
