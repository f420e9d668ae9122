"""Conventions by name and by numbers, and how they become grey or coloured."""

import re

import pytest

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.models.input_conventions import (
    NAMED,
    check_normalise,
    describe_convention,
    fit_channels,
    format_convention,
    parse_convention,
)
from ttl_deploy.records.models import InputConvention


@pytest.mark.parametrize(
    ("name", "black", "white"),
    [("torchxrayvision", -1024, 1024), ("zero-one", 0, 1), ("minus-one-one", -1, 1)],
)
def test_a_named_convention_reaches_from_black_to_white(name: str, black: float, white: float) -> None:
    convention = parse_convention(name)
    ends = [(value - convention.mean[0]) / convention.std[0] for value in (0, 1)]
    assert ends == [black, white]


@pytest.mark.parametrize(
    ("text", "mean", "std"),
    [
        ("0.5/0.25", (0.5,), (0.25,)),
        ("0.48,0.46,0.41/0.23,0.22,0.22", (0.48, 0.46, 0.41), (0.23, 0.22, 0.22)),
        ("0.48, 0.46, 0.41 / 1", (0.48, 0.46, 0.41), (1, 1, 1)),
    ],
)
def test_numbers_are_read_as_given(text: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    assert parse_convention(text) == InputConvention(mean=mean, std=std)


@pytest.mark.parametrize("convention", NAMED.values(), ids=NAMED)
def test_a_convention_written_as_numbers_is_read_back_exactly(convention: InputConvention) -> None:
    assert parse_convention(format_convention(convention)) == convention


@pytest.mark.parametrize("text", ["0.5/", "a/b", "0.5,0.5/0.25", "nan/1", "1/inf", "0.5/0.25/3"])
def test_numbers_that_are_no_convention_are_refused_with_the_form(text: str) -> None:
    with pytest.raises(UsageError, match=rf"--normalise '{re.escape(text)}': give auto, imagenet.*0.5/0.25"):
        check_normalise(text)


@pytest.mark.parametrize("text", ["123.675,116.28,103.53/58.395,57.12,57.375", "0.5/0", "0.5/-1"])
def test_numbers_for_bytes_and_spreads_of_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"divide numbers that are meant for 0\.\.255 by 255"):
        check_normalise(text)


def test_an_unknown_name_is_refused_with_the_near_one() -> None:
    with pytest.raises(UnknownNameError, match="did you mean torchxrayvision"):
        check_normalise("torchxray")
    check_normalise("auto")


def test_grey_takes_the_mean_of_three_and_three_repeat_one() -> None:
    imagenet = fit_channels(NAMED["imagenet"], 1)
    assert (imagenet.mean[0], imagenet.std[0]) == (pytest.approx(0.449), pytest.approx(0.226))
    assert fit_channels(InputConvention(mean=(0.5,), std=(0.25,)), 3).mean == (0.5, 0.5, 0.5)


def test_words_name_a_convention_by_its_owner_whatever_its_channels() -> None:
    for channels in (1, 3):
        assert describe_convention(fit_channels(NAMED["torchxrayvision"], channels)).startswith("torchxrayvision: ")
    own = describe_convention(InputConvention(mean=(0.5,), std=(0.125,)))
    assert own == "(pixel / 255 - mean) / std with mean 0.5 and std 0.125 on the mean of red, green and blue"
