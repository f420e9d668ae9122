"""Every step from stored values to greys is the standard's, to the last bit as highdicom or pydicom compute it."""

import numpy as np
import pytest

from ttl_deploy.errors import UnreadableImageError
from ttl_deploy.pixels import decode_bytes
from ttl_deploy.records.data import DecodeSettings

from .dicom_files import SIDE, build, by_highdicom, by_pydicom, png_of, read, table, to_bytes

RNG = np.random.default_rng(3)
TWELVE = RNG.integers(0, 4096, (SIDE, SIDE)).astype(np.uint16)
SIGNED = RNG.integers(-2048, 2048, (SIDE, SIDE)).astype(np.int16)
SIXTEEN = RNG.integers(0, 65536, (SIDE, SIDE)).astype(np.uint16)
EIGHT = RNG.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
CURVE = np.round(65535 * (np.arange(4096) / 4095) ** 2).astype(np.uint16)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("stored", [TWELVE, SIGNED], ids=["unsigned", "signed"])
def test_windows_are_highdicoms_to_the_last_bit(function, stored, photometric):
    tags = {"VOILUTFunction": function} if function else {}
    dataset = build(
        stored, WindowCenter=stored.mean() // 1, WindowWidth=1501, PhotometricInterpretation=photometric, **tags
    )
    np.testing.assert_array_equal(read(dataset), by_highdicom(dataset))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (2, 0), (0.5, 10.25)])
def test_a_window_is_of_rescaled_values(slope, intercept, photometric):
    tags = {"RescaleSlope": slope, "RescaleIntercept": intercept, "WindowCenter": 500, "WindowWidth": 901}
    dataset = build(TWELVE, PhotometricInterpretation=photometric, **tags)
    low, high = intercept, 4095 * slope + intercept
    np.testing.assert_array_equal(read(dataset), by_pydicom(dataset, low, high))


def test_the_first_of_several_windows_is_taken():
    several = build(TWELVE, WindowCenter=[1000, 3000], WindowWidth=[700, 100])
    np.testing.assert_array_equal(read(several), read(build(TWELVE, WindowCenter=1000, WindowWidth=700)))


