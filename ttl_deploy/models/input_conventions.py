"""How networks want their pixels: conventions with a name, numbers of the user's own, one channel or three."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from types import MappingProxyType

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.records.models import IMAGENET_INPUT, InputConvention

AUTO = "auto"
TORCHXRAYVISION = "torchxrayvision"
NAMED: Mapping[str, InputConvention] = MappingProxyType(
    {
        "imagenet": IMAGENET_INPUT,
        # Values in -1024..1024, as torchxrayvision.utils.normalize scales them.
        TORCHXRAYVISION: InputConvention(mean=(0.5,), std=(0.5 / 1024,)),
        "zero-one": InputConvention(mean=(0.0,), std=(1.0,)),
        "minus-one-one": InputConvention(mean=(0.5,), std=(0.5,)),
    }
)
_NUMBERS = "or numbers MEAN/STD for pixel values in 0..1, one or three each: 0.5/0.25 or 0.48,0.46,0.41/0.23,0.22,0.22"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feeding:
    """How images were brought to the network that a weights file is from, and how they are brought to ours.

    Each has as many entries as its network takes channels. They differ only where the numbers of channels do.
    """

    file: InputConvention
    network: InputConvention


def check_normalise(text: str) -> None:
    """Raise `UsageError` unless `text` is something that `--normalise` takes."""
    if text != AUTO:
        parse_convention(text)


def parse_convention(text: str) -> InputConvention:
    """Return the convention of a name in `NAMED`, or of numbers `MEAN/STD`; raises `UsageError`."""
    if text in NAMED:
        return NAMED[text]
    mean_text, slash, std_text = text.partition("/")
    if not slash:
        raise UnknownNameError("normalisation", text, (AUTO, *NAMED), _NUMBERS)
    mean, std = _parse_numbers(mean_text, text), _parse_numbers(std_text, text)
    if min(std) <= 0 or max(mean) > 1:
        raise UsageError(
            f"--normalise {text!r}: std must be above 0 and mean at most 1, because they are for pixel values in "
            "0..1; divide numbers that are meant for 0..255 by 255"
        )
    entries = max(len(mean), len(std))
    return InputConvention(mean=_repeat(mean, entries), std=_repeat(std, entries))


def fit_channels(convention: InputConvention, channels: int) -> InputConvention:
    """Return a convention with one entry per channel, 1 or 3: repeated for colour, averaged for grey."""
    if len(convention.mean) == channels:
        return convention
    if channels == 1:
        return InputConvention(mean=(fmean(convention.mean),), std=(fmean(convention.std),))
    return InputConvention(mean=_repeat(convention.mean, channels), std=_repeat(convention.std, channels))


def describe_convention(convention: InputConvention) -> str:
    """Say in words what happens to a pixel value in 0..255, and whose way that is if it has a name."""
    entries = len(convention.mean)
    owner = next((name for name, known in NAMED.items() if fit_channels(known, entries) == convention), "")
    mean, std = (_join(values) for values in (convention.mean, convention.std))
    text = f"(pixel / 255 - mean) / std with mean {mean} and std {std}"
    text += " for red, green, blue" if entries == 3 else " on the mean of red, green and blue"
    return f"{owner}: {text}" if owner else text


def format_convention(convention: InputConvention) -> str:
    """Write a convention as the numbers MEAN/STD that `parse_convention` reads, to the last digit."""
    return "/".join(",".join(map(repr, values)) for values in (convention.mean, convention.std))


def _parse_numbers(text: str, given: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise UsageError(f"--normalise {given!r}: give {', '.join((AUTO, *NAMED))}, {_NUMBERS}")
    return numbers


def _repeat(values: tuple[float, ...], entries: int) -> tuple[float, ...]:
    return values if len(values) == entries else values * entries


def _join(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
