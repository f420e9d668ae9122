"""Every distinct image decoded once, into one file that all searches with the same pixels share."""

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
import PIL
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ttl_deploy.data import cache_pruning
from ttl_deploy.data.cache_root import cache_errors, cache_folder, require_space
from ttl_deploy.data.decoding import WORTH_PROCESSES, Batch, Decoded, Destination, Failure, Job, decode_all
from ttl_deploy.data.pixel_store import Journal, PixelStore
from ttl_deploy.errors import StorageError, UnreadableImageError
from ttl_deploy.files import make_folder, publish_bytes, sha256_bytes
from ttl_deploy.pixels import PIXELS_VERSION
from ttl_deploy.plugins import Progress
from ttl_deploy.records import codec
from ttl_deploy.records.data import DecodeSettings, Manifest, Sample

_BATCH_BYTES = 32 << 20
_BATCH_IMAGES = 64
_FINISHED_EVERY_S = 2.0  # what is decoded meanwhile is lost when the process is killed
_NAMED = 10
_LOCK = ".lock"

Note = Callable[[str], None]


class PixelCache:
    """Decoded images of a manifest, opened read-only; pickles as its path, so processes share the pages.

    `array` is `(rows, S, S, 3)` uint8 on disk and may hold other data sets' images as well, `rows[i]` the row of
    sample i of the manifest that the cache was opened for.
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
        """Open what `open_cache` left under `path`; raises `StorageError` where it is missing or damaged."""
        try:
            head, _, body = path.read_bytes().partition(b"\n")
            view = json.loads(head)
            settings = codec.from_builtins(DecodeSettings, view["settings"], source=str(path))
            if zlib.crc32(body) != view["crc"]:
                raise ValueError("its rows are not what was written")
            rows = np.frombuffer(body, dtype="<i8").astype(np.intp)
            store = PixelStore(path.parent, settings)
            _check_journal(store.read_journal(), view, rows)
            array = store.open_rows()
            if len(rows) and rows.max() >= len(array):
                raise ValueError(f"{store.pixels} is too short")
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise StorageError(
                f"the pixel cache {path} is missing or damaged ({error}): type the command again"
            ) from error
        return cls(path, settings, array=array, rows=rows)

    def pixels(self, positions: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Copy the images of these samples of the manifest, `(n, S, S, 3)` uint8 RGB."""
        chosen: NDArray[np.uint8] = self.array[self.rows[np.asarray(positions, dtype=np.intp)]]
        return np.ascontiguousarray(chosen)

    def __reduce__(self) -> tuple[object, ...]:
        return PixelCache.load, (self.path,)


