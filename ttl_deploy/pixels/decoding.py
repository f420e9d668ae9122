"""Decoding's entrance: content of any kind that is read, to pixels of the wanted size."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttl_deploy.errors import UnreadableImageError
from ttl_deploy.pixels.dicom import open_dicom
from ttl_deploy.pixels.dicom_header import read_dicom_header
from ttl_deploy.pixels.fitting import fit
from ttl_deploy.pixels.limits import FORMATS
from ttl_deploy.pixels.pictures import open_picture
from ttl_deploy.pixels.sniffing import looks_like_dicom
from ttl_deploy.records.data import DecodeSettings
from ttl_deploy.records.grey import parse_grey

_SHORT = {"MONOCHROME1": "MONO1", "MONOCHROME2": "MONO2", "PALETTE COLOR": "P"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What a file says of its picture: pixels, Pillow's words for format and mode, steps of a JPEG's quantisation.

    Of DICOM the mode is the photometric interpretation and the bits stored, such as `MONO2;12`.
    """

    width: int
    height: int
    format: str
    mode: str
    quantisation: int


def decode(path: Path, settings: DecodeSettings, *, isolated: bool = True) -> NDArray[np.uint8]:
    """Read an image file as pixels `(S, S, 3)` uint8 RGB, S being `settings.image_size`.

    Raises `UnreadableImageError` that names the file and says in words what is wrong with it. Native codecs of
    DICOM run in a process of their own, unless `isolated` is False because this one may die as well.
    """
    return decode_bytes(read_bytes(path), settings, name=str(path), isolated=isolated)


def decode_bytes(content: bytes, settings: DecodeSettings, *, name: str, isolated: bool = True) -> NDArray[np.uint8]:
    """Decode an image file's content as `decode` does; `name` stands for the file in errors."""
    if not content:
        raise UnreadableImageError(f"{name} is empty (0 bytes): put the image back, or take it out of the data set")
    grey = parse_grey(settings.grey)
    if looks_like_dicom(content[:140]):
        picture = open_dicom(content, grey, name=name, isolated=isolated)
    else:
        picture = open_picture(content, grey, name=name)
    return np.array(fit(picture, settings).convert("RGB"))


def read_header(content: bytes, *, name: str) -> ImageHeader:
    """Return what the content of a file that decodes says of itself."""
    if looks_like_dicom(content[:140]):
        pixels = read_dicom_header(content, name=name).pixels
        mode = f"{_SHORT.get(pixels.photometric, pixels.photometric[:3])};{pixels.bits_stored}"
        return ImageHeader(width=pixels.columns, height=pixels.rows, format="DICOM", mode=mode, quantisation=0)
    with Image.open(io.BytesIO(content), formats=FORMATS) as header:
        return ImageHeader(
            width=header.size[0],
            height=header.size[1],
            format=header.format or "",
            mode=header.mode,
            quantisation=sum(map(sum, getattr(header, "quantization", {}).values())),
        )


def read_bytes(path: Path) -> bytes:
    """Read an image file; raises `UnreadableImageError` where it is missing or is no regular file."""
    try:
        if path.exists() and not path.is_file():
            raise UnreadableImageError(f"{path} is not an image but a folder or a device: give the files themselves")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableImageError(f"{path} cannot be read: {reason}") from error
