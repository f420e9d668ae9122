"""Changed copies are recognised, other pictures are not, and the search finds what comparing everything finds."""

import io

import numpy as np
import pytest
from PIL import Image

from ttl_deploy.data import near_duplicates
from ttl_deploy.data.traits import TRAITS, describe


def draw(seed, side=160):
    """Draw a picture of soft shapes, as an RGB image."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(30, 200, (14, 14), dtype=np.uint8))
    return coarse.resize((side, side), Image.Resampling.BICUBIC).convert("RGB")


def look(image, **options):
    content = io.BytesIO()
    image.save(content, options.pop("format", "PNG"), **options)
    return describe(content.getvalue(), name="drawn")


def tell_match(first, second):
    """Return hash distance and match of two looks."""
    distance = int(np.bitwise_count(first["hash"] ^ second["hash"]).sum())
    return distance, float(near_duplicates.match(first["thumbnail"][None], second["thumbnail"][None])[0])


CHANGES = {
    "encoded at quality 60": lambda image: look(image, format="JPEG", quality=60),
    "scaled": lambda image: look(image.resize((144, 144), Image.Resampling.BICUBIC)),
    "trimmed": lambda image: look(image.crop((2, 1, 159, 158))),
    "brightened": lambda image: look(image.point(lambda value: min(255, round(value * 1.15 + 12)))),
    "given a new mode": lambda image: look(image.convert("L"), format="BMP"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(4))
def test_a_changed_copy_is_recognised(change, seed):
    distance, match = tell_match(look(draw(seed)), CHANGES[change](draw(seed)))
    assert distance <= near_duplicates.RADIUS
    assert match >= near_duplicates.LEAST_MATCH


def test_other_pictures_and_mirrored_ones_are_not_taken_for_copies():
    looks = [look(draw(seed)) for seed in range(12)] + [look(draw(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT))]
    for position, first in enumerate(looks):
        for second in looks[:position]:
            distance, match = tell_match(first, second)
            assert distance > near_duplicates.RADIUS
            assert match < near_duplicates.LEAST_MATCH


def test_a_match_needs_the_details_to_agree_and_not_only_the_large_shapes():
    shade = np.linspace(20, 230, 32)[None] * np.ones((32, 1))
    noise = np.random.default_rng(0).normal(0, 6, (2, 32, 32))
    first, second = np.clip(shade + noise, 0, 255).astype(np.uint8)
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.97
    assert near_duplicates.match(first[None], second[None])[0] < 0.5


def test_contrast_does_not_change_the_hash_and_a_thumbnail_uses_all_greys():
    grey = np.random.default_rng(1).normal(100, 20, (64, 64))
    assert (near_duplicates.hash_image(grey) == near_duplicates.hash_image(0.5 * grey + 30)).all()
    pale = look(draw(3).point(lambda value: 100 + value // 10))
    assert (pale["thumbnail"].min(), pale["thumbnail"].max()) == (0, 255)


def test_more_is_asked_of_a_match_where_the_pictures_look_alike():
    copies, strangers = np.full(30, 0.99), np.full(30, 0.6)
    assert near_duplicates.choose_level(copies, images=100) == near_duplicates.LEAST_MATCH
    assert near_duplicates.choose_level(np.append(copies, strangers), images=100) == near_duplicates.STRICT_MATCH
    assert near_duplicates.choose_level(np.append(copies, strangers), images=1000) == near_duplicates.LEAST_MATCH


def plant(generator, count):
    """Return random hashes, some of them changed copies of others, at every distance around the radius."""
    bits = generator.integers(0, 2, (count, 128), dtype=np.uint8)
    for position in range(0, count - 1, 2):
        bits[position + 1] = bits[position]
        flipped = generator.choice(128, size=int(generator.integers(0, 25)), replace=False)
        bits[position + 1, flipped] ^= 1
    return np.packbits(bits, axis=1).view(np.uint16)


@pytest.mark.parametrize("seed", range(5))
def test_the_search_finds_exactly_the_pairs_that_comparing_everything_finds(seed):
    hashes = plant(np.random.default_rng(seed), 400)
    hashes[390:] = hashes[0]  # a crowd of equal ones
    found = [tuple(sorted(map(int, pair))) for pairs in near_duplicates.find_close(hashes) for pair in pairs]
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=-1)
    wanted = [(int(i), int(j)) for i, j in np.argwhere(distances <= near_duplicates.RADIUS) if i < j]
    assert sorted(found) == wanted
    assert len(wanted) > 100


def test_pairs_at_the_radius_are_found_however_their_bits_are_spread():
    """Two bits in every word but one: of 15 bits, no other spread leaves so few words to find the pair by."""
    changed = np.zeros((2, 8), dtype=np.uint16)
    changed[1] = [3] * 7 + [1]  # 15 bits: two in each word but the last
    assert sum(map(len, near_duplicates.find_close(changed))) == 1
    changed[1, 7] = 3  # 16 bits
    assert sum(map(len, near_duplicates.find_close(changed))) == 0


def test_progress_is_told_to_the_end():
    told = []
    list(near_duplicates.find_close(plant(np.random.default_rng(0), 10), progress=lambda *step: told.append(step)))
    assert told[-1][1] == told[-1][2] == len(told) - 1


def test_traits_tell_the_file_and_its_border():
    framed = Image.new("L", (200, 100))
    framed.paste(200, (20, 20, 180, 80))
    traits = look(framed, format="JPEG", quality=90)
    assert traits.dtype == TRAITS
    assert (traits["width"], traits["height"], traits["format"], traits["mode"]) == (200, 100, "JPEG", "L")
    assert traits["black_border"] == 1
    assert traits["border"] < 2
    coarse = look(framed, format="JPEG", quality=40)
    assert coarse["compression"] > traits["compression"] > look(framed)["compression"] == 0
    assert look(Image.new("L", (50, 50), 255))["black_border"] == 0