def open_cache(
    manifest: Manifest,
    settings: DecodeSettings,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> PixelCache:
    """Open the cache of a manifest's images, decoding those first that nobody has decoded before.

    Images are known by their content; the decode settings, the rules of `pixels` and the version of Pillow have a
    store of their own each. Raises `UnreadableImageError` naming the files that do not decode, and `StorageError`
    where the cache folder has no room or cannot be written.
    """
    failures = decode_images(manifest, settings, workers=workers, progress=progress, note=note)
    if failures:
        first = {sample.sha256: sample.path for sample in reversed(manifest.samples)}
        sentences = [f"{first[sha256]} {reason}" for sha256, reason in failures.items()]
        raise UnreadableImageError(summarise(sentences, len(first)))
    return PixelCache.load(_view_path(manifest, settings))


def find_cache(manifest: Manifest, settings: DecodeSettings) -> PixelCache | None:
    """Open the cache of a manifest's images; None where they are not decoded yet, or something is damaged."""
    path = _view_path(manifest, settings)
    if not path.exists():
        return None
    try:
        cache = PixelCache.load(path)
    except StorageError:
        return None
    store = PixelStore(path.parent, settings)
    wanted = np.zeros(len(cache.array) + 1, dtype=bool)
    wanted[cache.rows] = True
    held = [batch for batch in store.read_journal().batches if wanted[batch.first_row : batch.end].any()]
    return None if store.find_damage(store.choose_checked(held)) else cache


def decode_images(
    manifest: Manifest,
    settings: DecodeSettings,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    note: Note | None = None,
) -> Mapping[str, str]:
    """Decode what of a manifest is not decoded yet; return by content hash why files do not decode, in their order.

    Raises `StorageError` as `open_cache` does, and `UnreadableImageError` for a file that was changed since it was
    hashed. What is done stays done, whatever ends this process.
    """
    store = PixelStore(_store_folder(settings), settings)
    with cache_errors(store.folder):
        cache_pruning.mark_used(store.folder)
        if (cache := find_cache(manifest, settings)) is not None:
            cache_pruning.mark_used(store.folder, cache.path)
            return {}
        with _locked(store.folder, note):
            failures = _complete(store, manifest, workers or os.cpu_count() or 1, progress=progress, note=note)
            if not failures:
                _write_view(store, manifest)
            cache_pruning.prune(store.folder)
    return failures


def _store_folder(settings: DecodeSettings) -> Path:
    parts = (PIXELS_VERSION, PIL.__version__, codec.to_builtins(settings))
    return cache_folder("pixels") / f"store-{sha256_bytes(json.dumps(parts).encode())[:32]}"


def _view_path(manifest: Manifest, settings: DecodeSettings) -> Path:
    """Name the file that says in which rows a manifest's images stand."""
    content = "".join([sample.sha256 for sample in manifest.samples])
    return _store_folder(settings) / f"{sha256_bytes(content.encode())[:32]}.view"


@contextmanager
def _locked(folder: Path, note: Note | None) -> Iterator[None]:
    """Hold a store's lock; says so where another process has it."""
    lock = FileLock(make_folder(folder) / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if note:
            note(f"another process is decoding images into {folder}: waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_journal(journal: Journal, view: Mapping[str, int], rows: NDArray[np.intp]) -> None:
    """Raise `ValueError` unless the journal still says of these rows what it said when the view was made."""
    size_bytes = view["journal_bytes"]
    if len(journal.content) < size_bytes or journal.checksum(size_bytes) != view["journal_crc"]:
        raise ValueError("the journal has been changed")
    for known_bytes, batch in journal.voided:
        if known_bytes >= size_bytes and ((rows >= batch.first_row) & (rows < batch.end)).any():
            raise ValueError("some of its rows were found damaged")


def _write_view(store: PixelStore, manifest: Manifest) -> None:
    journal = store.read_journal()
    row_of = journal.find_rows()
    rows = np.array([row_of[bytes.fromhex(sample.sha256)] for sample in manifest.samples], dtype="<i8").tobytes()
    view = {
        "settings": codec.to_builtins(store.settings),
        "crc": zlib.crc32(rows),
        "journal_bytes": len(journal.content),
        "journal_crc": journal.checksum(len(journal.content)),
    }
    publish_bytes(_view_path(manifest, store.settings), json.dumps(view).encode() + b"\n" + rows)


def _complete(
    store: PixelStore, manifest: Manifest, workers: int, *, progress: Progress | None, note: Note | None
) -> dict[str, str]:
    """Decode the images that the store has not; the caller holds its lock."""
    journal = store.read_journal()
    first_row = store.mend(journal)
    if _is_suspect(store, manifest, journal) and (damaged := store.find_damage(journal.batches)):
        store.void(damaged)
        journal = store.read_journal()
    first = {sample.sha256: sample for sample in reversed(manifest.samples)}
    known = journal.find_rows()
    failures = {sha: journal.failures[key] for sha in first if (key := bytes.fromhex(sha)) in journal.failures}
    missing = [first[sha] for sha in first if sha not in failures and bytes.fromhex(sha) not in known]
    missing.sort(key=lambda sample: sample.path)
    if missing:
        _announce(store, len(missing), len(first), note)
        batches = _plan(missing, Path(manifest.root), first_row, store.row_bytes)
        processes = workers if len(missing) >= WORTH_PROCESSES else 1
        new = _decode(store, batches, workers=processes, images=len(missing), progress=progress)
        failures |= {sha256: failure.reason for sha256, failure in new.items()}
    return {sample.sha256: failures[sample.sha256] for sample in manifest.samples if sample.sha256 in failures}


def _is_suspect(store: PixelStore, manifest: Manifest, journal: Journal) -> bool:
    """Tell whether all rows are to be checked: a look at some found damage, or a view was there and is no good."""
    return _view_path(manifest, store.settings).exists() or bool(
        store.find_damage(store.choose_checked(journal.batches))
    )


def _announce(store: PixelStore, missing: int, images: int, note: Note | None) -> None:
    """Say what is about to be written, and refuse where it has no room."""
    size_bytes = missing * store.row_bytes
    require_space(store.folder, size_bytes, remedy="a smaller --image-size needs less")
    if note:
        known = f" ({images - missing:,} more are decoded already)" if missing < images else ""
        note(f"decoding {missing:,} images{known}: {size_bytes / 1e6:,.1f} MB in {store.folder}")


def _plan(missing: Sequence[Sample], root: Path, first_row: int, row_bytes: int) -> Iterator[Batch]:
    """Divide images into batches, each with rows of its own."""
    step = min(max(_BATCH_BYTES // row_bytes, 1), _BATCH_IMAGES)
    for start in range(0, len(missing), step):
        part = missing[start : start + step]
        jobs = tuple(Job(path=root / sample.path, sha256=sample.sha256) for sample in part)
        yield Batch(first_row=first_row + start, jobs=jobs)


def _decode(
    store: PixelStore, batches: Iterator[Batch], *, workers: int, images: int, progress: Progress | None
) -> dict[str, Failure]:
    """Decode batches and enter them in the journal, many at a time; return the failures by content hash."""
    destination = Destination(path=store.pixels, settings=store.settings)
    failures: dict[str, Failure] = {}
    waiting: list[Decoded] = []
    finished_s = time.monotonic()
    done = 0
    try:
        for one in decode_all(batches, destination, workers=workers):
            waiting.append(one)
            done += len(one.batch.jobs)
            failures |= {one.batch.jobs[number].sha256: failure for number, failure in one.failures.items()}
            if time.monotonic() - finished_s >= _FINISHED_EVERY_S:
                store.finish(waiting)
                waiting, finished_s = [], time.monotonic()
            if progress:
                progress("decoding", done, images)
    finally:
        if waiting:
            store.finish(waiting)
    return failures


def summarise(sentences: Sequence[str], images: int) -> str:
    """Say which of so many images cannot be used: one as it is, of many the first ten."""
    if len(sentences) == 1:
        return sentences[0]
    more = len(sentences) - _NAMED
    rest = [f"and {more} more"] if more > 0 else []
    return "\n  ".join((f"{len(sentences)} of {images} images cannot be used:", *sentences[:_NAMED], *rest))
