"""From a picture of any shape to a square one."""

from PIL import Image

from ttl_deploy.records.data import DecodeSettings


def fit(image: Image.Image, settings: DecodeSettings) -> Image.Image:
    """Return a picture of `settings.image_size` by as many pixels."""
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
