"""Lookup tables and windows of DICOM headers, read with the mistakes that real files make."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.pixels.greys import Values

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


class DicomFaultError(ValueError):
    """A reason not to decode a file, in words that hold numbers and no text of its tags."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupTable:
    """`entries[i]`, of `bits` bits, stands for the value `first + i`; values beyond take the ends' (C.11.1.1)."""

    first: int
    entries: NDArray[np.uint16]
    bits: int

    @property
    def top(self) -> int:
        """The largest value that the table's bits allow."""
        return (1 << self.bits) - 1

    def look_up(self, values: Values) -> Values:
        """Return the entries of values, which are rounded half up to whole ones."""
        whole = np.floor(values + 0.5).astype(np.int64) - self.first
        return self.entries[np.clip(whole, 0, len(self.entries) - 1)].astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiWindow:
    """A window as a file gives it; `function` is one of the three of C.11.2.1.2 and C.11.2.1.3."""

    centre: float
    width: float
    function: str

    def __post_init__(self) -> None:
        least = "1 or more" if self.function == "LINEAR" else "more than 0"
        if not math.isfinite(self.centre) or not math.isfinite(self.width):
            raise DicomFaultError("its window is not a pair of finite numbers")
        if self.width < 1 if self.function == "LINEAR" else self.width <= 0:
            raise DicomFaultError(f"its window width is {self.width:g}; a {self.function} window has {least}")


def read_table(items: Any, *, what: str, signed: bool, little_endian: bool) -> LookupTable | None:
    """Return the first table of a sequence, None where there is none; `signed` are the values it maps."""
    if not items:
        return None
    item = items[0]
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count % 65536 or 65536  # 65,536 entries are written as 0
    if not 8 <= bits <= 16:
        raise DicomFaultError(f"its {what} has entries of {bits} bits; allowed are 8 to 16")
    entries = _read_entries(item["LUTData"].value, count, little_endian=little_endian, what=what)
    table = LookupTable(first=_correct_sign(first, signed=signed), entries=entries, bits=bits)
    if (highest := int(entries.max())) > table.top:
        raise DicomFaultError(f"its {what} says {bits} bits and holds {highest}")
    return table


def _correct_sign(first: int, *, signed: bool) -> int:
    """Read the first value, whose type depends on what is mapped, with the right sign."""
    if signed and first > 32767:
        return first - 65536
    return first + 65536 if not signed and first < 0 else first


def _read_entries(content: Any, count: int, *, little_endian: bool, what: str) -> NDArray[np.uint16]:
    """Return the entries from bytes, one or two for each, or from whole numbers."""
    order = "<u2" if little_endian else ">u2"
    if not isinstance(content, bytes):
        numbers = content if isinstance(content, int) else list(content)
        content = (np.atleast_1d(np.asarray(numbers, dtype=np.int64)) % 65536).astype(order).tobytes()
    if len(content) >= 2 * count:
        return np.frombuffer(content, order, count).astype(np.uint16)
    if len(content) in (count, count + count % 2):
        return np.frombuffer(content, np.uint8, count).astype(np.uint16)
    raise DicomFaultError(f"its {what} says {count} entries and holds {len(content)} bytes")


def read_window(dataset: Any) -> VoiWindow | None:
    """Return the first of a file's windows, None where it has none."""
    centre, width = (_first_number(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in _FUNCTIONS:
        raise DicomFaultError(f"its VOI LUT function is unknown; allowed are {', '.join(_FUNCTIONS)}")
    return VoiWindow(centre=centre, width=width, function=function)


def read_rescale(dataset: Any) -> tuple[float, float] | None:
    """Return slope and intercept; a missing one is 1 or 0, None where both are."""
    slope, intercept = (_first_number(dataset.get(name)) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope is None and intercept is None:
        return None
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        raise DicomFaultError(f"its rescale slope is {slope:g} and its intercept {intercept:g}; then no grey is left")
    return slope, intercept


def _first_number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, (str, bytes)) or not hasattr(value, "__getitem__"):
        return float(value)
    return float(value[0]) if len(value) and value[0] not in (None, "") else None
