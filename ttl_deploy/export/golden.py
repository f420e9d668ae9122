"""Synthetic images that travel with an artifact: drawn by code, so that no patient's image ever leaves with it."""

import numpy as np
from numpy.typing import NDArray

COUNT = 12


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


def _noise(height: int, width: int, *, cell: int) -> NDArray[np.uint8]:
    """Draw coloured noise in squares of `cell` pixels."""
    rng = np.random.Generator(np.random.PCG64(cell))
    rows, columns = -(-height // cell), -(-width // cell)
    coarse = rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    return coarse.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width]
