"""What another tool told of a model's times, beside ours of the same stretch, batch and machine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ttl_deploy.records.benchmarks import BenchReport, BenchRow, Stretch

_TOLD_BY_TRTEXEC = "(trtexec)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A stretch by another tool, and by us where we timed it; `target` is ours, `precision` what ran in ours."""

    batch: int
    told_by: str
    theirs: Stretch
    ours: Stretch | None = None
    target: str = ""
    precision: str = ""

    @property
    def ratio(self) -> float | None:
        """Our median over theirs: above 1 where ours took longer."""
        return self.ours.median_s / self.theirs.median_s if self.ours else None


def set_beside(reports: Sequence[BenchReport], artifact_sha256s: Sequence[str] | None = None) -> tuple[Beside, ...]:
    """Return every stretch that another tool told, once for each of our rows with it, or alone where none has it.

    Ours are those of the same machine and batch, and of the same precision where the other's is known. Only rows of
    the artifacts that are named, by the hash of the model file.
    """
    found: list[Beside] = []
    for report in reports:
        rows = [
            row for one in reports if one.machine.host == report.machine.host for row in _rows(one, artifact_sha256s)
        ]
        found += [pair for other in _told(report, artifact_sha256s) for pair in _pairs(other, rows)]
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    batch: int
    told_by: str
    stretch: Stretch
    precision: str = ""


def _rows(report: BenchReport, sha256s: Sequence[str] | None) -> list[BenchRow]:
    return [row for row in report.rows if sha256s is None or row.artifact_sha256 in sha256s]


def _told(report: BenchReport, sha256s: Sequence[str] | None) -> Iterator[_Told]:
    """Yield what was imported into a report, and its rows that a kit measured by trtexec."""
    rows = _rows(report, sha256s)
    for one in report.imported if rows or sha256s is None else ():
        graph = {True: ", CUDA graph", False: ", no CUDA graph", None: ""}[one.cuda_graph]
        for stretch in one.stretches:
            yield _Told(batch=one.batch, told_by=one.told_by + graph, stretch=stretch)
    for row in rows:
        if row.target.endswith(_TOLD_BY_TRTEXEC) and row.median_s is not None:
            whole = Stretch(
                boundary=row.boundary,
                calls=sum(len(timing.samples_s) for timing in row.timings),
                percentiles=row.percentiles,
                median_s=row.median_s,
                noise_s=row.noise_s,
            )
            yield _Told(batch=row.batch, told_by=f"trtexec, {row.runtime}", stretch=whole, precision=row.precision)


def _pairs(told: _Told, rows: Sequence[BenchRow]) -> list[Beside]:
    alone = Beside(batch=told.batch, told_by=told.told_by, theirs=told.stretch)
    pairs = [
        Beside(
            batch=told.batch,
            told_by=told.told_by,
            theirs=told.stretch,
            ours=stretch,
            target=row.target,
            precision=row.precision,
        )
        for row in rows
        for stretch in row.stretches
        if row.batch == told.batch
        and stretch.name == told.stretch.name
        and (not told.precision or told.precision == row.precision)
    ]
    return pairs or [alone]
