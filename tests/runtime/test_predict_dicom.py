"""Prediction from DICOM files: as for the same picture in other formats, and nothing of a person comes out."""

import io
import logging

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.data import open_cache, prepare
from ttl_deploy.data.traits import look_at
from ttl_deploy.errors import MissingExtraError, UnreadableImageError
from ttl_deploy.pixels import decode, decode_bytes
from ttl_deploy.records import codec
from ttl_deploy.records.data import DecodeSettings, Reading
from ttl_deploy.runtime.artifact import open_artifact
from ttl_deploy.runtime.image_files import find_images
from ttl_deploy.runtime.predict import Prediction, PredictionFailure, predict, write_predictions
from ttl_deploy.search.inspection import inspect_data

pydicom = pytest.importorskip("pydicom")
from pydicom import datadict  # noqa: E402  # pydicom may be missing
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402  # as above

CANARY = "CANARY"
_TEXTS = {"PN", "LO", "SH", "LT", "ST", "UT", "UC", "AE"}
_DATES = {"DA": "19010203", "DT": "19010203121314", "TM": "121314.151617"}


def radiograph(number, *, side=40, syntax=pydicom.uid.ExplicitVRLittleEndian, identified=False):
    """Return a dataset of 12 bits with a window; `identified` fills every tag that can name somebody."""
    rng = np.random.default_rng(number)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    if identified:
        identify(dataset)
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", f"1.2.3.{number}"
    dataset.Rows = dataset.Columns = side
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME1", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.WindowCenter, dataset.WindowWidth = 2000, 3001
    smooth = (
        rng.integers(500, 3500) + np.add.outer(np.arange(side), np.arange(side)) + rng.integers(0, 200, (side, side))
    )
    dataset.PixelData = np.clip(smooth, 0, 4095).astype("<u2").tobytes()
    return dataset


def identify(dataset):
    """Put a word into every public text tag, into dates, private tags, a sequence and the meta group."""
    for tag, (vr, _, _, retired, keyword) in datadict.DicomDictionary.items():
        if tag >> 16 not in (0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040, 0x4008) or not keyword:
            continue
        value = CANARY if vr in _TEXTS else _DATES.get(vr)
        if value and not retired:
            dataset.add_new(tag, vr, value)
    private = dataset.private_block(0x0011, f"{CANARY} maker", create=True)
    private.add_new(1, "LO", CANARY)
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = CANARY, CANARY
    dataset.OtherPatientIDsSequence = [other]
    dataset.WindowCenterWidthExplanation = CANARY
    dataset.file_meta.SourceApplicationEntityTitle = CANARY
    dataset.file_meta.PrivateInformationCreatorUID, dataset.file_meta.PrivateInformation = "1.2.3", CANARY.encode()


def to_bytes(dataset):
    dataset.preamble = CANARY.encode().ljust(128, b"\0")
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


@pytest.fixture
def artifact(artifact_folder):
    return open_artifact(artifact_folder)


@pytest.fixture
def study(tmp_path):
    """Five DICOM files, two of them without a suffix, with a DICOMDIR and a text beside them."""
    folder = tmp_path / "study"
    (folder / "series").mkdir(parents=True)
    for number, name in enumerate(("a.dcm", "b.DCM", "c.dicom", "series/IM0001", "series/1.2.840.99")):
        dataset = radiograph(number)
        if number == 1:
            dataset.compress(pydicom.uid.JPEG2000Lossless)
        (folder / name).write_bytes(to_bytes(dataset))
    (folder / "DICOMDIR").write_bytes(to_bytes(radiograph(9)))
    (folder / "README").write_text("nothing to see")
    return folder


def test_folders_of_dicom_are_predicted_with_and_without_suffixes(artifact, study):
    names = [path.relative_to(study).as_posix() for path in find_images([study])]
    assert names == ["a.dcm", "b.DCM", "c.dicom", "series/1.2.840.99", "series/IM0001"]
    predictions = list(predict(artifact, [study], threads=2, batch=2))
    assert [prediction.path.relative_to(study).as_posix() for prediction in predictions] == names
    assert all(isinstance(prediction, Prediction) for prediction in predictions)


def test_answers_are_those_of_the_png_of_the_same_picture(artifact, study, tmp_path):
    whole = DecodeSettings(image_size=40)
    for path in find_images([study]):
        Image.fromarray(decode(path, whole)[..., 0]).save(tmp_path / f"{path.name}.png")
    pngs = [tmp_path / f"{path.name}.png" for path in find_images([study])]
    for dicom, png in zip(predict(artifact, [study]), predict(artifact, pngs), strict=True):
        assert dicom.probabilities == png.probabilities
        assert dicom.predicted == png.predicted


