"""Decoded images of one kind, in one file that only grows, and the journal of what in it is finished.

`pixels.raw` holds rows of `(S, S, 3)` bytes. Batches of rows are written anywhere behind the finished ones, brought
to the disk, and then entered in `journal`: a row that stands there never moves and never changes, so any number of
processes may read it while others are added. What a killed process had not entered yet is written anew.

An entry of the journal is a head, a body, and the CRC-32 of both:

* `batch`: the SHA-256 of every image file, row by row; the head has the first row and the CRC-32 of the rows.
* `failed`: the SHA-256 of a file that does not decode, and the reason. Its content alone decides that.
* `void`: the batch that begins at this row was found damaged, and counts for nothing.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.data.decoding import Decoded
from ttl_deploy.records.data import DecodeSettings

_HEAD = struct.Struct("<4sBQII")  # mark, kind, first row, CRC-32 of the rows, length of the body
_MARK = b"TTLj"
_CHECK = struct.Struct("<I")
_BATCH, _FAILED, _VOID = range(3)
_DIGEST_BYTES = 32
_CHECKED_BYTES = 64 << 20
"""So much of the rows is compared with its checksums whenever a cache is opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A batch of rows that is on the disk: their images' digests, 32 bytes each, and the rows' CRC-32."""

    first_row: int
    digests: bytes
    crc: int

    @property
    def count(self) -> int:
        """How many rows it has."""
        return len(self.digests) // _DIGEST_BYTES

    @property
    def end(self) -> int:
        """The row behind its last."""
        return self.first_row + self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What a journal says.

    Attributes:
        batches: those that count.
        failures: why files do not decode, by their digest.
        voided: batches that were found damaged, each with the size that the journal had then.
        content: its sound part; `damaged` where more follows.
    """

    batches: tuple[Finished, ...]
    failures: dict[bytes, str]
    voided: tuple[tuple[int, Finished], ...]
    content: bytes
    damaged: bool

    def find_rows(self) -> dict[bytes, int]:
        """Return the row of every image, by its digest."""
        return {
            batch.digests[start : start + _DIGEST_BYTES]: batch.first_row + row
            for batch in self.batches
            for row, start in enumerate(range(0, len(batch.digests), _DIGEST_BYTES))
        }

    def checksum(self, size_bytes: int) -> int:
        """Return the CRC-32 of its first bytes; a journal only grows, so this tells whether it is still the same."""
        return zlib.crc32(self.content[:size_bytes])


