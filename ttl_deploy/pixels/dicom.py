"""From DICOM content to an 8-bit picture, `L` or `RGB`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttl_deploy.errors import MissingExtraError, UnreadableImageError
from ttl_deploy.pixels.decoder_process import decode_apart
from ttl_deploy.pixels.dicom_codecs import (
    RLE,
    UNCOMPRESSED,
    CodecMissingError,
    CodedFrame,
    choose_plugin,
    decode_frame,
)
from ttl_deploy.pixels.dicom_header import StoredPixels, import_pydicom, quiet, read_dicom_header
from ttl_deploy.pixels.dicom_steps import shade_greys
from ttl_deploy.pixels.dicom_tables import DicomFaultError
from ttl_deploy.pixels.limits import DECODER_ERRORS
from ttl_deploy.records.grey import Grey

_TIMEOUT_S = 20.0
_TIMEOUT_PER_PIXEL_S = 2e-6


def open_dicom(content: bytes, grey: Grey, *, name: str, isolated: bool) -> Image.Image:
    """Decode one DICOM picture by the rules of `dicom_steps`.

    Where `isolated`, native codecs run in a process of their own. Raises `UnreadableImageError` that names
    the file and no text of its tags, and `MissingExtraError` where the extra [dicom] is not installed.
    """
    header = read_dicom_header(content, name=name)
    pydicom = import_pydicom(name=name)
    try:
        stored = _decode(pydicom, header.pixels, isolated=isolated)
        if header.greys is not None:
            return Image.fromarray(shade_greys(stored, header.greys, grey, limits=header.pixels.limits))
        if header.palette is not None:
            colours = _look_up_palette(pydicom, stored, header.palette)
            return Image.fromarray(_high_byte(colours, bits=8 * colours.dtype.itemsize))
        return Image.fromarray(_high_byte(stored, bits=header.pixels.bits_stored))
    except CodecMissingError as error:
        raise MissingExtraError("dicom", f"the compressed DICOM file {name}") from error
    except DicomFaultError as fault:
        raise UnreadableImageError(f"{name}: {fault}. Take it out, or convert it") from fault
    except DECODER_ERRORS as error:
        reason = " ".join((str(error) or type(error).__name__).split())
        raise UnreadableImageError(
            f"{name}: its pixels do not decode: {reason}. Replace the file, or take it out"
        ) from error


def _decode(pydicom: Any, pixels: StoredPixels, *, isolated: bool) -> NDArray[np.integer]:
    """Return stored values `(H, W)`, or RGB `(H, W, 3)`."""
    if pixels.transfer_syntax in UNCOMPRESSED:
        _check_length(pixels)
    with quiet():
        plugin = choose_plugin(pydicom, pixels.transfer_syntax, bits_stored=pixels.bits_stored)
    frame = CodedFrame(
        data=pixels.data, transfer_syntax=pixels.transfer_syntax, plugin=plugin, options=_options(pixels)
    )
    if isolated and pixels.transfer_syntax not in UNCOMPRESSED | {RLE}:
        return decode_apart(frame, timeout_s=_TIMEOUT_S + _TIMEOUT_PER_PIXEL_S * pixels.rows * pixels.columns)
    with quiet():
        return decode_frame(frame)


def _check_length(pixels: StoredPixels) -> None:
    """Refuse what holds less than one picture, or more than one; a padding byte may be there or not."""
    expected = pixels.rows * pixels.columns * pixels.samples * (pixels.bits_allocated // 8)
    if pixels.photometric == "YBR_FULL_422":
        expected = expected // 3 * 2
    if len(pixels.data) < expected or len(pixels.data) >= 2 * max(expected, 2):
        raise DicomFaultError(f"it holds {len(pixels.data)} bytes of pixels; {expected} are expected")


def _options(pixels: StoredPixels) -> dict[str, Any]:
    """Return what pydicom's decoders must know."""
    return {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "samples_per_pixel": pixels.samples,
        "photometric_interpretation": pixels.photometric,
        "planar_configuration": pixels.planar,
        "bits_allocated": pixels.bits_allocated,
        "bits_stored": pixels.bits_stored,
        "pixel_representation": int(pixels.signed),
        "number_of_frames": 1,
        "allow_excess_frames": False,
        "pixel_keyword": "PixelData",
        "pixel_vr": pixels.data_vr,
    }


def _look_up_palette(pydicom: Any, stored: NDArray[np.integer], dataset: Any) -> NDArray[np.integer]:
    try:
        with quiet():
            return np.asarray(pydicom.pixels.apply_color_lut(stored, dataset))
    except DECODER_ERRORS as error:
        raise DicomFaultError(f"its palette cannot be used ({type(error).__name__})") from None


def _high_byte(colours: NDArray[np.integer], *, bits: int) -> NDArray[np.uint8]:
    """Keep the highest 8 of so many bits of RGB `(H, W, 3)`."""
    return np.ascontiguousarray((colours >> max(0, bits - 8)).astype(np.uint8)[..., :3])
