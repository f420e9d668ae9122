"""Every kind of DICOM file becomes a picture, or is refused with the reason by name."""

import io
import pickle
import subprocess
import sys
import tomllib
import zlib
from importlib.metadata import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from ttl_deploy.errors import MissingExtraError, UnreadableImageError
from ttl_deploy.pixels import decode, decode_bytes, is_suffixless_dicom, looks_like_dicom, read_header
from ttl_deploy.records.data import DecodeSettings

from .dicom_files import SIDE, build, png_of, pydicom, read, to_bytes

RNG = np.random.default_rng(5)
GREYS = RNG.integers(0, 4096, (SIDE, SIDE)).astype(np.uint16)
EIGHT = RNG.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
COLOURS = RNG.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
EXPECTED = np.floor(GREYS / 4095 * 255 + 0.5)
SAME_SIZE = DecodeSettings(image_size=SIDE)
IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED = (
    pydicom.uid.UID(f"1.2.840.10008.1.2{end}") for end in ("", ".1", ".2", ".1.99")
)


def colours(dataset):
    return decode_bytes(to_bytes(dataset), SAME_SIZE, name="a.dcm")


def refused(content):
    with pytest.raises(UnreadableImageError) as error:
        read(content)
    assert str(error.value).startswith("a.dcm")
    return str(error.value)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED])
@pytest.mark.parametrize("stored", [GREYS, EIGHT], ids=["sixteen", "eight"])
def test_uncompressed_files_of_every_coding(syntax, stored):
    expected = EXPECTED if stored is GREYS else EIGHT
    dataset = build(stored, syntax=syntax)
    if syntax == BIG_ENDIAN:
        dataset["PixelData"].VR = "OW" if stored is GREYS else "OB"
    np.testing.assert_array_equal(read(dataset), expected)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_a_file_without_preamble_and_meta_group(syntax):
    content = to_bytes(build(GREYS, syntax=syntax))
    stripped = io.BytesIO()
    dataset = pydicom.dcmread(io.BytesIO(content))
    del dataset.file_meta
    pydicom.dcmwrite(stripped, dataset, implicit_vr=syntax == IMPLICIT, little_endian=True, enforce_file_format=False)
    bare = stripped.getvalue().removeprefix(bytes(128) + b"DICM")
    assert b"DICM" not in bare[:140]
    assert looks_like_dicom(bare[:140])
    np.testing.assert_array_equal(read(bare), EXPECTED)


def test_rle_is_decoded():
    dataset = build(GREYS)
    dataset.compress(pydicom.uid.RLELossless)
    np.testing.assert_array_equal(read(dataset), EXPECTED)


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_of_either_plane_order(planar):
    dataset = build(COLOURS, bits=8, PlanarConfiguration=planar)
    if planar:
        dataset.PixelData = np.moveaxis(COLOURS, -1, 0).tobytes()
    np.testing.assert_array_equal(colours(dataset), COLOURS)


def test_sixteen_bit_colour_keeps_its_high_byte():
    deep = COLOURS.astype(np.uint16) * 256 + 99
    np.testing.assert_array_equal(colours(build(deep, bits=16)), COLOURS)


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_ybr_becomes_rgb_by_pydicoms_formula(photometric):
    ybr = np.repeat(COLOURS[:, ::2], 2, axis=1)
    dataset = build(ybr, bits=8, PhotometricInterpretation=photometric)
    if photometric == "YBR_FULL_422":
        y, b, r = np.moveaxis(ybr, -1, 0)
        dataset.PixelData = np.stack([y[:, ::2], y[:, 1::2], b[:, ::2], r[:, ::2]], axis=-1).tobytes()
    expected = pydicom.pixels.convert_color_space(ybr, "YBR_FULL", "RGB")
    np.testing.assert_array_equal(colours(dataset), expected)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_palette_is_looked_up(depth):
    entries = RNG.integers(0, 256, (256, 3)).astype(np.uint16)
    dataset = build(EIGHT, PhotometricInterpretation="PALETTE COLOR")
    for number, colour in enumerate(("Red", "Green", "Blue")):
        packed = entries[:, number].astype(np.uint8) if depth == 8 else (entries[:, number] * 256 + 7).astype("<u2")
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, depth])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", packed.tobytes())
    np.testing.assert_array_equal(colours(dataset), entries[EIGHT])


