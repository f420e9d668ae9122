"""Quantities as people type them: `5ms`, `2M`, `1.5G`."""

import re

from ttl_deploy.errors import UsageError

_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_COUNTS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_QUANTITY = re.compile(r"^\s*([0-9]*\.?[0-9]+)\s*([a-zµ]*)\s*$", re.IGNORECASE)


def parse_duration_s(text: str) -> float:
    """Return seconds for `5ms`, `800us` or `0.01s`; a bare number is refused, because its unit is unknown."""
    number, unit = _split(text, "a duration such as 5ms, 800us or 0.01s")
    if unit not in _SECONDS:
        raise UsageError(f"{text!r} is not a duration: write a unit, such as 5ms, 800us or 0.01s")
    return number * _SECONDS[unit]


def parse_count(text: str) -> int:
    """Return a whole number for `2M`, `500k` or `1.5G`."""
    number, unit = _split(text, "a count such as 2M, 500k or 1000000")
    if unit not in _COUNTS:
        raise UsageError(f"{text!r} is not a count: write 2M, 500k or 1000000")
    return round(number * _COUNTS[unit])


def _split(text: str, allowed: str) -> tuple[float, str]:
    found = _QUANTITY.match(text)
    if not found or float(found.group(1)) <= 0:
        raise UsageError(f"{text!r} is not {allowed}")
    return float(found.group(1)), found.group(2).lower()
