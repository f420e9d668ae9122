"""Columns become groups: every image is in exactly one, whatever the cells hold."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttl_deploy.errors import UsageError
from ttl_deploy.evidence.columns import BLANK, MOST_VALUES, clean_name, find_groupings, read_number

WORDS = st.text(max_size=8)
NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.floats(-1e6, 1e6, allow_nan=False).map(repr),
    st.integers(0, 120).map(lambda age: f"{age:03}Y"),
)
CELLS = st.one_of(WORDS, NUMBERS, st.sampled_from(["", " ", "unknown", "n/a", "nan", "inf", "1e999", "½", "１２", "Ü"]))


def rows_of(column, cells):
    return [{column: cell} for cell in cells]


def only(cells, **options):
    """Return the grouping of the only column."""
    ((found,), left_out) = find_groupings(rows_of("x", cells), **options)
    assert left_out == ()
    return found


def cells_by_group(grouping, cells):
    members = grouping.members.tolist()
    return {
        name: sorted({cell for cell, member in zip(cells, members, strict=True) if member == at})
        for at, name in enumerate(grouping.names)
    }


@given(cells=st.lists(CELLS, min_size=1, max_size=60))
def test_every_image_is_in_one_group_and_no_group_is_empty(cells):
    found, left_out = find_groupings(rows_of("x", cells))
    assert len(found) + len(left_out) == 1
    for grouping in found:
        assert grouping.members.shape == (len(cells),)
        assert sorted(set(grouping.members.tolist())) == list(range(len(grouping.names)))
        assert all(grouping.names)
    for one in left_out:
        assert one.column == "x"
        assert one.reason


@given(cells=st.lists(CELLS, min_size=1, max_size=40), data=st.data())
def test_the_order_of_rows_and_equal_cells_do_not_matter(cells, data):
    order = data.draw(st.permutations(range(len(cells))))
    found, _ = find_groupings(rows_of("x", cells))
    again, _ = find_groupings(rows_of("x", [cells[at] for at in order]))
    for a, b in zip(found, again, strict=True):
        assert a.names == b.names
        assert a.members[list(order)].tolist() == b.members.tolist()
        stripped = [cell.strip() for cell in cells]
        of_cell = dict(zip(stripped, a.members.tolist(), strict=True))
        assert [of_cell[cell] for cell in stripped] == a.members.tolist()


@given(
    values=st.lists(st.integers(-1000, 1000), min_size=MOST_VALUES + 1, unique=True),
    repeats=st.integers(1, 3),
)
def test_whole_numbers_lie_in_the_band_that_is_named_after_them(values, repeats):
    cells = [str(value) for value in values * repeats]
    found = only(cells)
    assert found.banded
    assert 2 <= len(found.names) <= 4
    for cell, member in zip(cells, found.members.tolist(), strict=True):
        low, _, high = found.names[member].partition(" to ")
        assert int(low) <= int(cell) <= int(high or low)


@given(values=st.lists(st.floats(-100, 100, allow_nan=False), min_size=MOST_VALUES + 1, unique=True))
def test_numbers_lie_in_the_band_that_is_named_after_them(values):
    values = [*values, 0.123]
    found = only([repr(value) for value in values])
    for value, member in zip(values, found.members.tolist(), strict=True):
        bounds = re.split(r" to below | to ", found.names[member])
        low, high = float(bounds[0]), float(bounds[-1])
        assert low <= value <= high
        assert value < high or member == len(found.names) - 1


def test_quartiles_of_many_numbers_hold_about_a_quarter_each():
    ages = np.random.default_rng(0).integers(18, 95, 4000)
    found = only([str(age) for age in ages])
    shares = np.bincount(found.members) / len(ages)
    assert len(shares) == 4
    assert (abs(shares - 0.25) < 0.03).all()
    edges = [int(name.split()[0]) for name in found.names[1:]]
    assert edges == np.ceil(np.quantile(ages, (0.25, 0.5, 0.75))).tolist()


def test_few_values_are_groups_as_they_are_and_numbers_stand_in_their_order():
    assert cells_by_group(only(["F", "M", "F"]), ["F", "M", "F"]) == {"F": ["F"], "M": ["M"]}
    assert only(["10", "9", "2", "10"]).names == ("2", "9", "10")
    assert not only(["10", "9"]).banded


def test_blank_cells_are_a_group_of_their_own_at_the_end():
    cells = ["F", "", " ", "M"]
    found = only(cells)
    assert found.names == ("F", "M", BLANK)
    assert found.members.tolist() == [0, 2, 2, 1]
    ages = [str(age) for age in range(40)]
    assert only([*ages, ""]).names[-1] == BLANK


def test_a_column_without_a_cell_in_some_rows_is_blank_there():
    ((found,), _) = find_groupings([{"x": "F"}, {}, {"x": "M"}])
    assert found.members.tolist() == [0, 2, 1]


def test_words_among_numbers_are_groups_of_their_own():
    cells = [*(str(age) for age in range(40)), "unknown", "unknown", "n/a"]
    found = only(cells)
    assert found.names == ("0 to 9", "10 to 19", "20 to 29", "30 to 39", "n/a", "unknown")
    assert found.members[-3:].tolist() == [5, 5, 4]


def test_one_value_only_makes_no_groups():
    found, left_out = find_groupings(rows_of("x", ["F"] * 5))
    assert found == ()
    assert left_out[0].reason == "one value only: F"
    _, left_out = find_groupings(rows_of("x", ["", " "]))
    assert left_out[0].reason == f"one value only: {BLANK}"


def test_identifiers_and_many_names_are_left_out_and_shown_on_request():
    cells = [f"study {number}" for number in range(40)]
    _, left_out = find_groupings(rows_of("x", cells))
    assert left_out[0].reason == "looks like an identifier: 40 different values in 40 images"
    assert len(only(cells, by=("x",)).names) == 40
    hospitals = [f"hospital {number % 14}" for number in range(200)]
    _, left_out = find_groupings(rows_of("x", hospitals))
    assert left_out[0].reason == "14 different values that are no numbers: name it to see them"
    assert len(only(hospitals, by=("x",)).names) == 14


def test_too_many_groups_are_refused():
    cells = [f"study {number}" for number in range(60)]
    with pytest.raises(UsageError, match="'x' has 60 different values, and more than 50 groups"):
        find_groupings(rows_of("x", cells), by=("x",))


def test_own_bands_are_named_and_may_be_empty():
    cells = ["17", "18", "39", "40", "70", ""]
    found = only(cells, bands={"x": (18, 40, 65, 90)})
    assert found.names == ("below 18", "18 to 39", "40 to 64", "65 to 89", "90 and above", BLANK)
    assert found.members.tolist() == [0, 1, 1, 2, 3, 5]
    assert only(["0.5", "18"], bands={"x": (18.0, 2.5)}).names == ("below 2.5", "2.5 to below 18", "18 and above")


def test_bands_of_words_and_unknown_columns_are_refused():
    with pytest.raises(UsageError, match=r"'x' holds no numbers but \['F', 'M'\]"):
        find_groupings(rows_of("x", ["F", "M"]), bands={"x": (1,)})
    with pytest.raises(UsageError, match="no column 'ages': there are age, sex"):
        find_groupings([{"age": "1", "sex": "F"}], by=("ages",))
    with pytest.raises(UsageError, match="no column 'sex': the data set has none besides"):
        find_groupings([{}], bands={"sex": (1,)})


def test_only_the_columns_that_are_named_are_used():
    rows = [{"age": str(age), "sex": "MF"[age % 2], "site": "AB"[age % 2]} for age in range(40)]
    found, left_out = find_groupings(rows, by=("sex",), bands={"age": (20,)})
    assert [one.column for one in found] == ["sex", "age"]
    assert left_out == ()


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        *[("41", 41.0), ("-4.5", -4.5), (".5", 0.5), ("1e3", 1000.0), ("045Y", 45.0), ("018M", 1.5)],
        *[("1_000", None), ("１２", None), ("nan", None), ("inf", None), ("1e999", None), ("4,5", None), ("", None)],
        *[("0x10", None), ("45 Y", None), ("1e16", None)],
    ],
)
def test_numbers_are_read_in_ascii_only(cell, value):
    assert read_number(cell) == value


def test_names_are_shown_without_control_characters_and_short():
    assert clean_name("a\x1b[31mb\n") == "a\ufffd[31mb\ufffd"
    assert len(clean_name("x" * 1000)) == 60
    assert only(["é", "中", "\x07"]).names == ("\ufffd", "é", "中")