def test_a_picture_of_an_odd_length_with_and_without_its_padding_byte():
    odd = EIGHT[:31, :31]
    content = to_bytes(build(odd))
    settings = DecodeSettings(image_size=31)
    for file in (content, content[:-1]):
        np.testing.assert_array_equal(decode_bytes(file, settings, name="a.dcm")[..., 0], odd)


def test_values_above_the_stored_bits_do_not_count():
    np.testing.assert_array_equal(read(build(GREYS | 0xF000)), EXPECTED)


def test_several_frames_are_counted():
    assert "holds 3 frames" in refused(build(GREYS, NumberOfFrames=3, PixelData=GREYS.tobytes() * 3))


def test_more_than_one_picture_where_one_is_said_is_refused():
    assert "holds 4096 bytes of pixels; 2048 are expected" in refused(build(GREYS, PixelData=GREYS.tobytes() * 2))


def test_too_few_pixels_are_counted():
    assert "holds 2000 bytes of pixels; 2048 are expected" in refused(build(GREYS, PixelData=GREYS.tobytes()[:2000]))


def test_no_pixel_data_is_said():
    dataset = build(GREYS)
    del dataset.PixelData
    assert "holds no pixel data" in refused(dataset)
    assert "floating-point" in refused(build(GREYS, FloatPixelData=bytes(4 * SIDE * SIDE)))


def test_a_dicomdir_is_no_image():
    dataset = build(GREYS)
    dataset.SOPClassUID = "1.2.840.10008.1.3.10"
    assert "DICOMDIR" in refused(to_bytes(dataset))


@pytest.mark.parametrize(
    ("syntax", "called"),
    [
        ("1.2.840.10008.1.2.4.70", r"JPEG Lossless.*1\.2\.840\.10008\.1\.2\.4\.70.*pylibjpeg-libjpeg.*python-gdcm"),
        ("1.2.840.10008.1.2.4.57", r"1\.2\.840\.10008\.1\.2\.4\.57.*pylibjpeg-libjpeg.*python-gdcm"),
        ("1.2.840.10008.1.2.4.51", r"JPEG Extended.*pylibjpeg-libjpeg.*GPL"),
        ("1.2.840.10008.1.2.4.102", r"MPEG-4.*1\.2\.840\.10008\.1\.2\.4\.102"),
        ("1.2.3.4", r"1\.2\.3\.4, which is not read"),
    ],
)
def test_a_transfer_syntax_that_is_not_read_is_named(syntax, called):
    dataset = build(GREYS)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8" + bytes(100)])
    dataset["PixelData"].is_undefined_length = True
    content = to_bytes(dataset, implicit_vr=False, little_endian=True) if syntax == "1.2.3.4" else to_bytes(dataset)
    with pytest.raises(UnreadableImageError, match=called):
        read(content)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"Rows": 0}, "32 columns and 0 rows"),
        ({"Rows": 60000, "Columns": 60000}, "too many pixels: 60000 x 60000"),
        ({"BitsStored": 17}, "17 of 16 bits"),
        ({"HighBit": 15}, "12 of 16 bits, the highest in place 15"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "32 of 32 bits"),
        ({"SamplesPerPixel": 3}, "3 samples per pixel"),
        ({"PhotometricInterpretation": "HSV"}, "photometric interpretation"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "rescale slope is 0"),
        ({"WindowCenter": 1, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "VOI LUT function"),
    ],
)
def test_impossible_headers_are_refused_by_name(tags, said):
    assert said in refused(build(GREYS, **tags))


