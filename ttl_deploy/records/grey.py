"""How grey values of more than eight bits become eight: the words of `DecodeSettings.grey`."""

import math
from dataclasses import dataclass
from typing import Literal

_ALLOWED = (
    "auto, full, window=CENTRE/WIDTH such as window=40/400 (WIDTH at least 1), "
    "or percentile=LOW/HIGH such as percentile=0.5/99.5"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GreyWindow:
    """A window of the values that a file's rescale or modality table gives, such as Hounsfield units."""

    centre: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GreyPercentiles:
    """The shares, in per cent of an image's pixels, below which all is black and above which all is white."""

    low: float
    high: float


Grey = Literal["auto", "full"] | GreyWindow | GreyPercentiles


def parse_grey(text: str) -> Grey:
    """Return what a text asks for; raises `ValueError` that says what is allowed."""
    if text == "auto":
        return "auto"
    if text == "full":
        return "full"
    kind, _, numbers = text.partition("=")
    try:
        first, second = (float(number) for number in numbers.split("/"))
    except ValueError as error:
        raise ValueError(f"grey = {text!r}; allowed are {_ALLOWED}") from error
    if kind == "window" and math.isfinite(first) and math.isfinite(second) and second >= 1:
        return GreyWindow(centre=first, width=second)
    if kind == "percentile" and 0 <= first < second <= 100:
        return GreyPercentiles(low=first, high=second)
    raise ValueError(f"grey = {text!r}; allowed are {_ALLOWED}")
