"""Every distinct image decoded once, into one memory-mapped array."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import PIL
from filelock import FileLock
from numpy.typing import NDArray

from ttl_deploy.data.cache_root import cache_errors, cache_folder, require_space
from ttl_deploy.data.decoding import Destination, Job, decode_all
from ttl_deploy.errors import StorageError, UnreadableImageError
from ttl_deploy.files import make_folder, publish_text, sha256_bytes, sync_folder
from ttl_deploy.pixels import PIXELS_VERSION
from ttl_deploy.plugins import Progress
from ttl_deploy.records import codec
from ttl_deploy.records.data import DecodeSettings, Manifest

_ARRAY = "pixels.npy"
_INDEX = "index.json"
_NAMED = 10


class PixelCache:
    """Decoded images of a manifest, opened read-only; pickles as its path, so processes share the pages.

    `array` is `(distinct images, S, S, 3)` uint8 on disk, `rows[i]` the row of sample i of the
    manifest that the cache was opened for.
    """

    def __init__(
        self, path: Path, settings: DecodeSettings, *, array: NDArray[np.uint8], rows: NDArray[np.intp]
    ) -> None:
        self.path = path
        self.settings = settings
        self.array = array
        self.rows = rows

    @classmethod
    def load(cls, path: Path) -> Self:
        """Open a finished cache folder, verified; raises `StorageError` where it is missing or damaged."""
        try:
            index = json.loads((path / _INDEX).read_text(encoding="utf-8"))
            settings = codec.from_builtins(DecodeSettings, index["settings"], source=str(path / _INDEX))
            hashes: list[str] = index["hashes"]
            array = np.load(path / _ARRAY, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, LookupError, TypeError, EOFError) as error:
            raise StorageError(
                f"the pixel cache {path} is missing or damaged ({error}): delete it and try again"
            ) from error
        distinct = _distinct(hashes)
        side = settings.image_size
        if (
            array.dtype != np.uint8
            or array.shape != (len(distinct), side, side, 3)
            or path.name != _key(hashes, settings)
        ):
            raise StorageError(f"the pixel cache {path} does not hold what its index says: begin again")
        rows = np.array([distinct[sha256] for sha256 in hashes], dtype=np.intp)
        return cls(path, settings, array=array, rows=rows)

    def pixels(self, positions: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Copy the images of these samples of the manifest, `(n, S, S, 3)` uint8 RGB."""
        chosen: NDArray[np.uint8] = self.array[self.rows[np.asarray(positions, dtype=np.intp)]]
        return np.ascontiguousarray(chosen)

    def __reduce__(self) -> tuple[object, ...]:
        return PixelCache.load, (self.path,)


def open_cache(
    manifest: Manifest, settings: DecodeSettings, *, workers: int | None = None, progress: Progress | None = None
) -> PixelCache:
    """Open the cache of a manifest's images, decoding them first where that was not yet done.

    The key covers the content of the images, the decode settings, the rules of `pixels` and the
    version of Pillow. Raises `UnreadableImageError` naming the files that do not decode, and
    `StorageError` where the cache folder has no room or cannot be written.
    """
    hashes = [sample.sha256 for sample in manifest.samples]
    folder = cache_folder("pixels") / _key(hashes, settings)
    if (cache := find_cache(manifest, settings)) is not None:
        return cache
    with cache_errors(folder), FileLock(folder.with_suffix(".lock")):
        if (cache := _load_if_whole(folder)) is not None:
            return cache
        _build(folder, manifest, settings, workers=workers or os.cpu_count() or 1, progress=progress)
    return PixelCache.load(folder)


def find_cache(manifest: Manifest, settings: DecodeSettings) -> PixelCache | None:
    """Open the cache of a manifest's images; None where they are not decoded yet."""
    return _load_if_whole(cache_folder("pixels") / _key([sample.sha256 for sample in manifest.samples], settings))


def _key(hashes: Sequence[str], settings: DecodeSettings) -> str:
    parts = (PIXELS_VERSION, PIL.__version__, codec.to_builtins(settings), hashes)
    return sha256_bytes(json.dumps(parts).encode())[:32]


def _distinct(hashes: Sequence[str]) -> dict[str, int]:
    """Give every distinct content a row, in order of first appearance."""
    return {sha256: row for row, sha256 in enumerate(dict.fromkeys(hashes))}


def _load_if_whole(folder: Path) -> PixelCache | None:
    if not folder.exists():
        return None
    try:
        return PixelCache.load(folder)
    except StorageError:
        return None


def _build(
    folder: Path, manifest: Manifest, settings: DecodeSettings, *, workers: int, progress: Progress | None
) -> None:
    """Fill a temporary folder and rename it; the caller holds the lock, so older temporaries are litter."""
    for litter in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(litter)
    temporary = make_folder(folder.parent / f".{folder.name}.{os.getpid()}.tmp")
    try:
        _fill(temporary, manifest, settings, workers=workers, progress=progress)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(
    folder: Path, manifest: Manifest, settings: DecodeSettings, *, workers: int, progress: Progress | None
) -> None:
    root = Path(manifest.root)
    hashes = [sample.sha256 for sample in manifest.samples]
    first = {sample.sha256: sample for sample in reversed(manifest.samples)}
    jobs = [Job(row=row, path=root / first[sha].path, sha256=sha) for sha, row in _distinct(hashes).items()]
    shape = (len(jobs), settings.image_size, settings.image_size, 3)
    require_space(folder, int(np.prod(shape)))
    array = np.lib.format.open_memmap(folder / _ARRAY, mode="w+", dtype=np.uint8, shape=shape)
    destination = Destination(path=folder / _ARRAY, offset=array.offset, settings=settings)
    failures = decode_all(jobs, destination, workers=workers, progress=progress)
    if failures:
        raise UnreadableImageError(_summary(failures, len(jobs)))
    with open(folder / _ARRAY, "rb+") as file:
        os.fsync(file.fileno())
    publish_text(folder / _INDEX, json.dumps({"settings": codec.to_builtins(settings), "hashes": hashes}))


def _summary(failures: Sequence[str], images: int) -> str:
    if len(failures) == 1:
        return failures[0]
    more = len(failures) - _NAMED
    rest = [f"and {more} more"] if more > 0 else []
    return "\n  ".join((f"{len(failures)} of {images} images cannot be used:", *failures[:_NAMED], *rest))
