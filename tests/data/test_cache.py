"""Images are decoded once, the array holds what `pixels.decode` gives, and damage is noticed."""

import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from ttl_deploy.data import PixelCache, open_cache, prepare
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


@pytest.mark.parametrize("damage", ["cut", "index", "gone", "other"])
def test_a_damaged_cache_is_noticed_and_built_anew(manifest, damage):
    cache = open_cache(manifest, SMALL)
    array, index = cache.path / "pixels.npy", cache.path / "index.json"
    del cache
    if damage == "cut":
        os.truncate(array, array.stat().st_size - 1)
    elif damage == "index":
        index.write_text("{")
    elif damage == "gone":
        array.unlink()
    else:
        np.save(array, np.zeros((3, 3), np.uint8))
    with pytest.raises(StorageError, match=r"damaged|does not hold"):
        PixelCache.load(array.parent)
    np.testing.assert_array_equal(open_cache(manifest, SMALL).pixels(range(17)), expected(manifest))


def test_litter_of_a_killed_run_is_cleared(manifest, cache_dir):
    cache = open_cache(manifest, SMALL)
    litter = cache.path.parent / f".{cache.path.name}.99999999.tmp"
    shutil.move(cache.path, litter)
    again = open_cache(manifest, SMALL)
    assert not litter.exists()
    np.testing.assert_array_equal(again.pixels(range(17)), expected(manifest))


def test_all_files_that_do_not_decode_are_named_and_nothing_is_published(folder, cache_dir):
    (folder / "cat" / "text.jpg").write_text("no image")
    (folder / "dog" / "cut.png").write_bytes((folder / "dog" / "1.png").read_bytes()[:80])
    with pytest.raises(UnreadableImageError) as caught:
        open_cache(prepare(str(folder)), SMALL)
    message = str(caught.value)
    assert message.startswith("2 of 18 images cannot be used:")
    assert "text.jpg is not an image" in message
    assert "cut.png does not decode" in message
    assert list((cache_dir / "pixels").glob("*/")) == []


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
    assert list((cache_dir / "pixels").glob("*/")) == []


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
