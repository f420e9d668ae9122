"""NVIDIA's own `trtexec`: the times that it writes with `--exportTimes`, read to stand beside ours."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ttl_deploy.errors import DataError
from ttl_deploy.records.engines import EngineTimes

_ALLOWED = "give the file that trtexec --exportTimes=FILE wrote"


def read_trtexec_times(path: Path, *, batch: int, cuda_graph: bool = False) -> EngineTimes:
    """Read trtexec's trace: a JSON list with one object of milliseconds per inference, warm-ups left out by trtexec.

    `gpu_s` is `endComputeMs − startComputeMs`; `with_transfers_s` is `latencyMs`, the sum of copying in, computing and
    copying out (NVIDIA/TensorRT, samples/common/sampleReporting). Batch and CUDA graphs are not in the file. trtexec
    keeps several inferences in flight, so that it tells no time of a whole call that compares with ours. Raises
    `DataError` for anything else.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"cannot read {path} ({error}): {_ALLOWED}") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} holds no list of inferences: {_ALLOWED}")
    pairs = [_read_row(row, f"{path}, inference {number}") for number, row in enumerate(rows, start=1)]
    return EngineTimes(
        told_by="trtexec",
        batch=batch,
        gpu_s=tuple(gpu for gpu, _ in pairs),
        with_transfers_s=tuple(latency for _, latency in pairs),
        cuda_graph=cuda_graph,
    )


def _read_row(row: Any, where: str) -> tuple[float, float]:
    if not isinstance(row, dict):
        raise DataError(f"{where}: {row!r} is no object of times: {_ALLOWED}")
    gpu = _milliseconds(row, "endComputeMs", where) - _milliseconds(row, "startComputeMs", where)
    latency = _milliseconds(row, "latencyMs", where)
    if not 0 <= gpu <= latency * 1.001:  # rounded to a few digits each
        raise DataError(f"{where}: {gpu:g} ms of computing in a latency of {latency:g} ms: {_ALLOWED}")
    return gpu / 1e3, latency / 1e3


def _milliseconds(row: Mapping[str, Any], key: str, where: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(f"{where}: {key} = {value!r} is no time: {_ALLOWED}")
    return float(value)
