"""Results that a kit's script wrote on another machine: read, tied to their artifact, compared anew, and kept."""

import json
import re
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ttl_deploy.errors import DataError, GateError
from ttl_deploy.files import make_folder, sha256_bytes
from ttl_deploy.records import codec
from ttl_deploy.records.benchmarks import BenchReport, BenchRow, Machine, Timing
from ttl_deploy.records.target_results import TargetCheck, TargetResults
from ttl_deploy.runtime.artifact import Artifact
from ttl_deploy.runtime.bench_rows import make_row
from ttl_deploy.runtime.tensorrt.trtexec import GPU_ONLY, WITH_TRANSFERS
from ttl_deploy.runtime.verify import compare_golden

CHECKS = "targets"
"""Folder beside a machine's benchmarks with what was checked of results that were brought here."""
_NAME = "results.json"
_LARGEST_BYTES = 256 * 2**20
_ALLOWED = "give the file that build_on_target.sh wrote"


def read_results(path: Path) -> TargetResults:
    """Read results from the archive that the script wrote, or from a `results.json`; raises `DataError` otherwise.

    Of an archive the one file is read, at most 256 MiB of it; nothing is unpacked.
    """
    try:
        content = json.loads(_read_member(path) if tarfile.is_tarfile(path) else _limited(path.read_bytes(), path))
    except (OSError, EOFError, KeyError, ValueError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"cannot read {path} ({error}): {_ALLOWED}") from error
    if not isinstance(content, dict) or content.get("record") != "TargetResults":
        raise DataError(f"{path} holds no results of a kit: {_ALLOWED}")
    return codec.from_builtins(TargetResults, content, source=str(path))


def artifact_of(results: TargetResults, artifacts: Sequence[Artifact]) -> Artifact:
    """Return the artifact that results are of; raises `DataError` where none is the file that was run."""
    for artifact in artifacts:
        if artifact.model_sha256 == results.artifact_sha256:
            return artifact
    known = ", ".join(f"{one.manifest.name} ({one.model_sha256[:12]})" for one in artifacts) or "none"
    raise DataError(
        f"the results are of {results.artifact} with the model file {results.artifact_sha256[:12]}, which is not here; "
        f"here: {known}. Give the results of this very export, or make them anew with its kit"
    )


def check_results(results: TargetResults, artifact: Artifact) -> TargetCheck:
    """Compare the answers in results with the artifact's golden ones, whatever the script said of them there.

    Raises `DataError` for results of another file or other images, and `GateError` for answers that differ too much.
    """
    artifact_of(results, [artifact])
    images, expected = artifact.golden()
    if results.golden_sha256 != sha256_bytes(np.ascontiguousarray(images).tobytes()):
        raise DataError(f"the results are of other golden images than {artifact.folder} holds: run its own kit again")
    given = np.array([[np.nan if value is None else value for value in row] for row in _even(results)], np.float32)
    if given.shape != expected.shape:
        raise DataError(f"the results hold answers {given.shape}, and {expected.shape} are needed: run the kit again")
    golden = compare_golden(artifact, given, target=results.target)
    if not golden.passed:
        raise GateError(
            f"what ran on {results.host} is not the model: against {golden.reference}, {'; '.join(golden.failures)}"
        )
    return TargetCheck(
        artifact=results.artifact,
        artifact_sha256=results.artifact_sha256,
        host=results.host,
        way=results.way,
        target=results.target,
        runtime=results.runtime,
        precision=results.precision,
        created=results.created,
        golden=golden,
        engine=results.engine,
        notes=results.notes,
    )


def keep_results(results: TargetResults, check: TargetCheck, folder: Path) -> tuple[Path, Path]:
    """Publish benchmark and check in a machine's folder, under the time they were made; returns both paths.

    Results that were brought here before are written again, the same.
    """
    stem = f"{host_folder(results)}-{re.sub(r'[^0-9T]', '', results.created.partition('+')[0])}-{results.way}"
    report, checked = folder / f"{stem}.json", make_folder(folder / CHECKS) / f"{stem}.json"
    codec.save(report, report_of(results))
    codec.save(checked, check)
    return report, checked


def host_folder(results: TargetResults) -> str:
    """Return the machine's name as a folder's name, whatever it calls itself."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", results.host).lstrip(".-") or "unknown"


def report_of(results: TargetResults) -> BenchReport:
    """Return the benchmark: ttl-deploy's own, or one made of the times that trtexec told.

    Rows of trtexec are all of the results' artifact; a benchmark with rows of another raises `DataError`.
    """
    if results.bench is not None:
        if any(row.artifact_sha256 != results.artifact_sha256 for row in results.bench.rows):
            raise DataError(f"the benchmark in the results is of another file than they say: {_ALLOWED}")
        return results.bench
    if not results.times or results.machine is None:
        raise DataError(f"the results hold no times: {_ALLOWED}")
    batches = sorted({one.batch for one in results.times})
    rows = [_row(results, batch, boundary) for batch in batches for boundary in (WITH_TRANSFERS, GPU_ONLY)]
    return BenchReport(
        machine=_with_engine(results.machine, results),
        rows=tuple(rows),
        calibration_before_s=0.0,
        calibration_after_s=0.0,
        versions={"trtexec": results.runtime.rpartition(" ")[2]},
        energy_note="Energy and cold start were not measured: trtexec tells neither.",
    )


def _row(results: TargetResults, batch: int, boundary: str) -> BenchRow:
    timings = []
    for one in results.times:
        samples = one.gpu_s if boundary == GPU_ONLY else one.with_transfers_s
        if one.batch == batch and samples:
            timings.append(Timing(round=one.round, load_s=0.0, warmup_s=(), samples_s=samples, cpu_samples_s=()))
    if not timings or not all(0 < sample < np.inf for timing in timings for sample in timing.samples_s):
        raise DataError(f"the results hold no times above 0 for batches of {batch}: {_ALLOWED}")
    return make_row(
        timings,
        artifact=results.artifact,
        artifact_sha256=results.artifact_sha256,
        target=f"{results.target} (trtexec)",
        runtime=results.runtime,
        precision=results.precision,
        batch=batch,
        threads=1,
        streams=1,
        mode="latency",
        boundary=boundary,
        cores=(),
        runs=0,
        kernels_s=[1.0],
        idle_w={},
    )


def _with_engine(machine: Machine, results: TargetResults) -> Machine:
    gpu = results.engine.gpu if results.engine else ""
    return replace(machine, processor=f"{machine.processor}; {gpu}") if gpu else machine


def _even(results: TargetResults) -> tuple[tuple[float | None, ...], ...]:
    """Return the answers; raises `DataError` where rows are of different lengths, which no array can hold."""
    if len({len(row) for row in results.probabilities}) != 1:
        raise DataError(f"the results' answers are of different lengths: {_ALLOWED}")
    return results.probabilities


def _read_member(path: Path) -> bytes:
    with tarfile.open(path, "r:*") as archive:
        member: Any = archive.extractfile(_NAME)
        if member is None:
            raise DataError(f"{path} holds no {_NAME}: {_ALLOWED}")
        content: bytes = member.read(_LARGEST_BYTES + 1)
    return _limited(content, path)


def _limited(content: bytes, path: Path) -> bytes:
    if len(content) > _LARGEST_BYTES:
        raise DataError(f"{path} holds more than {_LARGEST_BYTES >> 20} MiB of results: {_ALLOWED}")
    return content
