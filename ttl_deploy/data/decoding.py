"""Decode many files in parallel, each straight into its place in one file; a decoder may crash or hang on one.

A file that crashes its decoder twice, or gives no answer for a minute, is given up with the reason; the process that
died is replaced, and the others go on.
"""

import errno
import os
import signal
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

from ttl_deploy import pixels
from ttl_deploy.errors import StorageError, UnreadableImageError
from ttl_deploy.files import sha256_bytes
from ttl_deploy.processes import die_with_parent
from ttl_deploy.records.data import DecodeSettings

PATIENCE_S = 60.0
"""A file whose decoder gives no answer for so long is given up."""
WORTH_PROCESSES = 128  # starting a process costs about as much as decoding so many small images
_START_S = 300.0  # a process has so long to begin, on a machine that may be busy
_CRASHES = 2  # a process can die of too little memory as well, so a file that ends one gets a second try
_LOOK_S = 1.0
_NAME = "the file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A file to decode; its content must have this SHA-256."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A file of rows, `(S, S, 3)` bytes each."""

    path: Path
    settings: DecodeSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Files that are written one behind the other from row `first_row` on; those that do not decode take no row."""

    first_row: int
    jobs: tuple[Job, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a file has no pixels. `lasting` where its content alone decides that, and not this machine's state."""

    reason: str
    lasting: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A batch that is done: the jobs that were written, in order, the CRC-32 of their rows, and the failures."""

    batch: Batch
    written: tuple[int, ...]
    crc: int
    failures: Mapping[int, Failure]


def decode_all(batches: Iterable[Batch], destination: Destination, *, workers: int) -> Iterator[Decoded]:
    """Decode batches and yield each when it is done, in any order.

    With one worker everything is decoded here, else in fresh processes: nothing forked, so threads and devices of the
    calling process do not matter. Raises `UnreadableImageError` where a file is not what was hashed, and `OSError`
    where the disk is full.
    """
    if workers > 1:
        return _in_processes(iter(batches), destination, workers)
    return (_decode_batch(batch, destination, {}) for batch in batches)


def _decode_batch(
    batch: Batch, destination: Destination, given_up: Mapping[int, Failure], connection: Connection | None = None
) -> Decoded:
    """Decode and write a batch; tells `connection` the number of every job before it begins."""
    failures = dict(given_up)
    written: list[int] = []
    crc = 0
    descriptor = os.open(destination.path, os.O_WRONLY)
    try:
        for number, job in enumerate(batch.jobs):
            if number in given_up:
                continue
            if connection is not None:
                connection.send(number)
            content = _read(job)
            try:
                decoded = pixels.decode_bytes(content, destination.settings, name=_NAME).tobytes()
            except UnreadableImageError as error:
                failures[number] = Failure(reason=str(error).removeprefix(_NAME).strip(), lasting=True)
                continue
            _write(descriptor, decoded, (batch.first_row + len(written)) * len(decoded))
            crc = zlib.crc32(decoded, crc)
            written.append(number)
    finally:
        os.close(descriptor)
    return Decoded(batch=batch, written=tuple(written), crc=crc, failures=failures)


def _read(job: Job) -> bytes:
    content = pixels.read_bytes(job.path)
    if sha256_bytes(content) != job.sha256:
        raise UnreadableImageError(f"{job.path} was changed since its content was hashed: type the command again")
    return content


def _write(descriptor: int, content: bytes, offset: int) -> None:
    """Write at a place; unlike a memory map, a full disk is an error here and not a signal."""
    if os.pwrite(descriptor, content, offset) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _in_processes(batches: Iterator[Batch], destination: Destination, workers: int) -> Iterator[Decoded]:
    with closing(_Pool(destination)) as pool:
        for batch in batches:
            pool.begin(batch)
            while len(pool.busy) >= workers:
                yield from pool.collect()
        while pool.busy:
            yield from pool.collect()


class _Child:
    """A process that decodes, what it works on, and since when."""

    def __init__(self, destination: Destination) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, destination, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()  # so that the child's death ends the connection
        self.batch: Batch | None = None
        self.given_up: dict[int, Failure] = {}
        self.number: int | None = None
        self.since_s = time.monotonic()

    def begin(self, batch: Batch, given_up: dict[int, Failure]) -> None:
        self.batch, self.given_up, self.number, self.since_s = batch, given_up, None, time.monotonic()
        try:
            self.connection.send((batch, given_up))
        except OSError:  # it is dead, as the pool is about to find out
            return

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class _Pool:
    """Children that are idle or busy, and how often a file has ended one."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.busy: list[_Child] = []
        self.idle: list[_Child] = []
        self.crashes: Counter[Path] = Counter()

    def begin(self, batch: Batch, given_up: dict[int, Failure] | None = None) -> None:
        """Give a batch to an idle child, or to a new one."""
        child = self.idle.pop() if self.idle else _Child(self.destination)
        child.begin(batch, given_up or {})
        self.busy.append(child)

    def collect(self) -> Iterator[Decoded]:
        """Wait until a child says something, or for a while, and yield what is done."""
        asked_s = time.monotonic()
        ready = wait([child.connection for child in self.busy], timeout=_LOOK_S)
        overslept_s = time.monotonic() - asked_s - _LOOK_S  # stopped and continued, together with the children
        for child in tuple(self.busy):
            if overslept_s > _LOOK_S:
                child.since_s = time.monotonic()
            if child.connection in ready:
                yield from self._hear(child)
            elif time.monotonic() - child.since_s > (_START_S if child.number is None else PATIENCE_S):
                self._lose(child, f"gives no answer: its decoder was stopped after {PATIENCE_S:g} s", final=True)

    def _hear(self, child: _Child) -> Iterator[Decoded]:
        try:
            said = child.connection.recv()
        except (EOFError, OSError):
            child.process.join()
            self._lose(child, f"ends the process that decodes it ({_describe_end(child.process.exitcode)})")
            return
        if isinstance(said, int):
            child.number, child.since_s = said, time.monotonic()
        elif isinstance(said, Exception):
            raise said
        else:
            self.busy.remove(child)
            self.idle.append(child)
            yield said

    def _lose(self, child: _Child, reason: str, *, final: bool = False) -> None:
        """Bury a child and begin its batch anew, without the file that ended it if that was not the first time."""
        self.busy.remove(child)
        child.kill()
        batch, number = child.batch, child.number
        if batch is None or number is None:
            raise StorageError(f"a process that decodes images {reason}, before it began: is there too little memory?")
        path = batch.jobs[number].path
        self.crashes[path] += 1
        if final or self.crashes[path] >= _CRASHES:
            child.given_up[number] = Failure(reason=reason, lasting=False)
        self.begin(batch, child.given_up)

    def close(self) -> None:
        """End all children."""
        for child in (*self.busy, *self.idle):
            child.kill()


def _describe_end(code: int | None) -> str:
    return f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"


def _serve(connection: Connection, destination: Destination, parent_pid: int) -> None:
    """Be a child: decode batches until the parent closes the connection. Interrupts are for the parent.

    A child must not outlive the parent: the next run may write other images into the same rows.
    """
    die_with_parent(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            batch, given_up = connection.recv()
            try:
                said: Decoded | Exception = _decode_batch(batch, destination, given_up, connection)
            except BrokenPipeError:
                raise
            except (UnreadableImageError, OSError) as error:
                said = error
            connection.send(said)
        except (EOFError, BrokenPipeError):  # the parent is gone
            return
