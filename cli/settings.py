"""From a command's options, wherever they were given, to `SearchSettings`."""

import dataclasses
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.models.input_conventions import check_normalise
from ttl_deploy.records.data import DecodeSettings, Reading
from ttl_deploy.records.stages import STAGES
from ttl_deploy.records.trials import Augmentation, SearchSettings, TrainSettings

from .quantities import parse_count, parse_duration_s
from .reading_options import OPTIONS as READING_OPTIONS
from .reading_options import read_reading

T = TypeVar("T")
_DECODE = {field.name for field in dataclasses.fields(DecodeSettings)}
_TRAIN = {field.name for field in dataclasses.fields(TrainSettings)} - {"augmentation"}
_AUGMENT = {field.name for field in dataclasses.fields(Augmentation)}
_SEARCH = {field.name for field in dataclasses.fields(SearchSettings)} - {
    "decode",
    "reading",
    "fold",
    "train",
    "strategies",
    "image_sizes",
    "widths",
    "speedups",
    "max_latency_s",
    "max_params",
    "max_macs",
}
_LIMITS = {"max_latency", "max_params", "max_macs"}
OPTIONS = _SEARCH | _DECODE | _TRAIN | _AUGMENT | _LIMITS | READING_OPTIONS | {"strategy", "width", "speedup"}
"""The options that decide the result; their names are the flags' with underscores."""


def build_settings(given: Mapping[str, Any]) -> SearchSettings:
    """Return the settings that options ask for (None means not given); raises `UsageError` for what does not fit."""
    merged = {name: _parse(name, value) for name, value in given.items() if value is not None}
    for needed in ("backbone", "data"):
        if needed not in merged:
            raise UsageError(
                f"--{needed} is missing: give it on the command line, in a --config file, or as "
                f"TTL_DEPLOY_{needed.upper()}"
            )
    _check_choices(merged)
    _check_imbalance(merged)
    try:
        sizes = sorted(_as_tuple(merged.get("image_size", 224)), reverse=True)
        decode = _convert(DecodeSettings, _only(merged, _DECODE) | {"image_size": sizes[0]})
        augmentation = _convert(Augmentation, _only(merged, _AUGMENT))
        train = _convert(
            TrainSettings, _weights_default(merged) | _only(merged, _TRAIN) | {"augmentation": augmentation}
        )
        strategies = {"strategies": merged["strategy"]} if "strategy" in merged else {}
        axes = {
            "image_sizes": tuple(sizes[1:]),
            "widths": _as_tuple(merged.get("width", ())),
            "speedups": _as_tuple(merged.get("speedup", ())),
        }
        parts = {"decode": decode, "train": train, "reading": read_reading(merged)}
        fields = _only(merged, _SEARCH) | parts | strategies | axes | _limits(merged)
        settings = _convert(SearchSettings, fields)
    except (msgspec.ValidationError, ValueError) as error:
        raise UsageError(f"cannot use these settings: {error}") from error
    check_normalise(settings.normalise)
    return settings


def parse_cuts(text: str) -> tuple[str, ...]:
    """Return the cuts of a comma-separated list."""
    cuts = tuple(name.strip() for name in text.split(",") if name.strip())
    if not cuts:
        raise UsageError(
            "--cuts is empty: give all, stages, or names separated by commas (`ttl-deploy cuts` lists them)"
        )
    return cuts


def parse_strategies(text: str) -> tuple[str, ...]:
    """Return the strategies, with their options, of a comma-separated list."""
    strategies = tuple(name.strip() for name in text.split(",") if name.strip())
    if not strategies:
        raise UsageError("--strategy is empty: give full, or others separated by commas (see docs/strategies.md)")
    return strategies


def parse_gpus(text: str | None) -> tuple[int, ...]:
    """Return the GPUs' numbers of a comma-separated list; none where nothing is given."""
    numbers = tuple(part.strip() for part in text.split(",")) if text is not None else ()
    if not all(number.isascii() and number.isdigit() for number in numbers) or len(set(numbers)) != len(numbers):
        raise UsageError(f"--gpus {text!r}: give different numbers of GPUs, such as 0,1 (`nvidia-smi -L` lists them)")
    return tuple(int(number) for number in numbers)


