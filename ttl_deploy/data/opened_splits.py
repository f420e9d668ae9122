"""The locked test split's openings: in the run's ledger, and in a register that all runs of this machine share.

A search on a test split that another run has opened before is allowed, and visible: the register is asked first, and
what it knew lies in `earlier_openings.json` of the run folder. It does not stand in the ledger, which is a function
of the search alone: the same search ends with the same ledger, whoever looked at the data before.

The register is one file of JSON lines in the cache folder. It holds no patient data: of the test images only one
digest over their sorted content hashes. It helps to be honest and guards nothing: a test split that overlaps in part
has another digest, and other machines and other cache folders have other registers. So it never stops a run: what is
wrong with it is noted.
"""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec
from filelock import FileLock

from ttl_deploy.data.cache_root import cache_folder
from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.errors import DataError, StorageError
from ttl_deploy.files import append_line, sha256_bytes
from ttl_deploy.records import codec
from ttl_deploy.records.data import Manifest
from ttl_deploy.records.openings import EarlierOpenings, KnownOpening
from ttl_deploy.records.trials import TestOpening
from ttl_deploy.runs.folder import RunFolder

SEARCH = "search"
_FOLDER, _FILE = "test-openings", "register.jsonl"
_WAIT_S = 10.0
_NAMED = 5


def open_for_search(run: RunFolder, opening: TestOpening) -> tuple[str, ...]:
    """Record that a run's search opens its test split, once; returns sentences for the user. The caller owns the run.

    Nothing is recorded or said where the ledger has it already, as in a search that is resumed.
    """
    if any(entry.key == SEARCH for entry in run.ledger.of_event("test_opened")):
        return ()
    digest = digest_test_images(load_manifest(run.data))
    earlier = _own_record(run) or _look_back(run, digest)
    codec.save(run.earlier_openings, earlier)
    complaint = _register(_known(run, opening, key=SEARCH, run_id=earlier.run_id, digest=digest))
    run.ledger.append("test_opened", SEARCH, msgspec.to_builtins(opening))
    told = (tell_earlier(earlier.openings), earlier.note, complaint)
    return tuple(dict.fromkeys(sentence for sentence in told if sentence))


def record_use(run: RunFolder, opening: TestOpening, *, by: str) -> tuple[str, ...]:
    """Record that the command `by` uses what a run predicted on its test split; returns what could not be noted.

    Raises `RunBusyError` while another process writes in the run folder, and `StorageError` where nobody can.
    """
    own = _own_record(run)
    key = f"{by}-{datetime.now(UTC).isoformat()}"
    digest = digest_test_images(load_manifest(run.data))
    with run.owned():
        complaint = _register(_known(run, opening, key=key, run_id=own.run_id if own else "", digest=digest))
        run.ledger.append("test_opened", key, msgspec.to_builtins(opening))
    return (complaint,) if complaint else ()


def digest_test_images(manifest: Manifest) -> str:
    """Return one digest for a set of test images, whatever their order, names and labels; empty without any."""
    hashes = sorted({manifest.samples[position].sha256 for position in manifest.of_split("test")})
    return sha256_bytes("\n".join(hashes).encode()) if hashes else ""


def tell_earlier(openings: Sequence[KnownOpening]) -> str:
    """Say how often other runs opened a test split before; nothing where none did."""
    if not openings:
        return ""
    times = "once" if len(openings) == 1 else f"{len(openings)} times"
    named = "; ".join(f"{one.run} ({one.by}, {one.time[:10]})" for one in openings[-_NAMED:])
    more = "…; " if len(openings) > _NAMED else ""
    return (
        f"this test split has been opened {times} before by other runs [{more}{named}]: "
        "the more often it is looked at, the less it proves"
    )


def _own_record(run: RunFolder) -> EarlierOpenings | None:
    """Return what the run recorded when its search opened the split; None where it did not, or it is damaged."""
    try:
        return codec.load(EarlierOpenings, run.earlier_openings) if run.earlier_openings.exists() else None
    except DataError:
        return None


def _look_back(run: RunFolder, digest: str) -> EarlierOpenings:
    """Ask the register what other runs did with these images."""
    known, note = _read_register()
    path = _path_of(run)
    others = {
        (one.run_id or one.run, one.key): one
        for one in known
        if digest and one.test_sha256 == digest and (one.run_id or one.run != path)
    }
    openings = tuple(sorted(others.values(), key=lambda one: one.time))
    return EarlierOpenings(run_id=uuid4().hex, test_sha256=digest, openings=openings, note=note)


def _known(run: RunFolder, opening: TestOpening, *, key: str, run_id: str, digest: str) -> KnownOpening:
    return KnownOpening(
        test_sha256=digest,
        run_id=run_id,
        run=_path_of(run),
        key=key,
        command=_plain(opening.command),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _path_of(run: RunFolder) -> str:
    return _plain(str(run.path.resolve()))


def _plain(text: str) -> str:
    """Replace what a file name or an argument can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _register(opening: KnownOpening) -> str:
    """Append one opening; returns why not, where it cannot. One that stands there is not written again."""
    if not opening.test_sha256:
        return ""
    try:
        path = cache_folder(_FOLDER) / _FILE
        with FileLock(path.with_name(f".{_FILE}.lock"), timeout=_WAIT_S):
            known, _ = _parse(path)
            if opening.run_id and any((one.run_id, one.key) == (opening.run_id, opening.key) for one in known):
                return ""
            line = json.dumps(msgspec.to_builtins(opening), ensure_ascii=False)
            append_line(path, line if _ends_whole(path) else f"\n{line}")
    except (StorageError, OSError, NotImplementedError) as error:  # the last where a file system has no locks
        return f"this opening of the test split could not be noted for later runs: {error}"
    return ""


def _read_register() -> tuple[tuple[KnownOpening, ...], str]:
    """Return the openings that can be read, and why some may be missing."""
    try:
        path = cache_folder(_FOLDER) / _FILE
        known, damaged = _parse(path)
    except (StorageError, OSError) as error:
        return (), f"whether other runs opened this test split before is not known: {error}"
    note = f"{damaged} lines of {path} are damaged: earlier openings may be missing" if damaged else ""
    return known, note


def _parse(path: Path) -> tuple[tuple[KnownOpening, ...], int]:
    """Return a register's openings and how many lines are damaged."""
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()] if path.exists() else []
    found = [one for one in map(_parse_line, lines) if one]
    return tuple(found), len(lines) - len(found)


def _parse_line(line: bytes) -> KnownOpening | None:
    try:
        return msgspec.json.decode(line, type=KnownOpening)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _ends_whole(path: Path) -> bool:
    """Tell whether a file is empty or ends with a whole line; a kill can tear the last one."""
    if not path.exists() or not path.stat().st_size:
        return True
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
