"""NVIDIA's own `trtexec`: what it wrote with `--exportTimes`, or printed, read to stand beside our figures."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ttl_deploy.errors import DataError, UsageError
from ttl_deploy.files import sha256_bytes
from ttl_deploy.records.benchmarks import ImportedTimes, Percentile, Stretch
from ttl_deploy.runtime.bench_rows import make_stretch
from ttl_deploy.runtime.kit.board.trtexec import read_version
from ttl_deploy.runtime.percentiles import PERCENTS, samples_needed

TRTEXEC = "trtexec"
GPU_ONLY = "GPU: the network alone, between events, by trtexec"
WITH_TRANSFERS = "GPU with transfers: copying in, network, copying out, each between events, added up by trtexec"
_ALLOWED = "give the file that trtexec --exportTimes=FILE wrote, or all that trtexec printed"
_LARGEST_BYTES = 256 * 2**20
_LINES = {GPU_ONLY: "GPU Compute Time", WITH_TRANSFERS: "Latency"}
_NUMBER = r"([0-9.eE+-]+)"
_SUMMARY = "=== Performance summary ==="
_COUNT = re.compile(r"Timing trace has (\d+) queries")
_SHAPE = re.compile(r"[Ii]nput binding for \S+ with dimensions (\d+(?:x\d+)*)")
_DEVICE = re.compile(r"Selected Device: ([^\r\n]+)")
_STREAMS = re.compile(r"Inference Streams: (\d+)")
_SWITCH = "{}: (Enabled|Disabled)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What trtexec must have run to be comparable: images of so many rows and columns, and how many at once.

    `batch` is None where several sizes were asked for, so that the file must say of which it is.
    """

    height: int
    width: int
    batch: int | None


