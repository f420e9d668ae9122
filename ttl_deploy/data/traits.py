"""What a look at every file tells: its size, type and encoding, its border and brightness, and what it resembles."""

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttl_deploy import pixels
from ttl_deploy.data.decoding import WORTH_PROCESSES
from ttl_deploy.data.near_duplicates import HASH_SIDE, THUMBNAIL_SIDE, WORDS, hash_image
from ttl_deploy.errors import UnreadableImageError
from ttl_deploy.plugins import Progress
from ttl_deploy.records.data import DecodeSettings

LOOK = DecodeSettings(image_size=256, fit="stretch")
"""How an image is looked at: all of it, whatever its shape."""
TRAITS = np.dtype(
    [
        ("width", np.int32),
        ("height", np.int32),
        ("size_bytes", np.int64),
        ("format", "U8"),
        ("mode", "U8"),
        ("compression", np.int32),  # sum of a JPEG's quantisation steps: high where its quality is low; else 0
        ("border", np.float32),  # mean grey value of the outer strip
        ("black_border", np.float32),  # share of the strip that is black
        ("darkest", np.uint8),
        ("brightest", np.uint8),
        ("mean", np.float32),
        ("hash", np.uint16, (WORDS,)),
        ("thumbnail", np.uint8, (THUMBNAIL_SIDE, THUMBNAIL_SIDE)),
    ]
)
Traits = NDArray[np.void]
"""A structured array of `TRAITS`."""
STRIP = 0.02
"""Width of the outer strip, as a share of the side."""
_BLACK = 8
_CHUNK = 64

Look = tuple[dict[int, Traits], dict[int, str]]
"""Traits of the files that decode, and the sentence about those that do not, by position."""


def look_at(root: Path, paths: Sequence[str], *, workers: int | None = None, progress: Progress | None = None) -> Look:
    """Decode every file once and return what it tells, in about a kilobyte per image.

    Raises `UnreadableImageError` only where a file crashes its decoder.
    """
    jobs = [(position, str(root / path)) for position, path in enumerate(paths)]
    chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    found: dict[int, Traits] = {}
    failed: dict[int, str] = {}
    processes = workers or os.cpu_count() or 1
    many = processes > 1 and len(jobs) >= WORTH_PROCESSES
    for traits, failures in _in_processes(chunks, processes) if many else map(_look_at_chunk, chunks):
        found |= traits
        failed |= failures
        if progress:
            progress("looking at the images", len(found) + len(failed), len(jobs))
    return found, failed


def _in_processes(chunks: Sequence[Sequence[tuple[int, str]]], workers: int) -> Iterator[Look]:
    pool = ProcessPoolExecutor(
        min(workers, len(chunks)),
        mp_context=get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),  # an interrupt is for the parent
    )
    try:
        futures = {pool.submit(_look_at_chunk, chunk): chunk for chunk in chunks}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool as error:
                raise UnreadableImageError(
                    f"a process that decodes images died near {futures[future][0][1]}: a file that crashes "
                    "its decoder, or too little memory"
                ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _look_at_chunk(jobs: Sequence[tuple[int, str]]) -> Look:
    found: dict[int, Traits] = {}
    failed: dict[int, str] = {}
    for position, name in jobs:
        try:
            found[position] = describe(pixels.read_bytes(Path(name)), name=name)
        except UnreadableImageError as error:
            failed[position] = str(error)
    return found, failed


def describe(content: bytes, *, name: str) -> Traits:
    """Return the traits of one file's content, an array without dimensions."""
    decoded = pixels.decode_bytes(content, LOOK, name=name)
    grey = np.asarray(Image.fromarray(decoded).convert("L"))
    strip = _outer_strip(grey)
    traits = np.zeros((), dtype=TRAITS)
    header = pixels.read_header(content, name=name)
    traits["width"], traits["height"] = header.width, header.height
    traits["format"], traits["mode"] = header.format, header.mode
    traits["compression"] = header.quantisation
    traits["size_bytes"] = len(content)
    traits["border"], traits["black_border"] = strip.mean(), (strip <= _BLACK).mean()
    traits["darkest"], traits["brightest"], traits["mean"] = grey.min(), grey.max(), grey.mean()
    small = _shrink(grey.astype(np.float64), HASH_SIDE)
    traits["hash"] = hash_image(small)
    traits["thumbnail"] = _stretch_contrast(_shrink(small, THUMBNAIL_SIDE))
    return traits


def _outer_strip(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    width = max(1, round(STRIP * len(grey)))
    inside = np.zeros(grey.shape, dtype=bool)
    inside[width:-width, width:-width] = True
    return grey[~inside]


def _shrink(image: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Average the squares of an image whose side is a multiple of `side`."""
    step = len(image) // side
    return np.asarray(image.reshape(side, step, side, step).mean(axis=(1, 3)))


def _stretch_contrast(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Spread the values over 0..255, so that rounding loses little of a pale image."""
    low, high = image.min(), image.max()
    return np.asarray((image - low) * (255 / max(high - low, 1.0))).round().astype(np.uint8)
