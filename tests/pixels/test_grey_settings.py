"""How greys of more than 8 bits become 8, where a setting says so; and that it is kept with runs and artifacts."""

import io

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.errors import DataError, UsageError
from ttl_deploy.pixels import decode_bytes
from ttl_deploy.records import codec
from ttl_deploy.records.data import DecodeSettings
from ttl_deploy.records.grey import GreyPercentiles, GreyWindow, parse_grey
from ttl_deploy_cli.settings import build_settings

RNG = np.random.default_rng(8)
TWELVE = RNG.integers(0, 4096, (32, 32)).astype(np.uint16)
SIXTEEN = RNG.integers(0, 65536, (32, 32)).astype(np.uint16)


def read(stored, grey, file_format="PNG"):
    file = io.BytesIO()
    Image.fromarray(stored).save(file, file_format)
    return decode_bytes(file.getvalue(), DecodeSettings(image_size=32, grey=grey), name="a")[..., 0]


def test_full_never_takes_twelve_bits_for_all():
    np.testing.assert_array_equal(read(TWELVE, "full"), np.floor(TWELVE / 65535 * 255 + 0.5))
    np.testing.assert_array_equal(read(TWELVE, "auto"), np.floor(TWELVE / 4095 * 255 + 0.5))
    np.testing.assert_array_equal(read(SIXTEEN, "full"), read(SIXTEEN, "auto"))


def test_auto_maps_every_value_as_it_always_did():
    every = np.arange(65536, dtype=np.uint32).reshape(256, 256)
    settings = DecodeSettings(image_size=256)
    for top in (4095, 65535):
        values = np.minimum(every, top)
        file = io.BytesIO()
        Image.fromarray(values.astype(np.uint16)).save(file, "PNG")
        expected = (values * 255 + top // 2) // top
        np.testing.assert_array_equal(decode_bytes(file.getvalue(), settings, name="a")[..., 0], expected)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize(("centre", "width"), [(2000, 1001), (30000, 60001), (100.5, 33.25)])
def test_a_window_is_linear_between_its_ends(centre, width, file_format):
    between = ((SIXTEEN - (centre - 0.5)) / (width - 1) + 0.5) * 255  # DICOM PS3.3 C.11.2.1.2.1
    expected = np.floor(np.clip(between, 0, 255) + 0.5)
    np.testing.assert_array_equal(read(SIXTEEN, f"window={centre}/{width}", file_format), expected)


@pytest.mark.parametrize(("low", "high"), [(0, 100), (0.5, 99.5), (10, 60)])
def test_percentiles_are_numpys(low, high):
    ends = [float(np.percentile(TWELVE, share, method="inverted_cdf")) for share in (low, high)]
    expected = np.floor(np.clip((TWELVE - ends[0]) / (ends[1] - ends[0]), 0, 1) * 255 + 0.5)
    np.testing.assert_array_equal(read(TWELVE, f"percentile={low}/{high}"), expected)


@pytest.mark.parametrize("grey", ["full", "window=100/50", "percentile=1/99"])
def test_pictures_of_eight_bits_stay_as_they_are(grey):
    stored = (TWELVE // 16).astype(np.uint8)
    np.testing.assert_array_equal(read(stored, grey), stored)


def test_words_are_read():
    assert parse_grey("auto") == "auto"
    assert parse_grey("window=-600/1500") == GreyWindow(centre=-600, width=1500)
    assert parse_grey("percentile=0.5/99.5") == GreyPercentiles(low=0.5, high=99.5)


@pytest.mark.parametrize(
    "text",
    [
        *("", "Auto", "window", "window=40", "window=40/0", "window=nan/9", "window=1/inf", "percentile=9/9"),
        *("percentile=-1/9", "percentile=0/101", "percentile=1/2/3", "gamma=1/2", "window=a/b"),
    ],
)
def test_other_words_are_refused_with_those_that_are_allowed(text):
    with pytest.raises(ValueError, match=r"grey = .*allowed are auto, full, window=CENTRE/WIDTH"):
        DecodeSettings(image_size=32, grey=text)


def test_settings_without_the_word_are_of_before_and_mean_auto():
    old = {"image_size": 224, "fit": "crop"}
    assert codec.from_builtins(DecodeSettings, old) == DecodeSettings(image_size=224, fit="crop", grey="auto")
    with pytest.raises(DataError, match="grey"):
        codec.from_builtins(DecodeSettings, old | {"grey": "window"})


def test_a_search_keeps_the_word_with_its_settings():
    given = {"backbone": "resnet18", "data": "phantom", "grey": "percentile=1/99"}
    assert build_settings(given).decode.grey == "percentile=1/99"
    assert build_settings(given | {"grey": "window=40/400"}).decode.grey == "window=40/400"
    with pytest.raises(UsageError, match="grey = 'dark'"):
        build_settings(given | {"grey": "dark"})
