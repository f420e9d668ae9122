"""Whether `bench` says the same of a file as OpenVINO's own `benchmark_app`, on the same core, in turns.

Run:  chrt --fifo 1 python benchmarks/beside_benchmark_app.py ARTIFACT [ARTIFACT ...] [--rounds 10] [--seconds 2]
`chrt` puts both ahead of all other programs; leave it out on a quiet machine.
Every round runs both once, in an order of its own: a process of `bench` and a process of benchmark_app, fp32, one
thread, one stream, one image, synchronous calls, pinned to the same core. Their medians are compared per round.
`bench` times what a caller waits for: it also checks the array and copies the probabilities.
"""

import argparse
import math
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from results import store

from ttl_deploy.processes import Finished, run_isolated
from ttl_deploy.runtime.artifact import Artifact, open_artifact
from ttl_deploy.runtime.cores import choose_cores, limit_threads
from ttl_deploy.runtime.measurement import Measurement, ProcessPlan, measure
from ttl_deploy.runtime.percentiles import mean_and_half_width
from ttl_deploy.runtime.steadiness import waited_share
from ttl_deploy.runtime.timing import TimingPlan

MEDIAN = re.compile(r"Median:\s+([0-9.]+) ms")


def time_with_app(artifact: Artifact, core: int, seconds: float) -> float:
    """Return the median in seconds that benchmark_app prints."""
    spec = artifact.manifest.input
    command = [
        *("taskset", "--cpu-list", str(core), str(Path(sys.executable).with_name("benchmark_app"))),
        *("-m", str(artifact.model_path), "-d", "CPU", "-shape", f"[1,{spec.height},{spec.width},3]"),
        *("-hint", "none", "-api", "sync", "-nstreams", "1", "-nthreads", "1", "-nireq", "1"),
        *("-infer_precision", "f32", "-t", str(math.ceil(seconds))),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = MEDIAN.search(done.stdout)
    if found is None:
        raise ValueError(f"benchmark_app printed no median:\n{done.stdout}")
    return float(found.group(1)) / 1e3


def time_with_bench(artifact: Artifact, core: int, seconds: float, number: int) -> Measurement:
    """Measure one process as `bench` does."""
    golden, _ = artifact.golden()
    timing = TimingPlan(seconds=seconds, calls=40, warmup_limit_s=3.0)
    plan = ProcessPlan(
        target="openvino-cpu",
        precision="fp32",
        model=artifact.model_path,
        threads=1,
        images=golden[:1],
        timing=timing,
        round_number=number,
        cores=(core,),
    )
    outcome = run_isolated(measure, plan, time.monotonic(), timeout_s=300, environment=limit_threads(1))
    if not isinstance(outcome, Finished):
        raise RuntimeError(outcome.reason)
    return outcome.value


def _describe_scheduling() -> str:
    return "chrt --fifo 1 " if os.sched_getscheduler(0) == os.SCHED_FIFO else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    for path in given.artifacts:
        rows += compare(open_artifact(path), given.rounds, given.seconds)
    command = f"python benchmarks/beside_benchmark_app.py ARTIFACT ARTIFACT --rounds {given.rounds}"
    store("beside_benchmark_app", _describe_scheduling() + command, rows)


def compare(artifact: Artifact, rounds: int, seconds: float) -> list[dict[str, object]]:
    """Run both in turns; returns the ratio of their medians with its interval, and then the rounds."""
    order = random.Random(0)
    (core,) = choose_cores(1)
    rows: list[dict[str, object]] = []
    logarithms = []
    for number in range(rounds):
        app_first = order.random() < 0.5
        app_s = time_with_app(artifact, core, seconds) if app_first else 0.0
        ours = time_with_bench(artifact, core, seconds, number).timing
        app_s = app_s if app_first else time_with_app(artifact, core, seconds)
        ours_s = float(np.median(ours.samples_s))
        logarithms.append(math.log(ours_s / app_s))
        waited = waited_share([ours], threads=1) or 0.0
        rows.append({"bench_s": ours_s, "benchmark_app_s": app_s, "waited_share": round(waited, 3)})
        print(rows[-1], flush=True)
    mean, half = mean_and_half_width(np.array(logarithms))
    bounds = {"ratio": math.exp(mean), "low": math.exp(mean - half), "high": math.exp(mean + half)}
    print(bounds)
    return [{"model": artifact.manifest.name, "rounds": rounds, **bounds}, *rows]


if __name__ == "__main__":
    main()
