"""Whether `bench` tells a disturbed machine from a quiet one, shown on this one.

Run:  python benchmarks/loaded_machine.py ARTIFACT [--repeats 3]
Benchmarks an artifact on the machine as it is; with two busy loops per core, started by this script; and with
real-time scheduling (where that is allowed), which is as quiet as a shared machine becomes. Stores
verdicts and what they rest on.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from results import store

from ttl_deploy.runtime.artifact import Artifact, open_artifact
from ttl_deploy.runtime.bench import BenchPlan, bench
from ttl_deploy.runtime.machine import usable_cores
from ttl_deploy.runtime.steadiness import waited_share

PLAN = BenchPlan(seconds=1.5, warmup_limit_s=1.0)
LOOPS_PER_CORE = 2


@contextmanager
def as_it_is() -> Iterator[None]:
    """Change nothing."""
    yield


@contextmanager
def two_busy_loops_per_core() -> Iterator[None]:
    """Keep every core busy twice over."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(LOOPS_PER_CORE * usable_cores())
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@contextmanager
def ahead_of_all_others() -> Iterator[None]:
    """Be scheduled in real time, as by `chrt --fifo 1`; children inherit it."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def describe(artifact: Artifact, condition: str, seed: int) -> dict[str, object]:
    """Benchmark once, and return the verdict with its grounds."""
    (row,) = bench([artifact], replace(PLAN, seed=seed)).rows
    kernels = [timing.contention.kernel_s for timing in row.timings if timing.contention is not None]
    return {
        "condition": condition,
        "verdict": row.verdict,
        "waited_share": round(waited_share(row.timings, threads=1) or 0.0, 4),
        "median_ms": round(1e3 * (row.median_s or 0.0), 4),
        "p90_ms": round(1e3 * (row.percentiles[1].value_s or 0.0), 4),
        "noise": round(row.noise_s / (row.median_s or 1.0), 4),
        "variation": round(row.variation, 3),
        "kernel_change": round(max(kernels) / min(kernels) - 1, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    artifact = open_artifact(given.artifact)
    rows: list[dict[str, object]] = []
    for number in range(given.repeats):
        for condition in (as_it_is, two_busy_loops_per_core, ahead_of_all_others):
            name = condition.__name__.replace("_", " ")
            try:
                with condition():
                    rows.append(describe(artifact, name, seed=number))
            except PermissionError as error:
                rows.append({"condition": name, "verdict": f"not allowed: {error}"})
            print(rows[-1], flush=True)
    store("loaded_machine", f"python benchmarks/loaded_machine.py ARTIFACT --repeats {given.repeats}", rows)


if __name__ == "__main__":
    main()