@pytest.mark.parametrize("grey", ["auto", "full", "window=1500/900", "percentile=2/98"])
def test_pixels_of_training_and_prediction_are_the_same(study, tmp_path, monkeypatch, grey):
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(tmp_path / "cache"))
    for label in ("ill", "well"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(6):
            name = f"{number}.dcm" if number % 2 else f"IM{number}"
            content = to_bytes(radiograph(number + 10 * (label == "ill")))
            (tmp_path / "set" / label / name).write_bytes(content)
    manifest = prepare(str(tmp_path / "set"))
    assert len(manifest.samples) == 12
    settings = codec.from_builtins(DecodeSettings, codec.to_builtins(DecodeSettings(image_size=16, grey=grey)))
    trained_on = open_cache(manifest, settings).pixels(range(12))
    for sample, pixels in zip(manifest.samples, trained_on, strict=True):
        np.testing.assert_array_equal(decode(tmp_path / "set" / sample.path, settings), pixels)


def test_an_unreadable_dicom_file_costs_its_own_row_only(artifact, study):
    (study / "b.DCM").write_bytes((study / "b.DCM").read_bytes()[:700])
    kinds = [type(prediction) for prediction in predict(artifact, [study])]
    assert kinds.count(PredictionFailure) == 1


def test_without_the_extra_prediction_stops_with_its_name(artifact, study, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"\[dicom\]"):
        list(predict(artifact, [study]))


def broken_copies(content, *, count):
    """Yield damaged copies of a file: cut off, or with bytes overwritten."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        if rng.random() < 0.3:
            yield content[: rng.integers(1, len(content))]
            continue
        changed = np.frombuffer(content, np.uint8).copy()
        changed[rng.integers(0, len(changed), 40)] = rng.integers(0, 256, 40)
        yield changed.tobytes()


def test_no_error_and_no_log_line_names_anybody(caplog, capfd):
    caplog.set_level(logging.DEBUG)
    said = []
    for syntax in (pydicom.uid.ExplicitVRLittleEndian, pydicom.uid.ImplicitVRLittleEndian):
        content = to_bytes(radiograph(1, side=16, syntax=syntax, identified=True))
        assert content.count(CANARY.encode()) > 250
        for broken in (content, *broken_copies(content, count=300)):
            try:
                decode_bytes(broken, DecodeSettings(image_size=16), name="a.dcm")
            except UnreadableImageError as error:
                said.append(str(error))
    assert len(set(said)) > 5
    everything = "\n".join((*said, caplog.text, *capfd.readouterr()))
    for secret in ("CANAR", "ANARY", "19010203", "121314"):
        assert secret not in everything


def test_nothing_of_a_person_comes_into_caches_inspections_and_predictions(artifact, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(tmp_path / "cache"))
    for label in ("ill", "well"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(6):
            content = to_bytes(radiograph(number + 10 * (label == "ill"), identified=True))
            (tmp_path / "set" / label / f"{number}.dcm").write_bytes(content)
    manifest = prepare(str(tmp_path / "set"))
    open_cache(manifest, DecodeSettings(image_size=16))
    (tmp_path / "set" / "ill" / "0.dcm").write_bytes(to_bytes(radiograph(3, identified=True))[:-900])
    write_predictions(tmp_path / "cache" / "p.csv", predict(artifact, [tmp_path / "set"]), classes=("normal", "ill"))
    inspection = inspect_data(
        str(tmp_path / "set"),
        reading=Reading(),
        val_fraction=0.15,
        test_fraction=0.15,
        split_seed=0,
        image_size=16,
        progress=lambda stage, done, total: None,
    )
    codec.save(tmp_path / "cache" / "inspection.json", inspection)
    codec.save(tmp_path / "cache" / "manifest.json", manifest)
    written = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert any(path.stat().st_size >= 12 * 16 * 16 * 3 for path in written)
    assert {"p.csv", "inspection.json", "manifest.json"} <= {path.name for path in written}
    for path in written:
        assert CANARY.encode() not in path.read_bytes(), path
        assert b"19010203" not in path.read_bytes(), path
    assert CANARY not in caplog.text


def test_an_inspection_tells_dicoms_size_kind_and_bits(study):
    found, failed = look_at(study, ["a.dcm", "b.DCM"])
    assert not failed
    for traits in found.values():
        assert (traits["width"], traits["height"], traits["format"], traits["mode"]) == (40, 40, "DICOM", "MONO1;12")
        assert traits["darkest"] < traits["mean"] < traits["brightest"]
