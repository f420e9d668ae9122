"""What a DICOM file says of its pixels; nothing else of it is read, so nothing else can be told.

Only the tags of `_TAGS` leave the parser. Texts of tags do not appear in errors, nor do the parser's
own messages, which quote them.
"""

import io
import logging
import re
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any

from ttl_deploy.errors import MissingExtraError, UnreadableImageError
from ttl_deploy.pixels.dicom_steps import GreySteps, read_grey_steps
from ttl_deploy.pixels.dicom_tables import DicomFaultError
from ttl_deploy.pixels.limits import DECODER_ERRORS, MAX_PIXELS

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_COLOURS = ("Red", "Green", "Blue")
_PALETTE_TAGS = (
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in _COLOURS),
    *(f"{colour}PaletteColorLookupTableData" for colour in _COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
)
_TAGS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *_PALETTE_TAGS,
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
)
_DEFLATED = "1.2.840.10008.1.2.1.99"
_DICOMDIR = "1.2.840.10008.1.3.10"
_GUESSED = {
    (True, True): "1.2.840.10008.1.2",
    (False, True): "1.2.840.10008.1.2.1",
    (False, False): "1.2.840.10008.1.2.2",
}
"""Transfer syntaxes of files that name none, by (implicit, little endian)."""
_META_BYTES = 1 << 16
_MOST_INFLATED = 3 * MAX_PIXELS  # 8-bit RGB
_CHUNK = 1 << 20
_QUIET = RLock()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPixels:
    """Shape and coding of one picture, checked, and its coded pixels."""

    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    signed: bool
    planar: int
    transfer_syntax: str
    data: bytes
    data_vr: str

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value that the stored bits can hold."""
        half = 1 << (self.bits_stored - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DicomHeader:
    """What is needed of a file: its pixels, and what maps them: `greys`, or for pydicom a dataset with a `palette`."""

    pixels: StoredPixels
    greys: GreySteps | None
    palette: Any


def import_pydicom(*, name: str) -> Any:
    """Return the module; raises `MissingExtraError` where the extra is not installed."""
    try:
        import pydicom
        import pydicom.pixels  # new in 3.0
    except ModuleNotFoundError as error:
        raise MissingExtraError("dicom", f"{name} is a DICOM file, and reading it") from error
    return pydicom


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's warnings and log, which quote tags, from everybody; one thread at a time."""
    log = logging.getLogger("pydicom")
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, log.propagate = log.propagate, False
        try:
            yield
        finally:
            log.propagate = before


def read_dicom_header(content: bytes, *, name: str) -> DicomHeader:
    """Parse and check; raises `UnreadableImageError` that says why a file cannot be decoded."""
    pydicom = import_pydicom(name=name)
    try:
        with quiet():
            return _read(pydicom, content)
    except DicomFaultError as fault:
        raise UnreadableImageError(f"{name}: {fault}. Take it out, or convert it") from fault
    except (*DECODER_ERRORS, pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException) as error:
        raise UnreadableImageError(
            f"{name} begins as a DICOM file and cannot be read as one: its header is damaged ({type(error).__name__}). "
            "Replace the file, or take it out"
        ) from None


def _read(pydicom: Any, content: bytes) -> DicomHeader:
    _refuse_inflation(pydicom, content)
    dataset = pydicom.dcmread(io.BytesIO(content), force=True, specific_tags=list(_TAGS))
    if dataset.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
        raise DicomFaultError("it is a DICOMDIR, a list of files: give the files themselves")
    _refuse_no_pixels(dataset)
    _refuse_frames(dataset)
    pixels = _read_pixels(dataset)
    greys = palette = None
    if pixels.photometric in MONOCHROME:
        little_endian = pixels.transfer_syntax != _GUESSED[(False, False)]
        greys = read_grey_steps(dataset, signed=pixels.signed, little_endian=little_endian)
    elif pixels.photometric == PALETTE:
        palette = dataset
        palette.file_meta.TransferSyntaxUID = pixels.transfer_syntax  # tells the byte order of its tables
        for name in _PALETTE_TAGS:
            dataset.get(name)  # pydicom reads a value when it is asked for; a damaged one is to fail here
    return DicomHeader(pixels=pixels, greys=greys, palette=palette)


