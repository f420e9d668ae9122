"""From an image file to pixels: one path, shared by training and by prediction, the same to the last bit.

Rules, in this order:

* The format is sniffed from the bytes (PNG, JPEG, TIFF, WebP, BMP), never from the file's name.
* More than `MAX_PIXELS` in the header, or more than one frame, is refused; of a phone's multi-picture
  JPEG (MPO) the main picture is taken.
* EXIF orientation is applied.
* 1-bit becomes 0 and 255; palettes are looked up; CMYK and YCbCr become RGB by Pillow's formulas
  (no colour profile is applied); transparency is laid over black; 16-bit colour keeps its high byte.
* 16-bit greyscale is scaled as 12-bit (0..4095 to 0..255) where no value exceeds 4095, else as
  16-bit, rounded half up. Values outside 0..65535 and floating-point pixels are refused.
* The aspect ratio is treated as `DecodeSettings.fit` says, by Pillow's antialiased bicubic filter.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ttl_deploy.errors import UnreadableImageError
from ttl_deploy.records.data import DecodeSettings

PIXELS_VERSION = 1
"""Raised with every change of the rules above; part of every pixel cache's key."""

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
MAX_PIXELS = 89_478_485  # Pillow's own threshold for a suspected decompression bomb

# What Pillow and the codecs below it raise on damaged files (found by mutating bytes).
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def decode(path: Path, settings: DecodeSettings) -> NDArray[np.uint8]:
    """Read an image file as pixels `(S, S, 3)` uint8 RGB, S being `settings.image_size`.

    Raises `UnreadableImageError` that names the file and says in words what is wrong with it.
    """
    return decode_bytes(read_bytes(path), settings, name=str(path))


def decode_bytes(content: bytes, settings: DecodeSettings, *, name: str) -> NDArray[np.uint8]:
    """Decode an image file's content as `decode` does; `name` stands for the file in errors."""
    if not content:
        raise UnreadableImageError(f"{name} is empty (0 bytes): put the image back, or take it out of the data set")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _refuse_oversize(image, name)
            _refuse_frames(image, name)
            image.load()
            upright = ImageOps.exif_transpose(image)
            plain = _to_eight_bits(upright, name)
            return np.array(_fit(plain, settings).convert("RGB"))
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"{name} is not an image: it begins with {content[:12]!r}; allowed are PNG, JPEG, TIFF, WebP and BMP files"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"{name} has too many pixels: {error}; allowed are {MAX_PIXELS}") from error
    except _DECODER_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise UnreadableImageError(f"{name} does not decode: {reason}. Replace the file, or take it out") from error


def read_bytes(path: Path) -> bytes:
    """Read an image file; raises `UnreadableImageError` where it is missing or is no regular file."""
    try:
        if path.exists() and not path.is_file():
            raise UnreadableImageError(f"{path} is not an image but a folder or a device: give the files themselves")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableImageError(f"{path} cannot be read: {reason}") from error


def _refuse_oversize(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(
            f"{name} has too many pixels: {width} x {height}; allowed are {MAX_PIXELS}. Scale it down first"
        )


def _refuse_frames(image: Image.Image, name: str) -> None:
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise UnreadableImageError(f"{name} holds {frames} frames: save the one that is meant as a file of its own")


def _to_eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Bring any mode to `L` or `RGB`."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _scale_grey(np.asarray(image), name)
    if image.mode == "F":
        raise UnreadableImageError(f"{name} has floating-point pixels: save it with 8 or 16 bits a channel")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        return _over_black(image.convert("RGBA"))
    return image.convert("RGB")


def _scale_grey(values: NDArray[np.generic], name: str) -> Image.Image:
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise UnreadableImageError(
            f"{name} has grey values {lowest}..{highest}; allowed are 0..65535. Save it with 8 or 16 bits a pixel"
        )
    full = 4095 if highest <= 4095 else 65535
    scaled = (values.astype(np.uint32) * 255 + full // 2) // full
    return Image.fromarray(scaled.astype(np.uint8))


def _over_black(image: Image.Image) -> Image.Image:
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image).convert("RGB")


def _fit(image: Image.Image, settings: DecodeSettings) -> Image.Image:
    side = settings.image_size
    if settings.fit == "stretch":
        return image.resize((side, side), Image.Resampling.BICUBIC)
    if settings.fit == "crop":
        return _crop(image, side)
    return _pad(image, side)


def _crop(image: Image.Image, side: int) -> Image.Image:
    """Scale the centred square of the shorter side's length."""
    width, height = image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    return image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short))


def _pad(image: Image.Image, side: int) -> Image.Image:
    """Scale the longer side to `side` and centre the image on black."""
    long = max(image.size)
    width, height = (max(1, (length * side + long // 2) // long) for length in image.size)
    scaled = image.resize((width, height), Image.Resampling.BICUBIC)
    canvas = Image.new(image.mode, (side, side))
    canvas.paste(scaled, ((side - width) // 2, (side - height) // 2))
    return canvas
