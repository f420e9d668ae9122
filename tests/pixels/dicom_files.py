"""DICOM files made by pydicom, and readings of them by highdicom and pydicom that share no code with ours."""

import io

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.pixels import decode_bytes
from ttl_deploy.records.data import DecodeSettings

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402  # pydicom may be missing
from pydicom.uid import ExplicitVRLittleEndian, generate_uid  # noqa: E402  # as above

SIDE = 32


def build(stored, *, bits=12, syntax=ExplicitVRLittleEndian, **tags):
    """Return a dataset whose pixels are `stored`: `(H, W)` greys or `(H, W, 3)` colours of 8 or 16 bits."""
    stored = np.asarray(stored)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["one"])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    dataset.PatientID = "x"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 3 if stored.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if stored.ndim == 3 else "MONOCHROME2"
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored = min(bits, dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    content = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def to_bytes(dataset, **options):
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, **{"enforce_file_format": True, **options})
    return file.getvalue()


def table(entries, *, first=0, bits=16, data_vr="US"):
    """Return an item of a LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries) % 65536, first, bits])
    item.LUTExplanation = "x"
    item.ModalityLUTType = "US"
    packed = np.asarray(entries, "<u2").tobytes()
    item.add_new("LUTData", data_vr, packed if data_vr == "OW" else [int(entry) for entry in entries])
    return item


def read(dataset, *, grey="auto", name="a.dcm", **options):
    """Decode a picture of 32 by 32 pixels by our path, one channel of it."""
    content = dataset if isinstance(dataset, bytes) else to_bytes(dataset)
    pixels = decode_bytes(content, DecodeSettings(image_size=SIDE, grey=grey), name=name, **options)
    assert pixels.shape == (SIDE, SIDE, 3)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def by_highdicom(dataset):
    """Return greys 0..255 as highdicom computes them, rounded half up."""
    highdicom = pytest.importorskip("highdicom")
    image = highdicom.imread(io.BytesIO(to_bytes(dataset)))
    frame = image.get_frame(
        1, apply_real_world_transform=False, apply_voi_transform=True, voi_output_range=(0.0, 255.0)
    )
    return np.floor(frame + 0.5).astype(np.uint8)


def by_pydicom(dataset, low, high):
    """Return greys 0..255 as pydicom's processing computes them, `low` to `high` being its range; rounded half up."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    again = pydicom.dcmread(io.BytesIO(to_bytes(dataset)))
    shaded = (apply_voi_lut(apply_modality_lut(again.pixel_array, again), again) - low) * (255 / (high - low))
    if again.PhotometricInterpretation == "MONOCHROME1":
        shaded = 255 - shaded
    return np.floor(shaded + 0.5).astype(np.uint8)


def png_of(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
