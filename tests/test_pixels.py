"""Every kind of file becomes the pixels that the rules of `ttl_deploy.pixels` promise, or is refused in words."""

import io
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.errors import UnreadableImageError
from ttl_deploy.pixels import decode, decode_bytes
from ttl_deploy.records.data import DecodeSettings

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (32, 32), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
SAME_SIZE = DecodeSettings(image_size=32)


def encode(image, file_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def read(content, settings=SAME_SIZE):
    return decode_bytes(content, settings, name="a.png")


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
def test_lossless_colour_of_the_wanted_size_is_unchanged(file_format):
    pixels = read(encode(Image.fromarray(COLOUR), file_format))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, COLOUR)


def test_lossless_webp_is_unchanged():
    np.testing.assert_array_equal(read(encode(Image.fromarray(COLOUR), "WEBP", lossless=True)), COLOUR)


def test_grey_is_repeated_over_the_three_channels():
    np.testing.assert_array_equal(read(encode(Image.fromarray(GREY))), np.stack([GREY] * 3, axis=-1))


def test_the_format_is_told_from_the_bytes_and_not_from_the_name(tmp_path):
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encode(Image.fromarray(COLOUR)))
    np.testing.assert_array_equal(decode(path, SAME_SIZE), COLOUR)


def test_a_palette_is_looked_up():
    image = Image.fromarray(GREY).convert("P")
    image.putpalette(bytes(value for i in range(256) for value in (i, 255 - i, 7)))
    expected = np.stack([GREY, 255 - GREY, np.full_like(GREY, 7)], axis=-1)
    np.testing.assert_array_equal(read(encode(image)), expected)


def test_one_bit_becomes_black_and_white():
    bits = GREY > 127
    np.testing.assert_array_equal(read(encode(Image.fromarray(bits)))[..., 0], np.where(bits, 255, 0))


def test_transparency_is_laid_over_black():
    alpha = np.dstack([COLOUR, GREY])
    expected = COLOUR.astype(float) * GREY[..., None] / 255
    assert np.abs(read(encode(Image.fromarray(alpha))) - expected).max() <= 1


def test_a_transparent_palette_entry_becomes_black():
    image = Image.fromarray(np.where(GREY > 127, 1, 0).astype(np.uint8)).convert("P")
    image.putpalette([200, 200, 200, 90, 90, 90])
    pixels = read(encode(image, transparency=0))
    np.testing.assert_array_equal(pixels[..., 0], np.where(GREY > 127, 90, 0))


def test_cmyk_becomes_rgb():
    image = Image.fromarray(np.dstack([COLOUR, np.zeros((32, 32), np.uint8)])).convert("RGBA")
    cmyk = Image.merge("CMYK", image.split())
    pixels = read(encode(cmyk, "TIFF"))
    np.testing.assert_array_equal(pixels, 255 - COLOUR)


def test_sixteen_bits_that_use_twelve_are_scaled_as_twelve():
    values = np.linspace(0, 4095, 1024).round().astype(np.uint16).reshape(32, 32)
    expected = np.floor(values / 4095 * 255 + 0.5)
    np.testing.assert_array_equal(read(encode(Image.fromarray(values)))[..., 1], expected)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_as_sixteen(file_format):
    values = np.linspace(0, 65535, 1024).round().astype(np.uint16).reshape(32, 32)
    expected = np.floor(values / 65535 * 255 + 0.5)
    np.testing.assert_array_equal(read(encode(Image.fromarray(values), file_format))[..., 2], expected)


def test_sixteen_bits_of_either_byte_order_agree():
    values = np.linspace(0, 65535, 1024).round().astype(np.uint16).reshape(32, 32)
    big = Image.frombytes("I;16B", (32, 32), values.astype(">u2").tobytes())
    np.testing.assert_array_equal(read(encode(big, "TIFF")), read(encode(Image.fromarray(values), "TIFF")))


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: np.transpose(a, (1, 0, 2))),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(np.transpose(a, (1, 0, 2)), 2)),
        (8, np.rot90),
    ],
)
def test_the_exif_orientation_is_applied(orientation, undo):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read(encode(Image.fromarray(COLOUR), exif=exif)), undo(COLOUR))


def white(width, height):
    return encode(Image.new("L", (width, height), 255))


def test_pad_keeps_the_aspect_ratio_on_black():
    pixels = read(white(64, 32))
    assert (pixels[8:24] == 255).all()
    assert (pixels[:8] == 0).all()
    assert (pixels[24:] == 0).all()


def test_stretch_fills_the_frame():
    assert (read(white(64, 32), DecodeSettings(image_size=32, fit="stretch")) == 255).all()


def test_crop_cuts_the_longer_side_alike_at_both_ends():
    values = np.zeros((32, 64), np.uint8)
    values[:, 16:48] = GREY
    pixels = read(encode(Image.fromarray(values)), DecodeSettings(image_size=32, fit="crop"))
    np.testing.assert_array_equal(pixels[..., 0], GREY)


def test_shrinking_is_antialiased():
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    pixels = read(encode(Image.fromarray(board)), SAME_SIZE)
    assert np.abs(pixels[4:-4, 4:-4].astype(int) - 127).max() <= 2


@pytest.mark.parametrize("size", [(1, 900), (900, 1), (1, 1)])
@pytest.mark.parametrize("fit", ["pad", "stretch", "crop"])
def test_extreme_shapes_still_fill_the_frame(size, fit):
    assert read(white(*size), DecodeSettings(image_size=32, fit=fit)).shape == (32, 32, 3)


