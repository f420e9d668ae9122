"""From an image file to pixels: one path, shared by training and by prediction, the same to the last bit.

Rules, in this order:

* The format is sniffed from the bytes (PNG, JPEG, TIFF, WebP, BMP, DICOM), never from the file's name.
* More than `MAX_PIXELS` in the header, or more than one frame, is refused; of a phone's multi-picture
  JPEG (MPO) the main picture is taken.
* EXIF orientation is applied.
* 1-bit becomes 0 and 255; palettes are looked up; CMYK and YCbCr become RGB by Pillow's formulas
  (no colour profile is applied); transparency is laid over black; 16-bit colour keeps its high byte.
* 16-bit greyscale is scaled as 12-bit (0..4095 to 0..255) where no value exceeds 4095, else as
  16-bit, rounded half up, unless `DecodeSettings.grey` says otherwise. Values outside 0..65535 and
  floating-point pixels are refused.
* DICOM greys go through the modality, VOI and presentation steps of the standard (`dicom_greys`).
* The aspect ratio is treated as `DecodeSettings.fit` says, by Pillow's antialiased bicubic filter.
"""

from ttl_deploy.pixels.decoding import ImageHeader, decode, decode_bytes, read_bytes, read_header
from ttl_deploy.pixels.limits import FORMATS, MAX_PIXELS
from ttl_deploy.pixels.sniffing import is_suffixless_dicom, looks_like_dicom

PIXELS_VERSION = 1
"""Raised with every change of the rules above that changes bits; part of every pixel cache's key."""

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "PIXELS_VERSION",
    "ImageHeader",
    "decode",
    "decode_bytes",
    "is_suffixless_dicom",
    "looks_like_dicom",
    "read_bytes",
    "read_header",
]
