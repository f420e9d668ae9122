"""Image files drawn by code, for end-to-end benchmarks where none are given: smooth shapes with grain, like films."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COUNT = 8
_SIDE = 1024
_COARSE = 16
_GRAIN = 6.0


def draw_images(folder: Path, *, count: int = _COUNT, side: int = _SIDE) -> tuple[Path, ...]:
    """Write `count` greyscale PNG files of `side` x `side` pixels, always the same ones."""
    paths = tuple(folder / f"drawn-{number}.png" for number in range(count))
    for number, path in enumerate(paths):
        Image.fromarray(_draw(np.random.default_rng(number), side)).save(path)
    return paths


def _draw(generator: np.random.Generator, side: int) -> NDArray[np.uint8]:
    coarse = generator.integers(0, 256, (_COARSE, _COARSE), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64)
    return np.clip(smooth + generator.normal(0.0, _GRAIN, (side, side)), 0, 255).astype(np.uint8)
