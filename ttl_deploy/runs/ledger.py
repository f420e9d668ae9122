"""The ledger: one JSON line per finished fact of a run, written by one process, never changed.

Each line carries its own checksum. A torn last line is normal after a kill and is cut off; damage
anywhere else is refused. A fact (event and key) is written once, so a resumed run ends with the
same entries as an uninterrupted one.
"""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ttl_deploy.errors import DataError
from ttl_deploy.files import append_line, storage_errors

Event = Literal[
    "data_prepared", "profiled", "probed", "trial_paused", "trial_finished", "trial_failed", "test_opened", "chosen"
]
SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One fact. `content` is the record's fields; `time` is UTC, ISO 8601."""

    event: Event
    key: str
    content: Mapping[str, Any]
    time: str


class Ledger:
    """The file `ledger.jsonl` of a run folder; append only by the process that holds the run's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Read all whole entries; raises `DataError` for damage other than a torn last line."""
        entries, _ = self._scan()
        return entries

    def of_event(self, event: Event) -> tuple[LedgerEntry, ...]:
        """Return the entries of one event, in order."""
        return tuple(entry for entry in self.entries() if entry.event == event)

    def repair(self) -> bool:
        """Cut off a torn last line; tell whether there was one."""
        if not self.path.exists():
            return False
        _, whole_bytes = self._scan()
        if whole_bytes == self.path.stat().st_size:
            return False
        with storage_errors(self.path):
            os.truncate(self.path, whole_bytes)
        return True

    def append(self, event: Event, key: str, content: Mapping[str, Any]) -> None:
        """Write one fact, unless the same event and key are already there."""
        if any(entry.event == event and entry.key == key for entry in self.entries()):
            return
        fact = {
            "schema": SCHEMA,
            "event": event,
            "key": key,
            "content": dict(content),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        append_line(self.path, json.dumps({**fact, "check": _checksum(fact)}, ensure_ascii=False, allow_nan=False))

    def _scan(self) -> tuple[tuple[LedgerEntry, ...], int]:
        """Return the whole entries and how many bytes they take."""
        if not self.path.exists():
            return (), 0
        lines = self.path.read_bytes().splitlines(keepends=True)
        entries: list[LedgerEntry] = []
        whole_bytes = 0
        for number, line in enumerate(lines, start=1):
            entry = _parse(line)
            if entry is None:
                if number == len(lines):
                    break
                raise DataError(
                    f"{self.path}, line {number} is damaged: restore the file from a backup, or start a new run with -o"
                )
            entries.append(entry)
            whole_bytes += len(line)
        return tuple(entries), whole_bytes


def _checksum(fact: Mapping[str, Any]) -> str:
    canonical = json.dumps(fact, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return f"{zlib.crc32(canonical.encode()):08x}"


def _parse(line: bytes) -> LedgerEntry | None:
    """Return the entry of one line, or None where the line is torn or damaged."""
    try:
        fact = json.loads(line)
    except ValueError:
        return None
    if not line.endswith(b"\n") or not isinstance(fact, dict) or fact.pop("check", None) != _checksum(fact):
        return None
    return LedgerEntry(event=fact["event"], key=fact["key"], content=fact["content"], time=fact["time"])
