"""Measured latencies, kept between commands: one JSON file per key, whole or not at all.

A file grows by one round at a time, so an interrupted measurement goes on where it was.
"""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ttl_deploy.data.cache_root import cache_folder
from ttl_deploy.errors import DataError
from ttl_deploy.files import publish_text, sha256_bytes
from ttl_deploy.records import codec
from ttl_deploy.records.benchmarks import Timing
from ttl_deploy.runtime.measurement import Measurement
from ttl_deploy.runtime.percentiles import median_of_medians


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedLatency:
    """The rounds of one cut's measurement so far, raw samples included.

    `key` is that of `profile_key`; `backbone`, `cut` and `target` are there for people. `measured` is
    when the last round ended (UTC, ISO 8601).
    """

    key: str
    backbone: str
    cut: str
    target: str
    runtime: str
    precision: str
    size_bytes: int
    timings: tuple[Timing, ...]
    measured: str

    def __post_init__(self) -> None:
        samples = [sample for timing in self.timings for sample in timing.samples_s]
        if not all(timing.samples_s for timing in self.timings) or not all(sample > 0 for sample in samples):
            raise ValueError("every round needs samples above 0 s")
        if not self.timings or [timing.round for timing in self.timings] != list(range(len(self.timings))):
            raise ValueError("the rounds must be numbered from 0 without a gap")

    @property
    def median_s(self) -> float:
        """The median of the rounds' medians."""
        return median_of_medians(self.timings)[0]

    @property
    def noise_s(self) -> float:
        """The distance between the rounds' extreme medians."""
        return median_of_medians(self.timings)[1]

    def add(self, measurement: Measurement) -> "CachedLatency":
        """Return the latency with one more round, measured now."""
        return replace(self, timings=(*self.timings, measurement.timing), measured=_now())


def begin(
    measurement: Measurement, *, key: str, backbone: str, cut: str, target: str, size_bytes: int
) -> CachedLatency:
    """Return the latency that a first round is the beginning of."""
    return CachedLatency(
        key=key,
        backbone=backbone,
        cut=cut,
        target=target,
        runtime=measurement.runtime,
        precision=measurement.precision,
        size_bytes=size_bytes,
        timings=(measurement.timing,),
        measured=_now(),
    )


def read(key: str) -> CachedLatency | None:
    """Return what is kept under a key, or None; raises `DataError` for an entry that is damaged."""
    path = _path(key)
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        check, entry = content["check"], content["entry"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if check != _checksum(entry):
        raise DataError(f"{path} is damaged: its checksum is wrong")
    found = codec.from_builtins(CachedLatency, entry, source=str(path))
    if found.key != key:
        raise DataError(f"{path} holds the key {found.key}")
    return found


def keep(latency: CachedLatency) -> None:
    """Publish a latency under its key, atomically; raises `StorageError` where the disk refuses."""
    entry = msgspec.to_builtins(latency)
    publish_text(_path(latency.key), json.dumps({"check": _checksum(entry), "entry": entry}, allow_nan=False) + "\n")


def _path(key: str) -> Path:
    return cache_folder("profiles") / f"{key}.json"


def _checksum(entry: object) -> str:
    return sha256_bytes(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