@pytest.mark.parametrize("data_vr", ["US", "OW"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("first", [0, 500])
def test_a_voi_table_is_looked_up(first, photometric, data_vr):
    entries = CURVE[: 4096 - first].astype(np.int64)
    entries[-1] = 65535
    dataset = build(TWELVE, PhotometricInterpretation=photometric)
    dataset.VOILUTSequence = [table(entries, first=first, data_vr=data_vr)]
    np.testing.assert_array_equal(read(dataset), by_highdicom(dataset))


def test_a_voi_table_of_negative_values_goes_before_a_window():
    dataset = build(SIGNED, WindowCenter=0, WindowWidth=10)
    dataset.VOILUTSequence = [table(CURVE, first=-2048)]
    entries = CURVE[SIGNED.astype(np.int64) + 2048]
    np.testing.assert_array_equal(read(dataset), np.floor(entries / 65535 * 255 + 0.5))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_modality_table_goes_before_the_window(photometric):
    dataset = build(TWELVE, PhotometricInterpretation=photometric, WindowCenter=20000, WindowWidth=30001)
    dataset.ModalityLUTSequence = [table(CURVE)]
    np.testing.assert_array_equal(read(dataset), by_highdicom(dataset))


def test_a_modality_table_alone_fills_the_range_of_its_bits():
    dataset = build(TWELVE)
    dataset.ModalityLUTSequence = [table(CURVE // 16, bits=12)]
    np.testing.assert_array_equal(read(dataset), np.floor((CURVE // 16)[TWELVE] / 4095 * 255 + 0.5))


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME2", None, False),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", "IDENTITY", False),
    ],
)
def test_greys_are_inverted_once_or_not_at_all(photometric, shape, inverted):
    tags = {"PresentationLUTShape": shape} if shape else {}
    dataset = build(EIGHT, PhotometricInterpretation=photometric, **tags)
    np.testing.assert_array_equal(read(dataset), 255 - EIGHT if inverted else EIGHT)
    windowed = build(EIGHT, PhotometricInterpretation=photometric, WindowCenter=100, WindowWidth=91, **tags)
    np.testing.assert_array_equal(read(windowed), by_highdicom(windowed))


@pytest.mark.parametrize(("bits", "top"), [(10, 1023), (12, 4095), (14, 16383), (15, 32767)])
def test_without_a_window_the_stored_bits_are_the_range(bits, top):
    stored = RNG.integers(0, top + 1, (SIDE, SIDE)).astype(np.uint16)
    np.testing.assert_array_equal(read(build(stored, bits=bits)), np.floor(stored / top * 255 + 0.5))


def test_without_a_window_signed_values_begin_at_their_lowest():
    np.testing.assert_array_equal(read(build(SIGNED)), np.floor((SIGNED + 2048) / 4095 * 255 + 0.5))


@pytest.mark.parametrize("top", [4095, 65535])
def test_sixteen_bits_without_a_window_are_as_in_a_png(top):
    stored = np.minimum(SIXTEEN, top)
    expected = decode_bytes(png_of(stored), DecodeSettings(image_size=SIDE), name="a.png")[..., 0]
    np.testing.assert_array_equal(read(build(stored, bits=16)), expected)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("tags", [{}, {"WindowCenter": 2000, "WindowWidth": 3000}], ids=["plain", "windowed"])
def test_padding_is_black_and_the_rest_as_without_it(photometric, tags):
    tags = {"PhotometricInterpretation": photometric, **tags}
    stored = TWELVE.copy()
    stored[:, :5] = 77
    plain, padded = read(build(stored, **tags)), read(build(stored, PixelPaddingValue=77, **tags))
    assert (padded[stored == 77] == 0).all()
    np.testing.assert_array_equal(padded[stored != 77], plain[stored != 77])


def test_a_range_of_padding_values_is_black():
    padded = read(build(SIGNED, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1000))
    inside = (SIGNED >= -2000) & (SIGNED <= -1000)
    assert (padded[inside] == 0).all()
    np.testing.assert_array_equal(padded[~inside], read(build(SIGNED))[~inside])


def test_padding_has_no_part_in_percentiles_and_in_the_choice_of_twelve_bits():
    stored = TWELVE.copy()
    stored[:, :20] = 65535
    tissue = stored[stored != 65535]
    padded = build(stored, bits=16, PixelPaddingValue=65535)
    shown = read(padded)
    np.testing.assert_array_equal(shown[:, 20:], np.floor(stored[:, 20:] / 4095 * 255 + 0.5))
    low, high = (np.percentile(tissue, share, method="inverted_cdf") for share in (5, 90))
    expected = np.floor(np.clip((stored[:, 20:] - float(low)) / (float(high) - low), 0, 1) * 255 + 0.5)
    np.testing.assert_array_equal(read(padded, grey="percentile=5/90")[:, 20:], expected)


def test_a_window_of_width_one_is_a_step():
    dataset = build(TWELVE, WindowCenter=1000, WindowWidth=1)
    np.testing.assert_array_equal(read(dataset), np.where(TWELVE > 999, 255, 0))
    np.testing.assert_array_equal(read(dataset), by_pydicom(dataset, 0, 4095))


@pytest.mark.parametrize(("function", "width"), [("LINEAR", 0), ("LINEAR", 0.5), ("LINEAR_EXACT", 0), ("SIGMOID", -1)])
def test_an_impossible_window_is_refused_unless_another_mapping_is_asked_for(function, width):
    dataset = build(TWELVE, WindowCenter=1000, WindowWidth=width, VOILUTFunction=function)
    with pytest.raises(UnreadableImageError, match=rf"a\.dcm: its window width is {width}"):
        read(dataset)
    np.testing.assert_array_equal(read(dataset, grey="full"), np.floor(TWELVE / 4095 * 255 + 0.5))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_window_that_is_asked_for_replaces_the_files(photometric):
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "PhotometricInterpretation": photometric}
    own = build(TWELVE, WindowCenter=40, WindowWidth=401, **tags)
    other = build(TWELVE, WindowCenter=999, WindowWidth=3, **tags)
    np.testing.assert_array_equal(read(other, grey="window=40/401"), read(own))


@pytest.mark.parametrize("grey", ["full", "window=2000/500", "percentile=1/99"])
def test_what_has_eight_bits_already_is_mapped_as_the_file_says(grey):
    for dataset in (build(EIGHT), build(EIGHT, WindowCenter=100, WindowWidth=50)):
        np.testing.assert_array_equal(read(dataset, grey=grey), read(dataset))


def test_a_constant_picture_and_one_of_padding_only_have_percentiles():
    constant = np.full((SIDE, SIDE), 700, np.uint16)
    assert (read(build(constant), grey="percentile=1/99") == 0).all()
    assert (read(build(constant, PixelPaddingValue=700), grey="percentile=1/99") == 0).all()


def test_windows_in_the_groups_of_enhanced_objects_count():
    from pydicom.dataset import Dataset

    window, rescale, group = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 40, 401
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1024
    group.FrameVOILUTSequence, group.PixelValueTransformationSequence = [window], [rescale]
    enhanced = build(TWELVE, SharedFunctionalGroupsSequence=[group], NumberOfFrames=1)
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 401}
    np.testing.assert_array_equal(read(enhanced), read(build(TWELVE, **tags)))


@pytest.mark.parametrize("fit", ["pad", "stretch", "crop"])
def test_a_dicom_file_and_the_png_of_its_greys_give_the_same_pixels(fit):
    stored = RNG.integers(0, 4096, (57, 91)).astype(np.uint16)
    dataset = build(stored, WindowCenter=2000, WindowWidth=3001, PhotometricInterpretation="MONOCHROME1")
    settings = DecodeSettings(image_size=24, fit=fit)
    np.testing.assert_array_equal(
        decode_bytes(to_bytes(dataset), settings, name="a.dcm"),
        decode_bytes(png_of(by_highdicom(dataset)), settings, name="a.png"),
    )


def test_the_first_value_of_a_table_is_negative_though_its_type_says_otherwise():
    signed_type, unsigned_type = (build(SIGNED) for _ in range(2))
    signed_type.VOILUTSequence = [table(CURVE, first=-2048)]
    item = table(CURVE)
    item.add_new("LUTDescriptor", "US", [len(CURVE), 65536 - 2048, 16])
    unsigned_type.VOILUTSequence = [item]
    np.testing.assert_array_equal(read(unsigned_type), read(signed_type))


def test_what_lies_between_two_greys_becomes_the_brighter_one():
    stored = np.arange(SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint16)
    dataset = build(stored, WindowCenter=255.5, WindowWidth=511)  # half a grey per step
    np.testing.assert_array_equal(read(dataset), np.minimum((stored + 1) // 2, 255))


def test_a_voi_table_takes_the_nearest_whole_value():
    dataset = build(TWELVE, RescaleSlope=0.5, RescaleIntercept=0)
    dataset.VOILUTSequence = [table(CURVE[:2048])]
    entries = CURVE[:2048][np.minimum((TWELVE.astype(int) + 1) // 2, 2047)]
    np.testing.assert_array_equal(read(dataset), np.floor(entries / 65535 * 255 + 0.5))
