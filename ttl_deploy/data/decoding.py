"""Decode many files in parallel, each straight into its place in one file."""

import errno
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from ttl_deploy import pixels
from ttl_deploy.errors import UnreadableImageError
from ttl_deploy.files import sha256_bytes
from ttl_deploy.plugins import Progress
from ttl_deploy.records.data import DecodeSettings

_CHUNK = 32
WORTH_PROCESSES = 128  # starting a process costs about as much as decoding so many small images


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A file to decode into row `row`; its content must have this SHA-256."""

    row: int
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A file holding an array of `(images, S, S, 3)` bytes that starts at `offset`."""

    path: Path
    offset: int
    settings: DecodeSettings


def decode_all(
    jobs: Sequence[Job], destination: Destination, *, workers: int, progress: Progress | None = None
) -> list[str]:
    """Decode every job and return one sentence per file that could not be decoded, in the jobs' order.

    Few files are decoded here, many in fresh processes: nothing forked, so threads and devices of
    the calling process do not matter.
    """
    chunks = [jobs[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    failures: dict[int, str] = {}
    done = 0
    run = _in_processes if workers > 1 and len(jobs) >= WORTH_PROCESSES else _here
    for decoded, failed in run(chunks, destination, workers):
        failures |= failed
        done += decoded
        if progress:
            progress("decoding", done, len(jobs))
    return [failures[row] for row in sorted(failures)]


ChunkResult = tuple[int, dict[int, str]]
"""Files seen, and the sentence for each row that failed."""


def _here(chunks: Sequence[Sequence[Job]], destination: Destination, workers: int) -> Iterator[ChunkResult]:
    return (_decode_chunk(chunk, destination) for chunk in chunks)


def _in_processes(chunks: Sequence[Sequence[Job]], destination: Destination, workers: int) -> Iterator[ChunkResult]:
    pool = ProcessPoolExecutor(
        min(workers, len(chunks)), mp_context=get_context("spawn"), initializer=_leave_interrupts_to_parent
    )
    try:
        futures = {pool.submit(_decode_chunk, chunk, destination): chunk for chunk in chunks}
        for future in as_completed(futures):
            try:
                yield future.result()
            except BrokenProcessPool as error:
                raise UnreadableImageError(
                    f"a process that decodes images died near {futures[future][0].path}: a file that crashes "
                    "its decoder, or too little memory"
                ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _decode_chunk(jobs: Sequence[Job], destination: Destination) -> ChunkResult:
    failures: dict[int, str] = {}
    descriptor = os.open(destination.path, os.O_WRONLY)
    try:
        for job in jobs:
            try:
                content = _decode(job, destination.settings)
            except UnreadableImageError as error:
                failures[job.row] = str(error)
                continue
            _write(descriptor, content, destination.offset + job.row * len(content))
    finally:
        os.close(descriptor)
    return len(jobs), failures


def _decode(job: Job, settings: DecodeSettings) -> bytes:
    content = pixels.read_bytes(job.path)
    if sha256_bytes(content) != job.sha256:
        raise UnreadableImageError(f"{job.path} was changed since its content was hashed: type the command again")
    return pixels.decode_bytes(content, settings, name=str(job.path)).tobytes()


def _write(descriptor: int, content: bytes, offset: int) -> None:
    """Write at a place; unlike a memory map, a full disk is an error here and not a signal."""
    if os.pwrite(descriptor, content, offset) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