def _refuse_inflation(pydicom: Any, content: bytes) -> None:
    """Refuse a deflated file that would fill the memory, before it is inflated whole."""
    if _DEFLATED.encode() not in content[:_META_BYTES]:
        return
    file = io.BytesIO(content)
    pydicom.filereader.read_preamble(file, force=True)
    meta = pydicom.filereader.read_dataset(
        file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, vr, length: tag.group != 2
    )
    if meta.get("TransferSyntaxUID", _DEFLATED) != _DEFLATED:
        return
    inflater, rest, length = zlib.decompressobj(-zlib.MAX_WBITS), content[file.tell() :], 0
    while rest and not inflater.eof:
        length += len(inflater.decompress(rest, _CHUNK))
        rest = inflater.unconsumed_tail
        if length > _MOST_INFLATED:
            raise DicomFaultError(f"it unpacks to more than {_MOST_INFLATED} bytes")


def _refuse_no_pixels(dataset: Any) -> None:
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise DicomFaultError("it has floating-point pixels; allowed are whole numbers of 8 to 16 bits")
    if "PixelData" not in dataset or not dataset["PixelData"].value:
        raise DicomFaultError("it holds no pixel data")


def _refuse_frames(dataset: Any) -> None:
    frames = _whole(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise DicomFaultError(f"it holds {frames} frames: save the one that is meant as a file of its own")


def _read_pixels(dataset: Any) -> StoredPixels:
    rows, columns = _whole(dataset, "Rows", 0), _whole(dataset, "Columns", 0)
    if rows < 1 or columns < 1:
        raise DicomFaultError(f"it has {columns} columns and {rows} rows")
    if rows * columns > MAX_PIXELS:
        raise DicomFaultError(f"it has too many pixels: {columns} x {rows}; allowed are {MAX_PIXELS}")
    photometric, samples = _read_photometric(dataset)
    allocated, stored = _read_bits(dataset)
    element = dataset["PixelData"]
    return StoredPixels(
        rows=rows,
        columns=columns,
        samples=samples,
        photometric=photometric,
        bits_allocated=allocated,
        bits_stored=stored,
        signed=_whole(dataset, "PixelRepresentation", 0) == 1,
        planar=_whole(dataset, "PlanarConfiguration", 0),
        transfer_syntax=_read_syntax(dataset),
        data=bytes(element.value),
        data_vr=str(element.VR),
    )


def _read_photometric(dataset: Any) -> tuple[str, int]:
    """Return the photometric interpretation and the samples of a pixel, which must agree."""
    known = (*MONOCHROME, PALETTE, *COLOUR)
    photometric = str(dataset.get("PhotometricInterpretation", "")).strip().upper()
    if photometric not in known:
        raise DicomFaultError(f"its photometric interpretation is missing or unknown; allowed are {', '.join(known)}")
    samples, expected = _whole(dataset, "SamplesPerPixel", 1), 3 if photometric in COLOUR else 1
    if samples != expected:
        raise DicomFaultError(f"it has {samples} samples per pixel; {photometric} has {expected}")
    return photometric, samples


def _read_bits(dataset: Any) -> tuple[int, int]:
    """Return the bits that a sample takes and those of them that it uses, the lowest ones."""
    allocated = _whole(dataset, "BitsAllocated", 0)
    stored = _whole(dataset, "BitsStored", allocated)
    high = _whole(dataset, "HighBit", stored - 1)
    if allocated not in (8, 16) or not 1 < stored <= allocated or high != stored - 1:
        raise DicomFaultError(
            f"it stores {stored} of {allocated} bits, the highest in place {high}; "
            "allowed are 2 to 16 of 8 or 16, the lowest ones"
        )
    return allocated, stored


def _read_syntax(dataset: Any) -> str:
    """Return the transfer syntax; a file that names none is uncompressed, in the coding that was recognised."""
    named = str(dataset.file_meta.get("TransferSyntaxUID") or "")
    if named:
        if not re.fullmatch(r"[0-9.]{1,64}", named):
            raise DicomFaultError("its transfer syntax is no number of the kind 1.2.840.10008.1.2")
        return named
    if dataset["PixelData"].is_undefined_length:
        raise DicomFaultError("it is compressed and does not say how: its transfer syntax is missing")
    return _GUESSED[dataset.original_encoding]


def _whole(dataset: Any, name: str, default: int) -> int:
    value = dataset.get(name)
    return default if value is None or value == "" else int(value)
