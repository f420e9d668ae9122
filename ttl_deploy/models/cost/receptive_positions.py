"""Which pixels the positions of a tensor depend on, as intervals along the two sides of the image."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The first and last pixel, along one side of the image, that each position depends on.

    `step` is by how many pixels neighbouring positions are apart. It continues the intervals beyond the
    border, as if the map went on there.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    step: int

    def slide(self, *, kernel: int, stride: int, padding: int, dilation: int, length: int) -> "Axis":
        """Return the `length` positions of a window that slides over this axis."""
        taps = np.arange(length)[:, None] * stride - padding + np.arange(kernel) * dilation
        inside = taps.clip(0, len(self.low) - 1)
        beyond = (taps - inside) * self.step
        low, high = (self.low[inside] + beyond).min(1), (self.high[inside] + beyond).max(1)
        return Axis(low=low, high=high, step=self.step * stride)

    def unite(self, other: "Axis") -> "Axis":
        """Return what positions depend on that are computed from both; raises `NotFollowed` if they do not match."""
        if len(self.low) != len(other.low) or self.step != other.step:
            raise NotFollowed
        return replace(self, low=np.minimum(self.low, other.low), high=np.maximum(self.high, other.high))

    def unite_within(self, groups: NDArray[np.int64]) -> "Axis":
        """Return what positions depend on that see all those with the same number in `groups`."""
        same = groups[:, None] == groups
        low = np.where(same, self.low, self.low.max()).min(1)
        return replace(self, low=low, high=np.where(same, self.high, self.high.min()).max(1))

    def pool(self, length: int) -> "Axis":
        """Return `length` positions that divide this axis among them, as adaptive pooling does."""
        ends = np.arange(length + 1) * len(self.low)
        cells = [slice(start // length, -(-stop // length)) for start, stop in pairwise(ends)]
        low = np.array([self.low[cell].min() for cell in cells])
        high = np.array([self.high[cell].max() for cell in cells])
        return Axis(low=low, high=high, step=self.step * len(self.low) // length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """What the positions of a tensor depend on, and where in the tensor they lie.

    Attributes:
        dims: the tensor's dimensions that positions lie in, counted from the end: height and width of a
            map; the one of the tokens; the window's number and the number within the window.
        form: in a scattered map positions are not at equal distances.
        window: side of the windows in positions.
    """

    rows: Axis
    columns: Axis
    dims: tuple[int, ...]
    form: Literal["map", "scattered", "tokens", "windows"] = "map"
    window: int = 0


WHOLE: Literal["whole"] = "whole"
Field = Positions | Literal["whole"]


class NotFollowed(Exception):  # noqa: N818 # no error: the field is just not known
    """Raised where an operation does something with positions that is not followed here."""
