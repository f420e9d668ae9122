"""From grey values of any depth to 8 bits: ramps, percentiles, and a table that is looked up once per pixel.

All is double-precision addition, multiplication and division in a fixed order, so every machine
computes the same bits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.records.grey import GreyPercentiles, GreyWindow

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """Black up to `low`, white from `low + span` on, linear between; a step at `low` where `span` is 0."""

    low: float
    span: float

    def shade(self, values: Values, *, inverse: bool) -> Values:
        """Return values in 0..255, the lowest ones black, or white where `inverse`."""
        if self.span == 0:
            return np.where((values > self.low) != inverse, 255.0, 0.0)
        scale = 255.0 / self.span
        shaded = (self.low - values) * scale + 255.0 if inverse else (values - self.low) * scale
        return np.clip(shaded, 0.0, 255.0)


def window_ramp(window: GreyWindow) -> Ramp:
    """Return the ramp of a linear window (DICOM PS3.3 C.11.2.1.2.1)."""
    return Ramp(low=window.centre - window.width / 2, span=window.width - 1)


def percentile_ramp(values: Values, counts: NDArray[np.int64], percentiles: GreyPercentiles) -> Ramp:
    """Return the ramp between two percentiles of an image whose pixels take `values` so many times each.

    A percentile is the smallest value with at least that share of the pixels at or below it.
    """
    values, counts = values[counts > 0], counts[counts > 0]
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    low, high = (
        values[order][min(np.searchsorted(below, share / 100 * below[-1]), len(values) - 1)]
        for share in (percentiles.low, percentiles.high)
    )
    return Ramp(low=float(low), span=float(high - low))


def round_half_up(shaded: Values) -> NDArray[np.uint8]:
    """Round values in 0..255 to bytes."""
    return np.floor(shaded + 0.5).astype(np.uint8)


def look_up(stored: NDArray[np.integer], table: NDArray[np.uint8], *, first: int) -> NDArray[np.uint8]:
    """Replace every stored value by its entry; `table[0]` is that of the value `first`."""
    return table[stored.astype(np.int64) - first]


def count_values(stored: NDArray[np.integer], *, first: int, last: int) -> NDArray[np.int64]:
    """Count how often each value from `first` to `last` occurs."""
    return np.bincount((stored.astype(np.int64) - first).ravel(), minlength=last - first + 1).astype(np.int64)
