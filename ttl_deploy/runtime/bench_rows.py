"""A benchmark's row from the raw samples of its processes."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ttl_deploy.records.benchmarks import BenchRow, ColdStart, Memory, Mode, Stretch, Timing
from ttl_deploy.runtime.energy import doubt_energy, sum_up_energy
from ttl_deploy.runtime.percentiles import (
    PERCENTS,
    coefficient_of_variation,
    interval_over_processes,
    median_of_medians,
    percentile,
)
from ttl_deploy.runtime.steadiness import judge


def make_row(
    timings: Sequence[Timing],
    *,
    artifact: str,
    artifact_sha256: str,
    target: str,
    runtime: str,
    precision: str,
    batch: int,
    threads: int,
    streams: int,
    mode: Mode,
    boundary: str,
    cores: tuple[int, ...],
    runs: int,
    kernels_s: Sequence[float],
    idle_w: Mapping[str, float],
    rounds: int | None = None,
) -> BenchRow:
    """Sum up the processes of one candidate; `idle_w` is what each energy counter saw of the idle machine.

    `runs` and `rounds` are those asked for; a row with others says so.
    """
    samples = [sample for timing in timings for sample in timing.samples_s]
    median, noise = median_of_medians(timings)
    medians = [float(np.median(timing.samples_s)) for timing in timings]
    low, high = interval_over_processes(medians) if len(medians) > 1 else (None, None)
    energy = sum_up_energy(timings, batch=batch, idle_w=idle_w)
    return BenchRow(
        artifact=artifact,
        artifact_sha256=artifact_sha256,
        target=target,
        runtime=runtime,
        precision=precision,
        batch=batch,
        threads=threads,
        boundary=boundary,
        percentiles=tuple(percentile(samples, percent) for percent in PERCENTS),
        minimum_s=min(samples),
        variation=coefficient_of_variation(samples),
        noise_s=noise,
        throughput=batch / median if mode == "latency" else batch * _calls_per_second(timings),
        verdict=judge(timings, kernels_s=kernels_s, threads=threads * streams),
        timings=tuple(timings),
        mode=mode,
        streams=streams,
        cores=cores,
        median_s=median,
        median_low_s=low,
        median_high_s=high,
        start=_middle_start([timing.start for timing in timings if timing.start is not None]),
        memory=_largest([timing.memory for timing in timings if timing.memory is not None]),
        energy=energy,
        notes=(*_notes(len(samples), runs), *_notes_on_rounds(len(timings), rounds), *doubt_energy(energy)),
        stretches=tuple(
            make_stretch(boundary, [timing.stretches_s[boundary] for timing in timings])
            for boundary in timings[0].stretches_s
        ),
    )


def make_stretch(boundary: str, processes_s: Sequence[Sequence[float]]) -> Stretch:
    """Sum up the times of one stretch in seconds, a sequence for each process, as a row sums up its calls."""
    samples = [sample for one in processes_s for sample in one]
    medians = [float(np.median(one)) for one in processes_s]
    return Stretch(
        boundary=boundary,
        calls=len(samples),
        percentiles=tuple(percentile(samples, percent) for percent in PERCENTS),
        median_s=float(np.median(medians)),
        noise_s=max(medians) - min(medians) if len(medians) > 1 else None,
    )


def _calls_per_second(timings: Sequence[Timing]) -> float:
    """Return the middle process's calls of all streams in a second."""
    spans = [(len(timing.samples_s), timing.contention) for timing in timings]
    return float(np.median([count / contention.elapsed_s for count, contention in spans if contention is not None]))


def _middle_start(starts: Sequence[ColdStart]) -> ColdStart | None:
    """Return the medians of each part of the cold start."""
    if not starts:
        return None
    return ColdStart(
        interpreter_s=float(np.median([start.interpreter_s for start in starts])),
        import_s=float(np.median([start.import_s for start in starts])),
        open_s=float(np.median([start.open_s for start in starts])),
        first_run_s=float(np.median([start.first_run_s for start in starts])),
    )


def _largest(memories: Sequence[Memory]) -> Memory | None:
    return max(memories, key=lambda memory: memory.peak_bytes, default=None)


def _notes(count: int, runs: int) -> Iterator[str]:
    if count < runs:
        yield f"{count} runs, fewer than the {runs} asked for: the limit of time was reached first"


def _notes_on_rounds(made: int, rounds: int | None) -> Iterator[str]:
    if rounds is not None and made > rounds:
        yield f"{made} rounds, {made - rounds} more than asked for: its comparison was inconclusive"
