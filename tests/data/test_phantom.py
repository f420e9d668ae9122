"""The demo's films are the same every time, look like what they are, and need the depth that their kind promises."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.data import open_cache, prepare
from ttl_deploy.data.phantom import PHANTOM_KINDS, PhantomSettings, draw_phantom
from ttl_deploy.data.readers.phantom import materialise, parse_phantom
from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.records.data import DecodeSettings, Reading


def films(kind="blob", **settings):
    return list(draw_phantom(PhantomSettings(kind=kind, **{"patients": 40, "size": 32, **settings})))


def auroc(scores, positive):
    """Count the pairs in the right order, ties as half."""
    difference = scores[positive][:, None] - scores[~positive][None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def test_the_same_settings_give_the_same_films():
    first, second = films(), films()
    assert [film.path for film in first] == [film.path for film in second]
    assert all((a.pixels == b.pixels).all() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("change", [{"seed": 1}, {"kind": "texture"}, {"size": 33}])
def test_other_settings_give_other_films(change):
    digest = {hashlib.sha256(film.pixels.tobytes()).digest() for film in films()}
    assert not digest & {hashlib.sha256(film.pixels.tobytes()).digest() for film in films(**change)}


@pytest.mark.parametrize("kind", PHANTOM_KINDS)
def test_patients_have_one_to_four_films_of_one_label_and_one_split(kind):
    drawn = films(kind, patients=60)
    by_patient = {}
    for film in drawn:
        by_patient.setdefault(film.patient_id, []).append(film)
    assert len(by_patient) == 60
    assert {len(group) for group in by_patient.values()} == {1, 2, 3, 4}
    assert all(len({(f.label, f.split, f.sex) for f in group}) == 1 for group in by_patient.values())
    assert {film.split for film in drawn} == {"train", "test"}
    assert {film.view for film in drawn} == ({"CC", "MLO"} if kind == "pair" else {"AP", "PA"})


@pytest.mark.parametrize("kind", ["texture", "blob", "shape"])
def test_films_use_the_range_of_greys_and_lungs_are_darker_than_the_spine(kind):
    for film in films(kind):
        assert film.pixels.dtype == np.uint8
        assert film.pixels.std() > 20
        assert (film.pixels == 255).mean() < 0.05
        lung, spine = film.pixels[12:16, 7:11], film.pixels[12:16, 15:17]
        assert spine.mean() > lung.mean() + 30


def test_texture_is_told_by_neighbouring_pixels():
    drawn = films("texture", patients=100, size=64)
    positive = np.array([film.label == "finding" for film in drawn])
    curvature = np.stack([np.abs(np.diff(film.pixels.astype(float), n=2, axis=0)) for film in drawn])
    score = np.percentile(curvature[:, 14:42, 12:52], 99, axis=(1, 2))
    assert 0.85 < auroc(score, positive) < 1


def test_shape_is_not_told_by_greys_or_detail_of_the_whole_film():
    drawn = films("shape", patients=100, size=64)
    positive = np.array([film.label == "finding" for film in drawn])
    pixels = np.stack([film.pixels for film in drawn]).astype(float)
    summaries = [
        pixels.mean((1, 2)),
        pixels.std((1, 2)),
        np.abs(np.diff(pixels, axis=1)).mean((1, 2)),
        np.abs(np.diff(pixels, axis=2)).mean((1, 2)),
        pixels[:, :, :32].mean((1, 2)) - pixels[:, :, 32:].mean((1, 2)),
    ]
    for summary in summaries:
        assert auroc(summary, positive) == pytest.approx(0.5, abs=0.1)


def test_shape_is_told_by_the_sides_of_heart_and_bubble():
    drawn = films("shape", patients=100, size=64)
    positive = np.array([film.label == "finding" for film in drawn])
    pixels = np.stack([film.pixels for film in drawn]).astype(float)
    heart = pixels[:, 36:46, 36:46].mean((1, 2)) - pixels[:, 36:46, 18:28].mean((1, 2))
    bubble = pixels[:, 51:58, 40:48].mean((1, 2)) - pixels[:, 51:58, 16:24].mean((1, 2))
    assert 0.8 < auroc(np.sign(heart) * bubble, positive) < 1


def test_the_default_is_read_as_a_data_set_with_an_official_test_split(cache_dir):
    told = []
    manifest = prepare("phantom?patients=30&size=32", progress=lambda *step: told.append(step))
    assert manifest.name == "phantom-blob"
    assert manifest.reader == "phantom"
    assert manifest.classes == ("normal", "finding")
    assert set(manifest.samples[0].extra) == {"view", "sex"}
    assert ("drawing", 30, 30) in told
    official = {film.path for film in films(patients=30) if film.split == "test"}
    assert {sample.path for sample in manifest.samples if sample.split == "test"} == official
    assert manifest.of_split("val")


def test_what_is_read_is_what_was_drawn():
    manifest = prepare("phantom:shape?patients=16&size=32&seed=5")
    pixels = open_cache(manifest, DecodeSettings(image_size=32)).pixels(range(len(manifest.samples)))
    drawn = {film.path: film.pixels for film in films("shape", patients=16, seed=5)}
    for sample, image in zip(manifest.samples, pixels, strict=True):
        np.testing.assert_array_equal(image[..., 0], drawn[sample.path])


def test_another_column_can_be_the_label():
    assert prepare("phantom?patients=16&size=32", reading=Reading(label_col="sex")).classes == ("F", "M")


def test_a_second_call_draws_nothing(monkeypatch):
    first = prepare("phantom:texture?patients=16&size=32")
    monkeypatch.setattr("ttl_deploy.data.readers.phantom.draw_phantom", None)
    assert prepare("phantom:texture?patients=16&size=32") == first


def test_an_interrupted_drawing_leaves_nothing_and_starts_again(cache_dir, monkeypatch):
    settings = PhantomSettings(patients=16, size=32)

    def interrupted(settings):
        yield from list(draw_phantom(settings))[:5]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ttl_deploy.data.readers.phantom.draw_phantom", interrupted)
        with pytest.raises(KeyboardInterrupt):
            materialise(settings)
    assert list((cache_dir / "phantom").glob("*/")) == []
    with Image.open(next((materialise(settings) / "images").iterdir())) as image:
        assert (image.mode, image.size) == ("L", (32, 32))


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        ("phantom", PhantomSettings()),
        ("phantom:blob", PhantomSettings(kind="blob")),
        ("phantom:pair", PhantomSettings(kind="pair")),
        ("phantom:shape?seed=3", PhantomSettings(kind="shape", seed=3)),
        ("phantom?size=96&patients=20", PhantomSettings(size=96, patients=20)),
    ],
)
def test_the_name_carries_the_settings(data, settings):
    assert parse_phantom(data) == settings


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        ("phantom:blub", UnknownNameError, "did you mean blob"),
        ("phantom:blob?sise=3", UnknownNameError, "did you mean size"),
        ("phantom:blob?size=many", UsageError, "'many' is not a whole number"),
        ("phantom:blob?size=", UsageError, "not a whole number"),
        ("phantom:blob?size=4", UsageError, "allowed are 32 to 1024"),
        ("phantom:blob?patients=3", UsageError, "allowed are 12 to"),
    ],
)
def test_a_name_that_cannot_be_understood_is_a_usage_error(data, kind, message):
    with pytest.raises(kind, match=message) as caught:
        prepare(data)
    assert caught.value.exit_code == 2


def test_the_default_is_large_enough_for_a_demo():
    drawn = films(patients=PhantomSettings().patients)
    assert 500 < len(drawn) < 700
    assert min(Counter(film.label for film in drawn if film.split == "test").values()) > 50