def test_a_tiny_file_that_claims_many_pixels_is_refused_before_it_takes_memory():
    import tracemalloc

    content = to_bytes(build(GREYS, Rows=9000, Columns=9000))
    tracemalloc.start()
    refused(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6


def test_a_deflated_file_that_would_fill_the_memory_is_refused():
    content = to_bytes(build(GREYS, syntax=DEFLATED))
    start = content.index(DEFLATED.encode()) + len(DEFLATED)
    meta_end = 132 + 12 + int.from_bytes(content[140:144], "little")
    assert start <= meta_end
    squeezer = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(squeezer.compress(bytes(1 << 20)) for _ in range(300)) + squeezer.flush()
    assert len(bomb) < 400_000
    assert "unpacks to more than" in refused(content[:meta_end] + bomb)


def test_truncated_and_garbled_headers_are_refused():
    content = to_bytes(build(GREYS))
    for length in (132, 133, 150, 300, 500, len(content) - 100):
        refused(content[:length])
    refused(content[:132] + b"\xff" * 500)


def test_content_decides_and_not_the_name(tmp_path):
    (tmp_path / "really_dicom.png").write_bytes(to_bytes(build(GREYS)))
    (tmp_path / "really_a_png.dcm").write_bytes(png_of(EIGHT))
    np.testing.assert_array_equal(decode(tmp_path / "really_dicom.png", SAME_SIZE)[..., 0], EXPECTED)
    np.testing.assert_array_equal(decode(tmp_path / "really_a_png.dcm", SAME_SIZE)[..., 0], EIGHT)


def test_a_header_gives_size_kind_and_bits():
    header = read_header(to_bytes(build(GREYS[:20], PhotometricInterpretation="MONOCHROME1")), name="a.dcm")
    assert (header.width, header.height, header.format, header.mode) == (32, 20, "DICOM", "MONO1;12")
    assert read_header(to_bytes(build(COLOURS, bits=8)), name="a.dcm").mode == "RGB;8"
    assert read_header(png_of(EIGHT), name="a.png").format == "PNG"


def test_files_without_a_suffix_are_told_by_content(tmp_path):
    dicom = to_bytes(build(GREYS))
    for name in ("IM0001", "1.2.840.113", "DICOMDIR", ".hidden", "a.txt"):
        (tmp_path / name).write_bytes(dicom)
    (tmp_path / "README").write_text("This data set holds radiographs of the chest. " * 9)
    (tmp_path / "empty").touch()
    found = {path.name for path in tmp_path.iterdir() if is_suffixless_dicom(path)}
    assert found == {"IM0001", "1.2.840.113"}


@pytest.mark.parametrize("hidden", ["pydicom", "openjpeg"])
def test_without_the_extra_it_is_named_and_other_images_are_read(hidden):
    dataset = build(GREYS)
    if hidden == "openjpeg":
        dataset.compress(pydicom.uid.JPEG2000Lossless)
    code = (
        f"import sys; sys.modules[{hidden!r}] = None\n"
        "from ttl_deploy.errors import MissingExtraError\n"
        "from ttl_deploy.pixels import decode_bytes\n"
        "from ttl_deploy.records.data import DecodeSettings\n"
        f"assert decode_bytes({png_of(EIGHT)!r}, DecodeSettings(image_size=32), name='a.png').shape == (32, 32, 3)\n"
        f"try: decode_bytes({to_bytes(dataset)!r}, DecodeSettings(image_size=32), name='a.dcm')\n"
        "except MissingExtraError as error: print(error, error.exit_code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert "a.dcm" in done.stdout
    assert done.stdout.endswith("needs the extra [dicom]: pip install 'ttl-deploy[dicom]' 6\n")


def test_a_missing_extra_travels_between_processes():
    again = pickle.loads(pickle.dumps(MissingExtraError("dicom", "reading")))
    assert type(again) is MissingExtraError
    assert "[dicom]" in str(again)


def test_no_part_of_the_extra_is_under_a_copyleft_licence():
    root = Path(__file__).parents[2]
    parts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dicom"]
    names = [Requirement(part).name for part in parts]
    assert {"pydicom", "pyjpegls", "pylibjpeg-openjpeg"} <= set(names)
    while names:
        about = metadata(name := names.pop())
        licences = (about.get("License-Expression"), about.get("License"), *about.get_all("Classifier", ()))
        assert "GPL" not in " ".join(filter(None, licences)), name
        assert any("MIT" in (licence or "") or "BSD" in (licence or "") for licence in licences), name
        needed = map(Requirement, about.get_all("Requires-Dist", ()))
        names += [one.name for one in needed if one.name != "numpy" and (not one.marker or one.marker.evaluate())]
