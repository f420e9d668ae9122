"""Real radiographs, where they lie beside the project: decoded as documented and as others decode them, or refused."""

import csv
import io
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.errors import UnreadableImageError
from ttl_deploy.files import sha256_bytes
from ttl_deploy.pixels import decode, read_header
from ttl_deploy.pixels.dicom import open_dicom
from ttl_deploy.records.data import DecodeSettings

from .dicom_files import png_of, pydicom

FOLDER = Path(__file__).resolve().parents[2].parent / "shared/data/dicom_cxr"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="needs the shared data")
TABLE = FOLDER / "files.csv"
ROWS = list(csv.DictReader(TABLE.read_text().splitlines())) if TABLE.exists() else []
NEEDS_A_DECODER = {"1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.70"}
READ = [row["file"] for row in ROWS if row["transfer_syntax_uid"] not in NEEDS_A_DECODER]


def ours(name):
    """Return the greys of the whole picture, before it is made square."""
    return np.asarray(open_dicom((FOLDER / name).read_bytes(), "auto", name=name, isolated=True))


def by_highdicom(name):
    """Return what highdicom shows; where a file has no window, what it has is spread over its bits."""
    highdicom = pytest.importorskip("highdicom")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # files of 1997 break rules of today
        dataset = pydicom.dcmread(FOLDER / name, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        image = highdicom.Image.from_dataset(dataset)
        shaded = image.get_frame(
            1, apply_real_world_transform=False, apply_voi_transform=None, voi_output_range=(0.0, 255.0)
        )
    if "WindowCenter" not in dataset:
        shaded = shaded * (255 / (2**dataset.BitsStored - 1))
    return np.floor(shaded + 0.5).astype(np.uint8)


def test_the_files_are_those_of_the_table():
    assert len(ROWS) == 17
    for row in ROWS:
        assert sha256_bytes((FOLDER / row["file"]).read_bytes()).startswith(row["sha256_16"])


@pytest.mark.parametrize("name", READ)
def test_greys_are_highdicoms_to_the_last_bit(name):
    np.testing.assert_array_equal(ours(name), by_highdicom(name))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_headers_are_those_of_the_table(row):
    header = read_header((FOLDER / row["file"]).read_bytes(), name=row["file"])
    assert (header.height, header.width) == (int(row["rows"]), int(row["columns"]))
    assert header.mode == f"MONO{row['photometric'][-1]};{row['bits_stored']}"


@pytest.mark.skipif(bool(find_spec("libjpeg") or find_spec("gdcm")), reason="an optional decoder is installed")
@pytest.mark.parametrize("row", [row for row in ROWS if row["file"] not in READ], ids=lambda row: row["file"])
def test_codings_without_a_free_decoder_are_refused_by_name(row):
    with pytest.raises(UnreadableImageError) as refused:
        decode(FOLDER / row["file"], DecodeSettings(image_size=64))
    for said in (row["file"], row["transfer_syntax_uid"], "pylibjpeg-libjpeg", "GPL-3.0", "python-gdcm"):
        assert said in str(refused.value)


def test_one_picture_in_three_codings_and_with_and_without_a_header_is_one_picture():
    leg = [f"nema_RG3_extremity_{coding}.dcm" for coding in ("rle", "jpegls", "j2k-lossless")]
    chest = ["barre_CR-MONO1-10-chest.dcm", "barre_CR-MONO1-10-chest_nometa.dcm"]
    nih = [f"nih_test{number}.dcm" for number in (1, 4, 5, 6)]
    for group in (leg, chest, nih):
        first, *others = map(ours, group)
        assert all((first == other).all() for other in others)


def test_eight_bits_without_a_window_are_as_stored():
    for number in range(1, 7):
        dataset = pydicom.dcmread(FOLDER / f"nih_test{number}.dcm")
        stored = np.frombuffer(dataset.PixelData, np.uint8).reshape(dataset.Rows, dataset.Columns)
        np.testing.assert_array_equal(ours(f"nih_test{number}.dcm"), stored)


@pytest.mark.parametrize("fit", ["pad", "stretch", "crop"])
def test_a_radiograph_and_the_png_of_it_are_the_same_to_a_network(tmp_path, fit):
    name, settings = "barre_CR-MONO1-10-chest.dcm", DecodeSettings(image_size=224, fit=fit)
    (tmp_path / "chest.png").write_bytes(png_of(by_highdicom(name)))
    assert Image.open(io.BytesIO((tmp_path / "chest.png").read_bytes())).size == (440, 440)
    np.testing.assert_array_equal(decode(FOLDER / name, settings), decode(tmp_path / "chest.png", settings))


def test_lossy_codings_stay_near_each_other():
    jpeg2000, jpeg_ls = (ours(f"nema_RG1_chest_{coding}.dcm").astype(int) for coding in ("j2k-lossy", "jpegls-near"))
    assert np.abs(jpeg2000 - jpeg_ls).mean() < 1
