"""Synthetic images that travel with an artifact: drawn by code, so that no patient's image ever leaves with it."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.records.artifacts import Gate
from ttl_deploy.runtime.parity import PARITY_LIMIT

COUNT = 12
_SHARE_OF_SPREAD = 0.1
_FOREIGN_TIMES = 2.5
_LARGEST_FOREIGN_LIMIT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The synthetic images and the torch model's probabilities for them."""

    images: NDArray[np.uint8]
    probabilities: NDArray[np.float32]


def golden_images(height: int, width: int) -> NDArray[np.uint8]:
    """Draw twelve images `(12, H, W, 3)`: black, white, gradients, stripes, a disc, noise of several scales.

    The same for the same size, on every machine: integers and the seeded generator only.
    """
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        np.zeros((height, width)),
        np.full((height, width), 255),
        x * 255 // max(1, width - 1),
        y * 255 // max(1, height - 1),
        (x + y) * 255 // max(1, width + height - 2),
        (x // 4 % 2) * 255,
        ((x // 8 + y // 8) % 2) * 255,
        np.where((2 * x - width) ** 2 + (2 * y - height) ** 2 < min(height, width) ** 2 // 2, 200, 40),
    ]
    grey = [np.repeat(plane[..., None], 3, axis=2).astype(np.uint8) for plane in planes]
    return np.stack([*grey, *(_noise(height, width, cell=cell) for cell in (1, 2, 8, 32))])


def set_limits(gate: Gate | None, given: NDArray[np.float32], golden: Golden) -> Gate | None:
    """Limit how far the finished file may lie from what it said, by how much its answers to the golden images vary.

    A network whose probabilities hardly move would pass any fixed limit. Other targets may round up to twice as
    differently as this one does from single precision.
    """
    if gate is None:
        return None
    spread = float(np.ptp(given, axis=0).max())
    at_home = float(np.clip(_SHARE_OF_SPREAD * spread, PARITY_LIMIT, gate.golden_limit))
    own = float(np.abs(given - golden.probabilities).max())
    abroad = float(np.clip(2 * own, _FOREIGN_TIMES * at_home, _LARGEST_FOREIGN_LIMIT))
    return replace(gate, golden_limit=at_home, foreign_golden_limit=abroad)


def _noise(height: int, width: int, *, cell: int) -> NDArray[np.uint8]:
    """Draw coloured noise in squares of `cell` pixels."""
    rng = np.random.Generator(np.random.PCG64(cell))
    rows, columns = -(-height // cell), -(-width // cell)
    coarse = rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    return coarse.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width]