def parse_stages(text: str) -> tuple[str, ...]:
    """Return the stages of a comma-separated list; none for an empty text."""
    stages = tuple(name.strip() for name in text.split(",") if name.strip())
    for stage in stages:
        if stage not in STAGES:
            raise UnknownNameError("stage", stage, STAGES)
    return stages


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of a comma-separated list."""
    try:
        seeds = tuple(int(seed) for seed in text.split(","))
    except ValueError as error:
        raise UsageError(f"--seeds {text!r} is not a list of whole numbers such as 0,1,2") from error
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UsageError(f"--seeds {text!r}: give different numbers from 0 up, such as 0,1,2")
    return seeds


def parse_image_sizes(text: str) -> tuple[int, ...]:
    """Return the sizes of a comma-separated list, in pixels."""
    return tuple(int(size) for size in _parse_numbers("image-size", text, kind=int, like="224 or 160,224"))


def parse_shares(text: str) -> tuple[float, ...]:
    """Return the widths of a comma-separated list."""
    return _parse_numbers("width", text, kind=float, like="0.5 or 0.5,0.25")


def parse_speedups(text: str) -> tuple[float, ...]:
    """Return the factors of a comma-separated list such as `2x,3x`."""
    return _parse_numbers("speedup", text.replace("x", "").replace("X", ""), kind=float, like="2x or 2x,3x")


def _parse_numbers(name: str, text: str, *, kind: Callable[[str], float], like: str) -> tuple[float, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--{name} {text!r}: give numbers such as {like}") from error


def _as_tuple(value: Any) -> tuple[Any, ...]:
    """Return the values of an option that takes one or several."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)


_LISTS: Mapping[str, Callable[[str], tuple[object, ...]]] = {
    "cuts": parse_cuts,
    "seeds": parse_seeds,
    "skip": parse_stages,
    "strategy": parse_strategies,
    "image_size": parse_image_sizes,
    "width": parse_shares,
    "speedup": parse_speedups,
}


def _check_choices(merged: Mapping[str, Any]) -> None:
    """Refuse a word that is none of an option's few, with the nearest of them."""
    for record in (DecodeSettings, TrainSettings, Augmentation, SearchSettings, Reading):
        for name, kind in get_type_hints(record).items():
            allowed = get_args(kind)
            if get_origin(kind) is not Literal or name not in merged or merged[name] in allowed:
                continue
            near = get_close_matches(str(merged[name]), allowed, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"--{name.replace('_', '-')} {merged[name]}: allowed are {', '.join(allowed)}{hint}")


def _check_imbalance(merged: Mapping[str, Any]) -> None:
    """Refuse options that would not be used, or that contradict each other."""
    if "focal_gamma" in merged and merged.get("loss") != "focal":
        raise UsageError("--focal-gamma is for the focal loss: add --loss focal, or leave it out")
    if "limit_train" in merged and "train_fraction" in merged:
        raise UsageError("--limit-train and --train-fraction both say how much to train on: give one of them")


def _weights_default(merged: Mapping[str, Any]) -> dict[str, Any]:
    """Return the class weights for when none are given: balanced sampling wants none, or rare classes count twice."""
    return {"class_weights": "none"} if merged.get("sampling") == "balanced" else {}


def _limits(merged: Mapping[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    if "max_latency" in merged:
        parsed["max_latency_s"] = parse_duration_s(str(merged["max_latency"]))
    for name in ("max_params", "max_macs"):
        if name in merged:
            parsed[name] = parse_count(str(merged[name]))
    return parsed


def _parse(name: str, value: Any) -> Any:
    """Return an option's value, a list with commas as its parts."""
    return _LISTS[name](value) if isinstance(value, str) and name in _LISTS else value


def _only(merged: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in merged.items() if name in names}


def _convert(kind: type[T], fields: Mapping[str, Any]) -> T:
    return msgspec.convert(fields, type=kind)
