"""A search over DICOM files ends in an artifact that reads them as it did."""

import csv
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402  # pydicom may be missing

GREY = "percentile=0.5/99.5"
SEARCH = shlex.split(
    "search --backbone shufflenet_v2_x0_5 --weights none --image-size 48 --cuts stage2.3 --epochs 1 --batch-size 16 "
    "--workers 1 --profile-seconds 0.05 --skip probe --no-progress"
)


def radiograph(generator: np.random.Generator, *, ill: bool, compressed: bool) -> Dataset:
    """Return a 12-bit picture without a window; a bright square in it means ill."""
    stored = generator.integers(500, 1500) + generator.integers(0, 600, (48, 48))
    stored[10:30, 10:30] += 1200 * ill
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    dataset.Rows = dataset.Columns = 48
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = stored.astype("<u2").tobytes()
    if compressed:
        dataset.compress(pydicom.uid.JPEG2000Lossless, generate_instance_uid=False)
    return dataset


@pytest.mark.slow
def test_a_search_over_dicom_ships_its_mapping_of_greys(ttl_deploy: Callable[..., object], tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for label in ("ill", "well"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(60):
            dataset = radiograph(generator, ill=label == "ill", compressed=number % 3 == 0)
            name = f"{number}.dcm" if number % 2 else f"IM{number:04}"
            pydicom.dcmwrite(tmp_path / "set" / label / name, dataset, enforce_file_format=True)
    run = tmp_path / "run"
    done = ttl_deploy(*SEARCH, "--data", tmp_path / "set", "--grey", GREY, "-o", run)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "config.json").read_text())["decode"]["grey"] == GREY
    for command in (("export", run), ("verify", run)):
        done = ttl_deploy(*command)
        assert done.returncode == 0, done.stderr
    from ttl_deploy.pixels import decode
    from ttl_deploy.records.data import DecodeSettings

    (tmp_path / "pngs").mkdir()
    settings = DecodeSettings(image_size=48, grey=GREY)
    for path in (tmp_path / "set" / "ill").iterdir():
        Image.fromarray(decode(path, settings)[..., 0]).save(tmp_path / "pngs" / f"{path.name}.png")
    answers = []
    for folder in (tmp_path / "set" / "ill", tmp_path / "pngs"):
        done = ttl_deploy("predict", run, folder, "--out", tmp_path / "answers.csv")
        assert done.returncode == 0, done.stderr
        with (tmp_path / "answers.csv").open() as file:
            answers.append({Path(row["path"]).name.removesuffix(".png"): row["p_ill"] for row in csv.DictReader(file)})
    assert len(answers[0]) == 60
    assert answers[0] == answers[1]
