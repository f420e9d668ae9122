"""The classes of the `pair` phantom are the same through every small window, and told apart by a larger one."""

import numpy as np
import pytest

from ttl_deploy.data.phantom import PhantomSettings, draw_phantom
from ttl_deploy.data.phantom.pairs import count_placements, draw_speck, find_blind_side, find_distance, place_pair
from ttl_deploy.models.cuts import list_cuts

SIZE = 96


def all_placements(*, upright):
    """Draw every placement of one pair on an empty film, `(placements, SIZE, SIZE)` whole numbers."""
    specks = {}
    films = np.zeros((count_placements(SIZE), SIZE, SIZE), np.int16)
    for number, film in enumerate(films):
        for place in place_pair(number, size=SIZE, upright=upright):
            if place not in specks:
                specks[place] = np.round(draw_speck(place, size=SIZE) * 100).astype(np.int16)
            film += specks[place]
    return films


@pytest.fixture(scope="module")
def placements():
    return all_placements(upright=False), all_placements(upright=True)


def windows_are_the_same(placements, side, *, corner):
    """Compare what all placements of either class show in the window with this corner, by random weights."""
    weights = np.random.default_rng(0).integers(1 << 30, size=side * side)
    window = (slice(None), slice(corner[0], corner[0] + side), slice(corner[1], corner[1] + side))
    seen = [np.sort(films[window].reshape(len(films), -1) @ weights) for films in placements]
    return np.array_equal(*seen)


def test_windows_of_the_blind_side_show_the_same_in_both_classes_wherever_they_are(placements):
    side = find_blind_side(SIZE)
    for row in (0, 11, 17, 18, 30, 34, 45, SIZE - side):
        for column in (0, 16, 19, 33, 40, SIZE - side):
            assert windows_are_the_same(placements, side, corner=(row, column))


def test_a_window_one_pixel_larger_tells_the_classes_apart(placements):
    assert not windows_are_the_same(placements, find_blind_side(SIZE) + 1, corner=(30, 30))


def test_specks_stay_on_the_film_and_fill_a_square_evenly(placements):
    distance = find_distance(SIZE)
    for upright in (False, True):
        pairs = [place_pair(number, size=SIZE, upright=upright) for number in range(count_placements(SIZE))]
        places, counts = np.unique([place for pair in pairs for place in pair], axis=0, return_counts=True)
        assert len(places) == (2 * distance) ** 2
        assert set(counts) == {1}
    level, upright = (films.sum(0) for films in placements)
    np.testing.assert_array_equal(level, upright)
    assert level[0].max() == level[-1].max() == 0


@pytest.mark.parametrize("size", [32, 64, 97, 224])
def test_other_sizes_keep_the_specks_on_the_film_and_the_share_of_the_distance(size):
    distance = find_distance(size)
    assert distance / size == pytest.approx(5 / 16, abs=0.5 / size)
    for upright in (False, True):
        for number in (0, count_placements(size) - 1):
            first, second = np.array(place_pair(number, size=size, upright=upright))
            assert (second - first).tolist() == ([distance, 0] if upright else [0, distance])
            assert min(first.min(), size - 1 - second.max()) > size / 10


@pytest.fixture(scope="module")
def drawn():
    films = list(draw_phantom(PhantomSettings(kind="pair", patients=120, size=SIZE, seed=2)))
    pixels = np.stack([film.pixels for film in films]).astype(float)
    smoothed = sum(np.roll(pixels, (y, x), (1, 2)) for y in (-4, 0, 4) for x in (-4, 0, 4)) / 9
    bright = np.clip(pixels - smoothed - 30, 0, None)
    return bright, np.array([film.label == "finding" for film in films])


def repeat_below_less_beside(bright, distance):
    """Return how much more of a film repeats itself a distance below than beside."""
    below = (bright[:, distance:] * bright[:, :-distance]).sum((1, 2))
    beside = (bright[:, :, distance:] * bright[:, :, :-distance]).sum((1, 2))
    return (below - beside) / (below + beside + 1)


def auroc(scores, positive):
    """Count the pairs in the right order, ties as half."""
    difference = scores[positive][:, None] - scores[~positive][None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def test_films_are_told_apart_by_what_repeats_at_the_distance_of_a_pair(drawn):
    bright, positive = drawn
    assert 0.9 < auroc(repeat_below_less_beside(bright, find_distance(SIZE)), positive) < 1


@pytest.mark.parametrize("distance", [1, 2, 4, 8, 16, 24])
def test_films_are_not_told_apart_by_what_repeats_at_other_distances(drawn, distance):
    bright, positive = drawn
    assert auroc(repeat_below_less_beside(bright, distance), positive) == pytest.approx(0.5, abs=0.1)


def test_films_are_not_told_apart_by_where_and_how_bright_the_specks_are(drawn):
    bright, positive = drawn
    third = SIZE // 3
    across, down = bright.sum(1), bright.sum(2)
    summaries = [
        bright.sum((1, 2)),
        bright.max((1, 2)),
        down[:, :third].sum(1) - down[:, -third:].sum(1),
        down[:, third:-third].sum(1) - across[:, third:-third].sum(1),
    ]
    for summary in summaries:
        assert auroc(summary, positive) == pytest.approx(0.5, abs=0.1)


def test_the_border_lies_in_the_middle_of_a_mobilenet():
    cuts = {cut.name: cut.receptive_field for cut in list_cuts("mobilenet_v2", image_size=SIZE, classes=2)}
    assert cuts["features.4"] <= find_blind_side(SIZE) < cuts["features.5"]