def read_trtexec(path: Path, expected: Expected) -> ImportedTimes:
    """Read what trtexec told, from its file of times or from its printed words; nothing says of which model it is.

    The file is a JSON list with one object of milliseconds per inference, warm-ups left out by trtexec: the network's
    time is `endComputeMs - startComputeMs`, that with transfers `latencyMs`, the sum of copying in, computing and
    copying out (NVIDIA/TensorRT, samples/common/sampleReporting); where nothing was copied, it is left out. trtexec
    keeps several inferences in flight, so that it tells no time of a whole call that compares with ours. Only the
    printed words hold the images' shape. Raises `DataError` for anything else and for images of another size, and
    `UsageError` where the batch is not known.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({error}): {_ALLOWED}") from error
    if len(content) > _LARGEST_BYTES:
        raise DataError(f"{path} holds more than {_LARGEST_BYTES >> 20} MiB: {_ALLOWED}")
    told = _read_times(path, text, expected) if _is_json(text) else _read_words(path, text, expected)
    return replace(told, source=path.name, source_sha256=sha256_bytes(content))


def _is_json(text: str) -> bool:
    """Tell a list of objects from printed lines, which begin with brackets too: `[I] ...`."""
    return re.match(r"\s*(\{|\[\s*(\{|\]|$))", text) is not None


def _read_times(path: Path, text: str, expected: Expected) -> ImportedTimes:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"cannot read {path} ({error}): {_ALLOWED}") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} holds no list of inferences: {_ALLOWED}")
    if any(isinstance(row, dict) and "averageMs" in row for row in rows):
        raise DataError(f"{path} is a profile of single layers, whose sum is no inference's time: {_ALLOWED}")
    pairs = [_read_row(row, f"{path}, inference {number}") for number, row in enumerate(rows, start=1)]
    if expected.batch is None:
        raise UsageError(_UNKNOWN_BATCH.format(path))
    samples = {GPU_ONLY: tuple(gpu for gpu, _ in pairs), WITH_TRANSFERS: tuple(latency for _, latency in pairs)}
    if not any(row.get("h2dMs", 1) for row in rows):
        del samples[WITH_TRANSFERS]
    return ImportedTimes(
        told_by=TRTEXEC,
        source="",
        source_sha256="",
        batch=expected.batch,
        stretches=tuple(make_stretch(boundary, [times]) for boundary, times in samples.items()),
        samples_s=samples,
    )


def _read_words(path: Path, text: str, expected: Expected) -> ImportedTimes:
    if (found := text.count(_SUMMARY)) != 1:
        raise DataError(f"{path} holds {found or 'no'} performance summaries of trtexec: {_ALLOWED}, of one run")
    count, streams, device = _COUNT.search(text), _STREAMS.search(text), _DEVICE.search(text)
    if count is None or int(count.group(1)) < 1:
        raise DataError(f"{path} does not say how many inferences were timed: {_ALLOWED}")
    if streams is not None and int(streams.group(1)) > 1:
        raise DataError(
            f"{path} is of {streams.group(1)} streams at once, which slow each other: leave --infStreams out"
        )
    boundaries = [GPU_ONLY] if _is_on(text, "Data transfers") is False else [GPU_ONLY, WITH_TRANSFERS]
    return ImportedTimes(
        told_by=f"{TRTEXEC} {read_version(text)}".strip(),
        source="",
        source_sha256="",
        batch=_batch_of(path, text, expected),
        stretches=tuple(_read_stretch(path, text, boundary, int(count.group(1))) for boundary in boundaries),
        device=device.group(1).strip() if device else "",
        cuda_graph=_is_on(text, "CUDA Graph"),
    )


def _batch_of(path: Path, text: str, expected: Expected) -> int:
    """Return how many images ran at once; trtexec fills unknown sides of a shape with 1, and says so in passing."""
    found = {tuple(int(side) for side in shape.split("x")) for shape in _SHAPE.findall(text)}
    wanted = (expected.height, expected.width, 3)
    for shape in found:
        if shape[1:] != wanted:
            raise DataError(
                f"{path}: trtexec ran images {'x'.join(map(str, shape))}, and the model takes "
                f"Nx{expected.height}x{expected.width}x3: give trtexec --shapes, or the file of this model"
            )
    if len(found) == 1:
        return found.pop()[0]
    if expected.batch is None or found:
        raise UsageError(_UNKNOWN_BATCH.format(path))
    return expected.batch


_UNKNOWN_BATCH = "{} does not say how many images trtexec ran at once: give one --batch, the size that trtexec had"


def _is_on(text: str, option: str) -> bool | None:
    """Say whether trtexec had an option on, as the list that it prints tells; None where that is not there."""
    found = re.search(_SWITCH.format(option), text)
    return found.group(1) == "Enabled" if found else None


def _read_stretch(path: Path, text: str, boundary: str, calls: int) -> Stretch:
    name = _LINES[boundary]
    line = re.search(rf"(?:^|\] ){name}: (min = [^\r\n]+)", text, re.MULTILINE)
    told = _read_summary(line.group(1) if line else "")
    if 50.0 not in told or not all(0 < value < float("inf") for value in told.values()):
        raise DataError(f"{path} tells no median above 0 of {name}: {_ALLOWED}")
    return Stretch(
        boundary=boundary,
        calls=calls,
        percentiles=tuple(_percentile(percent, told, calls) for percent in PERCENTS),
        median_s=told[50.0],
    )


def _percentile(percent: float, told: Mapping[float, float], calls: int) -> Percentile:
    """Return a percentile as it was told, if so many calls support it; a summary has no interval."""
    value = told.get(percent) if calls >= samples_needed(percent) else None
    return Percentile(percent=percent, value_s=value, low_s=None, high_s=None)


def _read_summary(text: str) -> dict[float, float]:
    """Return seconds by percent of `median = 1.5 ms, percentile(99%) = 1.9 ms`."""
    found = re.findall(rf"percentile\(([\d.]+)%\) = {_NUMBER} ms", text)
    found += [("50", value) for value in re.findall(rf"median = {_NUMBER} ms", text)]
    try:
        return {float(percent): float(value) / 1e3 for percent, value in found}
    except ValueError:
        return {}


def _read_row(row: Any, where: str) -> tuple[float, float]:
    if not isinstance(row, dict):
        raise DataError(f"{where}: {row!r} is no object of times: {_ALLOWED}")
    gpu = _milliseconds(row, "endComputeMs", where) - _milliseconds(row, "startComputeMs", where)
    latency = _milliseconds(row, "latencyMs", where)
    if not 0 < gpu <= latency * 1.001:  # rounded to a few digits each
        raise DataError(f"{where}: {gpu:g} ms of computing in a latency of {latency:g} ms: {_ALLOWED}")
    return gpu / 1e3, latency / 1e3


def _milliseconds(row: Mapping[str, Any], key: str, where: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where}: {key} = {value!r} is no time: {_ALLOWED}")
    return float(value)