class PixelStore:
    """The folder of one kind of decoded images; adding to it needs the lock, which the caller holds."""

    def __init__(self, folder: Path, settings: DecodeSettings) -> None:
        self.folder = folder
        self.settings = settings
        self.row_bytes = settings.image_size**2 * 3

    @property
    def pixels(self) -> Path:
        """The file of rows."""
        return self.folder / "pixels.raw"

    @property
    def journal(self) -> Path:
        """The file of entries."""
        return self.folder / "journal"

    def rows_on_disk(self) -> int:
        """Return how many whole rows the file has, finished or not."""
        return self.pixels.stat().st_size // self.row_bytes if self.pixels.exists() else 0

    def open_rows(self) -> NDArray[np.uint8]:
        """Map all rows that the file has now, `(rows, S, S, 3)`, read-only; raises `OSError` or `ValueError`."""
        side = self.settings.image_size
        return np.memmap(self.pixels, dtype=np.uint8, mode="r", shape=(self.rows_on_disk(), side, side, 3))

    def read_journal(self) -> Journal:
        """Read what is finished, up to the first damage."""
        content = self.journal.read_bytes() if self.journal.exists() else b""
        batches: dict[int, Finished] = {}
        failures: dict[bytes, str] = {}
        voided: list[tuple[int, Finished]] = []
        sound = 0
        for kind, first_row, crc, body, end in _entries(content):
            if kind == _BATCH:
                batches[first_row] = Finished(first_row=first_row, digests=body, crc=crc)
            elif kind == _VOID and first_row in batches:
                voided.append((sound, batches.pop(first_row)))
            elif kind == _FAILED:
                failures[body[:_DIGEST_BYTES]] = body[_DIGEST_BYTES:].decode(errors="replace")
            sound = end
        return Journal(
            batches=tuple(batches.values()),
            failures=failures,
            voided=tuple(voided),
            content=content[:sound],
            damaged=sound < len(content),
        )

    def mend(self, journal: Journal) -> int:
        """Make sure that the files are there and sound, and return the row from which on new ones may be written.

        Where the end of the journal was lost, somebody may still read rows that it named: they are left alone.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pixels.touch()
        ends = [batch.end for batch in (*journal.batches, *(batch for _, batch in journal.voided))]
        behind = max(ends, default=0)
        if not journal.damaged:
            return behind
        os.truncate(self.journal, len(journal.content))
        behind = max(behind, -(-self.pixels.stat().st_size // self.row_bytes))
        self._enter(_entry(_BATCH, behind, 0, b""))
        return behind

    def finish(self, done: Sequence[Decoded]) -> None:
        """Bring the rows of batches to the disk, then enter them in the journal."""
        descriptor = os.open(self.pixels, os.O_WRONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._enter(b"".join(entry for one in done for entry in _describe(one)))

    def void(self, batches: Sequence[Finished]) -> None:
        """Enter that batches are damaged."""
        self._enter(b"".join(_entry(_VOID, batch.first_row, 0, b"") for batch in batches))

    def find_damage(self, batches: Sequence[Finished]) -> tuple[Finished, ...]:
        """Return those batches whose rows are not what their checksums say, or not there."""
        rows = self.rows_on_disk()
        if not rows:
            return tuple(batches)
        with open(self.pixels, "rb") as file:
            return tuple(one for one in batches if one.end > rows or self._checksum(file.fileno(), one) != one.crc)

    def _checksum(self, descriptor: int, batch: Finished) -> int:
        return zlib.crc32(os.pread(descriptor, batch.count * self.row_bytes, batch.first_row * self.row_bytes))

    def choose_checked(self, batches: Sequence[Finished]) -> Sequence[Finished]:
        """Return all of them, or evenly spaced ones of 64 MB together, the last among them."""
        size_bytes = sum(batch.count for batch in batches) * self.row_bytes
        step = max(-(-size_bytes // _CHECKED_BYTES), 1)
        return batches[::-1][::step]

    def _enter(self, entries: bytes) -> None:
        descriptor = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            if os.write(descriptor, entries) != len(entries):
                raise OSError(28, "short write: the disk is full")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _describe(done: Decoded) -> Iterator[bytes]:
    jobs = done.batch.jobs
    if done.written:
        digests = b"".join(bytes.fromhex(jobs[number].sha256) for number in done.written)
        yield _entry(_BATCH, done.batch.first_row, done.crc, digests)
    for number, failure in sorted(done.failures.items()):
        if failure.lasting:
            yield _entry(_FAILED, 0, 0, bytes.fromhex(jobs[number].sha256) + failure.reason.encode())


def _entry(kind: int, first_row: int, crc: int, body: bytes) -> bytes:
    content = _HEAD.pack(_MARK, kind, first_row, crc, len(body)) + body
    return content + _CHECK.pack(zlib.crc32(content))


def _entries(content: bytes) -> Iterator[tuple[int, int, int, bytes, int]]:
    """Yield kind, first row, CRC-32, body and end of every entry, up to the first that is not sound."""
    start = 0
    while start + _HEAD.size + _CHECK.size <= len(content):
        mark, kind, first_row, crc, length = _HEAD.unpack_from(content, start)
        check = start + _HEAD.size + length
        if mark != _MARK or kind > _VOID or check + _CHECK.size > len(content):
            return
        if _CHECK.unpack_from(content, check)[0] != zlib.crc32(content[start:check]):
            return
        yield kind, first_row, crc, content[start + _HEAD.size : check], check + _CHECK.size
        start = check + _CHECK.size
