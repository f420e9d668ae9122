"""From the files that Pillow reads to 8-bit pictures, `L` or `RGB`."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ttl_deploy.errors import UnreadableImageError
from ttl_deploy.pixels.greys import Ramp, count_values, look_up, percentile_ramp, round_half_up, window_ramp
from ttl_deploy.pixels.limits import DECODER_ERRORS, FORMATS, MAX_PIXELS
from ttl_deploy.records.grey import Grey, GreyPercentiles, GreyWindow

_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


def open_picture(content: bytes, grey: Grey, *, name: str) -> Image.Image:
    """Decode a file that Pillow reads, upright and with 8 bits a channel."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _refuse_oversize(image, name)
            _refuse_frames(image, name)
            image.load()
            return _to_eight_bits(ImageOps.exif_transpose(image), grey, name)
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"{name} is not an image: it begins with {content[:4]!r}; allowed are PNG, JPEG, TIFF, WebP, BMP and "
            "DICOM files"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(f"{name} has too many pixels: {error}; allowed are {MAX_PIXELS}") from error
    except DECODER_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise UnreadableImageError(f"{name} does not decode: {reason}. Replace the file, or take it out") from error


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


def _to_eight_bits(image: Image.Image, grey: Grey, name: str) -> Image.Image:
    """Bring any mode to `L` or `RGB`."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _scale_grey(np.asarray(image), grey, name)
    if image.mode == "F":
        raise UnreadableImageError(f"{name} has floating-point pixels: save it with 8 or 16 bits a channel")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        return _over_black(image.convert("RGBA"))
    return image.convert("RGB")


def _scale_grey(values: NDArray[np.integer], grey: Grey, name: str) -> Image.Image:
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise UnreadableImageError(
            f"{name} has grey values {lowest}..{highest}; allowed are 0..65535. Save it with 8 or 16 bits a pixel"
        )
    steps = np.arange(lowest, highest + 1, dtype=np.float64)
    if isinstance(grey, GreyWindow):
        ramp = window_ramp(grey)
    elif isinstance(grey, GreyPercentiles):
        ramp = percentile_ramp(steps, count_values(values, first=lowest, last=highest), grey)
    else:
        ramp = Ramp(low=0, span=4095 if grey == "auto" and highest <= 4095 else 65535)
    table = round_half_up(ramp.shade(steps, inverse=False))
    return Image.fromarray(look_up(values, table, first=lowest))


def _over_black(image: Image.Image) -> Image.Image:
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    return Image.alpha_composite(black, image).convert("RGB")
