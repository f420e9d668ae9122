"""Engine options as people type them."""

import re

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.records.engines import (
    CURRENT,
    FLAVOURS,
    HARDWARE_LEVELS,
    BatchRange,
    EngineOptions,
    EngineRequest,
    Flavour,
    HardwareLevel,
)

_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"^\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*$")
_CAPABILITY = re.compile(r"^\d{1,2}\.\d$")


def parse_request(
    *,
    flavour: str,
    batch: str = "1,1,16",
    workspace: str | None = None,
    builder_level: int | None = None,
    timing_cache: str | None = None,
    version_compatible: bool = False,
    hardware_compatible: str = "none",
    compute_capabilities: str = "",
) -> EngineRequest:
    """Return what was typed as a request; raises `UsageError` saying what is allowed."""
    try:
        options = EngineOptions(
            batch=parse_batch(batch),
            workspace_bytes=None if workspace is None else parse_size(workspace),
            builder_level=builder_level,
            version_compatible=version_compatible,
            hardware=parse_hardware(hardware_compatible),
            compute_capabilities=parse_capabilities(compute_capabilities),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    return EngineRequest(flavour=parse_flavour(flavour), options=options, timing_cache=timing_cache)


def parse_flavour(text: str) -> Flavour:
    """Return `trt` or `rtx`."""
    for flavour in FLAVOURS:
        if text == flavour:
            return flavour
    raise UnknownNameError("flavour", text, FLAVOURS, "trt is TensorRT, rtx is TensorRT for RTX.")


def parse_batch(text: str) -> BatchRange:
    """Return the range for `MIN,OPT,MAX`, or for a single size that is all three."""
    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"--batch {text}: give MIN,OPT,MAX such as 1,1,16, or one size")
    smallest, usual, largest = (int(part) for part in (parts if len(parts) == 3 else parts * 3))
    return BatchRange(smallest=smallest, usual=usual, largest=largest)


def parse_size(text: str) -> int:
    """Return bytes for `2GiB` or `512MiB`; a bare number is refused, because its unit is unknown."""
    found = _SIZE.match(text)
    if not found or found.group(2) not in _UNITS or float(found.group(1)) <= 0:
        raise UsageError(f"{text!r} is not a size: give one such as 2GiB or 512MiB ({', '.join(_UNITS)})")
    return round(float(found.group(1)) * _UNITS[found.group(2)])


def parse_hardware(text: str) -> HardwareLevel:
    """Return a hardware compatibility level."""
    for level in HARDWARE_LEVELS:
        if text == level:
            return level
    raise UnknownNameError("hardware compatibility", text, HARDWARE_LEVELS)


def parse_capabilities(text: str) -> tuple[str, ...]:
    """Return the compute capabilities in `8.6,8.9`, or `current` alone."""
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if parts != (CURRENT,) and not all(_CAPABILITY.match(part) for part in parts):
        raise UsageError(f"--compute-capability {text}: give some such as 8.6,8.9, or {CURRENT} alone")
    return parts
