"""From stored values to greys: modality, values of interest and presentation, in the order of DICOM PS3.4 N.2."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.pixels.dicom_tables import (
    DicomFaultError,
    LookupTable,
    VoiWindow,
    read_rescale,
    read_table,
    read_window,
)
from ttl_deploy.pixels.greys import (
    Ramp,
    Values,
    count_values,
    look_up,
    percentile_ramp,
    round_half_up,
    window_ramp,
)
from ttl_deploy.records.grey import Grey, GreyPercentiles, GreyWindow

_OF_TWELVE_BITS = 4095


@dataclass(frozen=True, slots=True, kw_only=True)
class GreySteps:
    """What a file says of its greys. Of several windows or tables it is the first.

    `voi` is the table of the values of interest, the window, or the reason why the file's cannot be
    used. `padding` are the smallest and the largest stored value that stand for no tissue.
    """

    modality: LookupTable | tuple[float, float] | None
    voi: LookupTable | VoiWindow | DicomFaultError | None
    padding: tuple[int, int] | None
    inverse: bool


def read_grey_steps(dataset: Any, *, signed: bool, little_endian: bool) -> GreySteps:
    """Read the steps from a header whose stored values are `signed` or not."""
    places = list(_places(dataset))
    table = read_table(
        dataset.get("ModalityLUTSequence"), what="modality LUT", signed=signed, little_endian=little_endian
    )
    rescale = next(filter(None, map(read_rescale, places)), None)
    negative = table is None and (signed or (rescale is not None and min(rescale) < 0))
    return GreySteps(
        modality=table or rescale,
        voi=_read_voi(dataset, places, signed=negative, little_endian=little_endian),
        padding=_read_padding(dataset, signed=signed),
        inverse=_read_inverse(dataset),
    )


def _places(dataset: Any) -> Iterator[Any]:
    """Yield where windows and rescales can stand: the top, and the groups of enhanced objects."""
    yield dataset
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (dataset.get(groups) or [])[:1]:
            for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
                yield from (group.get(name) or [])[:1]


def _read_voi(
    dataset: Any, places: list[Any], *, signed: bool, little_endian: bool
) -> LookupTable | VoiWindow | DicomFaultError | None:
    """Return the table, else the window; a fault is kept, as it does not matter to another mapping."""
    try:
        table = read_table(dataset.get("VOILUTSequence"), what="VOI LUT", signed=signed, little_endian=little_endian)
        return table or next(filter(None, map(read_window, places)), None)
    except DicomFaultError as fault:
        return fault


def _read_padding(dataset: Any, *, signed: bool) -> tuple[int, int] | None:
    """Return the padding values' ends; they are of the same kind as the pixels (C.7.5.1.1.2)."""
    value = dataset.get("PixelPaddingValue")
    if value is None or value == "":
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [_as_stored(end, signed=signed) for end in (value, value if limit in (None, "") else limit)]
    return min(ends), max(ends)


def _as_stored(value: Any, *, signed: bool) -> int:
    """Read a value, the first of several, with the pixels' own sign."""
    number = int(value[0] if hasattr(value, "__getitem__") else value) % 65536
    return number - 65536 if signed and number > 32767 else number


def _read_inverse(dataset: Any) -> bool:
    """Tell whether low values are light; a presentation shape overrules the photometric interpretation."""
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    if shape:
        return shape == "INVERSE"
    return str(dataset.PhotometricInterpretation).strip().upper() == "MONOCHROME1"


def shade_greys(
    stored: NDArray[np.integer], steps: GreySteps, grey: Grey, *, limits: tuple[int, int]
) -> NDArray[np.uint8]:
    """Turn stored values `(H, W)` into greys of 8 bits, padding into black.

    `limits` are the smallest and largest value that the stored bits can hold. Each value that occurs goes
    through the steps once. Raises `DicomFaultError` where the file's own window is needed and cannot be used.
    """
    first, last = int(stored.min()), int(stored.max())
    numbers = np.arange(first, last + 1, dtype=np.int64)
    counts = count_values(stored, first=first, last=last)
    padding = np.zeros(numbers.shape, dtype=bool)
    if steps.padding is not None:
        padding = (numbers >= steps.padding[0]) & (numbers <= steps.padding[1])
    counts[padding] = 0
    values = _modality(steps, numbers.astype(np.float64))
    table = round_half_up(_shade(steps, values, counts, grey, _modality_range(steps, limits)))
    table[padding] = 0
    return look_up(stored, table, first=first)


def _modality(steps: GreySteps, values: Values) -> Values:
    if isinstance(steps.modality, LookupTable):
        return steps.modality.look_up(values)
    slope, intercept = steps.modality or (1.0, 0.0)
    return values * slope + intercept


def _modality_range(steps: GreySteps, limits: tuple[int, int]) -> tuple[float, float]:
    """Return the smallest and the largest value that the modality step can give."""
    if isinstance(steps.modality, LookupTable):
        return 0.0, float(steps.modality.top)
    slope, intercept = steps.modality or (1.0, 0.0)
    ends = [limit * slope + intercept for limit in limits]
    return min(ends), max(ends)


def _shade(
    steps: GreySteps, values: Values, counts: NDArray[np.int64], grey: Grey, span: tuple[float, float]
) -> Values:
    low, high = span
    own = grey == "auto" or (low >= 0 and high <= 255)  # what has 8 bits already is mapped as the file says
    if own and isinstance(steps.voi, DicomFaultError):
        raise steps.voi
    if own and isinstance(steps.voi, LookupTable):
        shaded = steps.voi.look_up(values) * (255.0 / steps.voi.top)
        return 255.0 - shaded if steps.inverse else shaded
    if own and isinstance(steps.voi, VoiWindow):
        return _through_window(steps.voi, values, inverse=steps.inverse)
    if not own and isinstance(grey, GreyWindow):
        ramp = window_ramp(grey)
    elif not own and isinstance(grey, GreyPercentiles) and counts.any():
        ramp = percentile_ramp(values, counts, grey)
    else:
        ramp = _full_ramp(steps, values, counts, span, by_content=own)
    return ramp.shade(values, inverse=steps.inverse)


def _through_window(window: VoiWindow, values: Values, *, inverse: bool) -> Values:
    """Apply a file's window (C.11.2.1.2.1 linear, C.11.2.1.3.1 sigmoid, C.11.2.1.3.2 linear exact)."""
    if window.function == "SIGMOID":
        beyond = window.centre - values if inverse else values - window.centre
        return 255.0 / (1.0 + np.exp(np.clip(-4.0 * beyond / window.width, -700.0, 700.0)))
    if window.function == "LINEAR":
        return window_ramp(GreyWindow(centre=window.centre, width=window.width)).shade(values, inverse=inverse)
    return Ramp(low=window.centre - window.width / 2, span=window.width).shade(values, inverse=inverse)


def _full_ramp(
    steps: GreySteps, values: Values, counts: NDArray[np.int64], span: tuple[float, float], *, by_content: bool
) -> Ramp:
    """Return the ramp over all that the bits can hold; 16 bits that only use 12 count as 12, as in other files."""
    low, high = span
    plain = steps.modality in (None, (1.0, 0.0)) and (low, high) == (0.0, 65535.0)
    if by_content and plain and counts.any() and values[counts > 0].max() <= _OF_TWELVE_BITS:
        return Ramp(low=0.0, span=float(_OF_TWELVE_BITS))
    return Ramp(low=low, span=high - low)