def test_a_text_file_named_jpg_is_not_an_image(tmp_path):
    path = tmp_path / "scan.jpg"
    path.write_text("this is no scan")
    with pytest.raises(UnreadableImageError, match=r"scan\.jpg is not an image"):
        decode(path, SAME_SIZE)


def test_an_empty_file_is_named_as_empty():
    with pytest.raises(UnreadableImageError, match=r"a\.png is empty"):
        read(b"")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnreadableImageError, match=r"gone\.png cannot be read: No such file"):
        decode(tmp_path / "gone.png", SAME_SIZE)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(UnreadableImageError, match="a folder"):
        decode(tmp_path, SAME_SIZE)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_a_truncated_file_is_refused(file_format):
    content = encode(Image.fromarray(COLOUR), file_format)
    with pytest.raises(UnreadableImageError, match=r"a\.png (does not decode|is not an image)"):
        read(content[: len(content) * 2 // 3])


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_several_frames_are_refused(file_format):
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    content = encode(frames[0], file_format, save_all=True, append_images=frames[1:])
    with pytest.raises(UnreadableImageError, match="holds 2 frames"):
        read(content)


def test_the_main_picture_of_a_multi_picture_jpeg_is_taken():
    content = encode(Image.fromarray(COLOUR), "MPO", save_all=True, append_images=[Image.new("RGB", (32, 32))])
    np.testing.assert_array_equal(read(content), read(encode(Image.fromarray(COLOUR), "JPEG")))


def test_formats_outside_the_list_are_refused():
    with pytest.raises(UnreadableImageError, match="is not an image"):
        read(encode(Image.fromarray(GREY), "GIF"))


def test_floating_point_pixels_are_refused():
    with pytest.raises(UnreadableImageError, match="floating-point"):
        read(encode(Image.fromarray(GREY.astype(np.float32)), "TIFF"))


def test_grey_values_beyond_sixteen_bits_are_refused():
    with pytest.raises(UnreadableImageError, match=r"grey values 0\.\.70000"):
        read(encode(Image.fromarray(np.array([[0, 70000]], np.int32)), "TIFF"))


def bomb(width, height):
    """Return a small PNG that claims to be `width` x `height`."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])

    def chunk(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 30_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side):
    with pytest.raises(UnreadableImageError, match="too many pixels"):
        read(bomb(side, side))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_where_warnings_are_silenced_too():
    with pytest.raises(UnreadableImageError, match="too many pixels: 10000 x 10000"):
        read(bomb(10_000, 10_000))


def claim(content, side):
    """Return the file with its header saying `side` by `side` pixels."""
    changed = bytearray(content)
    if content[:2] == b"BM":
        changed[18:26] = side.to_bytes(4, "little") * 2
    elif content[:2] == b"II":
        for tag in (256, 257):
            entry = content.index(tag.to_bytes(2, "little") + b"\x04\x00\x01\x00\x00\x00")
            changed[entry + 8 : entry + 12] = side.to_bytes(4, "little")
    else:
        frame = content.index(b"\xff\xc0")
        changed[frame + 5 : frame + 9] = side.to_bytes(2, "big") * 2
    return bytes(changed)


@pytest.mark.parametrize("side", [9_500, 65_000])
@pytest.mark.parametrize("file_format", ["BMP", "TIFF", "JPEG"])
def test_a_small_file_that_claims_too_many_pixels_takes_no_memory(file_format, side):
    content = claim(encode(Image.fromarray(GREY), file_format), side)
    tracemalloc.start()
    with pytest.raises(UnreadableImageError, match=r"a\.png has too many pixels"):
        read(content)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_a_webp_that_claims_too_many_pixels_is_refused():
    content = bytearray(encode(Image.fromarray(COLOUR), "WEBP", lossless=True))
    start = content.index(b"VP8L") + 9
    content[start : start + 4] = (int.from_bytes(content[start : start + 4], "little") | 0x0FFFFFFF).to_bytes(
        4, "little"
    )
    with pytest.raises(UnreadableImageError, match=r"a\.png"):
        read(bytes(content))


def test_a_cmyk_jpeg_of_a_printer_is_not_shown_as_its_negative():
    """Adobe's CMYK JPEG holds inverted inks; Pillow undoes that, so light stays light."""
    light = Image.new("CMYK", (32, 32), (10, 10, 10, 0))
    assert read(encode(light, "JPEG", quality=95)).mean() > 235


def test_an_animated_gif_is_no_image_here():
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    with pytest.raises(UnreadableImageError, match=r"a\.png is not an image: it begins with b'GIF8'"):
        read(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))


def test_errors_quote_no_more_than_a_format_is_told_by():
    with pytest.raises(UnreadableImageError) as refused:
        read(b"Doe^John 19010203 General Hospital")
    assert "b'Doe^'" in str(refused.value)
    assert "John" not in str(refused.value)


def test_mutated_files_decode_or_are_refused_and_never_crash():
    rng = np.random.default_rng(0)
    sources = [encode(Image.fromarray(COLOUR), kind) for kind in ("PNG", "JPEG", "BMP", "WEBP")]
    refused = 0
    for number in range(800):
        content = np.frombuffer(sources[number % 4], np.uint8).copy()
        places = rng.integers(0, len(content), rng.choice([1, 4, 32]))
        content[places] = rng.choice([0, 127, 128, 255], len(places))
        try:
            assert read(content.tobytes()).shape == (32, 32, 3)
        except UnreadableImageError:
            refused += 1
    assert 0 < refused < 800


def test_neither_pixels_nor_the_data_rooms_import_torch_or_sklearn():
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['sklearn'] = None\n"
        "import ttl_deploy.pixels, ttl_deploy.data, ttl_deploy.data.readers.phantom, ttl_deploy.data.readers.folder"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
