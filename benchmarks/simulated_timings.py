"""Rows of a benchmark drawn at random, as bad as real machines: to see how often a comparison is wrong."""

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.records.benchmarks import BenchRow, Timing
from ttl_deploy.runtime.bench_rows import make_row

BASE_S = 0.010
JITTER = 0.02


def simulate_rows(
    *,
    seed: int,
    ratio: float = 1.0,
    rounds: int = 5,
    calls: int = 60,
    between: float = 0.015,
    memory: float = 0.9,
    drift: float = 0.0,
    outliers: float = 0.0,
    worst: float = 0.3,
) -> list[BenchRow]:
    """Draw two candidates, the second `ratio` times as slow, that a benchmark ran in shuffled rounds.

    `between` is the spread (one standard deviation, a share) of processes of one candidate. Calls within a process
    resemble the one before: `memory` is their correlation. The machine becomes slower by the share `drift` from the
    first to the last process. A share `outliers` of the processes lands in a bad spot, slower by a share of
    up to `worst`.
    """
    generator = np.random.default_rng(seed)
    timings: list[list[Timing]] = [[], []]
    for number in range(rounds):
        for place, index in enumerate(generator.permutation(2)):
            progress = (2 * number + place) / max(1, 2 * rounds - 1)
            level = BASE_S * (ratio if index else 1.0) * (1 + drift * progress) * np.exp(generator.normal(0, between))
            if generator.random() < outliers:
                level *= 1 + generator.uniform(0.0, worst)
            samples = tuple(map(float, level * np.exp(_jitter(generator, calls, memory))))
            timings[index].append(
                Timing(round=number, load_s=0.1, warmup_s=(0.1,), samples_s=samples, cpu_samples_s=samples)
            )
    return [_row(name, found) for name, found in zip("ab", timings, strict=True)]


def _jitter(generator: np.random.Generator, calls: int, memory: float) -> NDArray[np.float64]:
    """Draw an autoregressive series, its standard deviation `JITTER`, always a little to the slow side."""
    values = np.empty(calls)
    values[0] = generator.normal(0, JITTER)
    for place in range(1, calls):
        values[place] = memory * values[place - 1] + generator.normal(0, JITTER * np.sqrt(1 - memory**2))
    return np.asarray(values + generator.exponential(JITTER / 5, calls))


def _row(name: str, timings: list[Timing]) -> BenchRow:
    return make_row(
        timings,
        artifact=name,
        artifact_sha256="0" * 64,
        target="simulated",
        runtime="simulated",
        precision="fp32",
        batch=1,
        threads=1,
        streams=1,
        mode="latency",
        boundary="call",
        cores=(),
        runs=1,
        kernels_s=[1.0],
        idle_w={},
    )
