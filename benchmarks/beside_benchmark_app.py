"""Whether `bench` says the same of a file as OpenVINO's own `benchmark_app`, on the same core, in turns.

Run:  python benchmarks/beside_benchmark_app.py ARTIFACT [--rounds 8] [--seconds 3]
Every round runs both once, in an order of its own: a process of `bench` and a process of benchmark_app, fp32, one
thread, one stream, one image, synchronous calls, pinned to the same core. Their medians are compared per round.
`bench` times what a caller waits for: it also checks the array and copies the probabilities.
"""

import argparse
import math
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    artifact, order = open_artifact(given.artifact), random.Random(0)
    (core,) = choose_cores(1)
    rows: list[dict[str, object]] = []
    logarithms = []
    for number in range(given.rounds):
        app_first = order.random() < 0.5
        app_s = time_with_app(artifact, core, given.seconds) if app_first else 0.0
        ours = time_with_bench(artifact, core, given.seconds, number).timing
        app_s = app_s if app_first else time_with_app(artifact, core, given.seconds)
        ours_s = float(np.median(ours.samples_s))
        logarithms.append(math.log(ours_s / app_s))
        waited = waited_share([ours], threads=1) or 0.0
        rows.append({"bench_s": ours_s, "benchmark_app_s": app_s, "waited_share": round(waited, 3)})
        print(rows[-1], flush=True)
    mean, half = mean_and_half_width(np.array(logarithms))
    bounds = {"ratio": math.exp(mean), "low": math.exp(mean - half), "high": math.exp(mean + half)}
    summary = {"model": artifact.manifest.name, "rounds": given.rounds, **bounds}
    print(summary)
    store(
        "beside_benchmark_app",
        f"python benchmarks/beside_benchmark_app.py ARTIFACT --rounds {given.rounds}",
        [summary, *rows],
    )


if __name__ == "__main__":
    main()
