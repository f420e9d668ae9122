"""Whether `bench` says the same of a file as OpenVINO's own `benchmark_app`, on the same core, in turns.

Run:  chrt --fifo 1 python benchmarks/beside_benchmark_app.py [--models mobilenet_v2,densenet121] [--rounds 10]
`chrt` puts both ahead of all other programs; leave it out on a quiet machine. A model is a backbone, or a backbone and
a cut as in `mobilenet_v2:features.4`, with random weights, at 224 px; each is timed in fp32, in bf16 (the same file)
and in int8 (a quantised file).

Every round runs both once, in an order of its own: a process of `bench` and a process of benchmark_app, one thread, one
stream, one image, synchronous calls, pinned to the same core. Their medians are compared per round. benchmark_app
fills its input with random numbers before its clock starts, and reads OpenVINO's own clock, which runs from
the start to the end of an inference. `bench` times what a caller waits for: it also checks the array, copies it in
and copies the probabilities out. What that adds is measured apart, by both clocks for the same calls: unlike two
processes, these cannot differ by chance. benchmark_app takes `-nstreams` and `-nthreads` only with `-hint none`.
"""

import argparse
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import beside_benchmark_app  # this very file, as children can import it
import numpy as np
from results import store
from untrained_precisions import SIZE, make_files

from ttl_deploy.errors import InconclusiveError
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.records.benchmarks import Timing
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.runtime.cores import choose_cores, limit_threads, pin
from ttl_deploy.runtime.measurement import Measurement, ProcessPlan, measure
from ttl_deploy.runtime.percentiles import mean_and_half_width
from ttl_deploy.runtime.steadiness import waited_share
from ttl_deploy.runtime.targets.openvino_cpu import OpenVinoCpu
from ttl_deploy.runtime.timing import TimingPlan

MEDIAN = re.compile(r"Median:\s+([0-9.]+) ms")
LEAST_CALLS = 40
CLOCKS_S = 6.0
COMMAND = "python benchmarks/beside_benchmark_app.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file in a precision: in our word (None means the file's own) and in benchmark_app's."""

    name: str
    path: Path
    asked: str | None
    hint: str


def candidates_of(model: str, folder: Path) -> tuple[Candidate, ...]:
    """Write a model's files, and return what is timed of it."""
    backbone, _, cut = model.partition(":")
    make_files(folder, ModelSpec(backbone=backbone, cut=cut or "full", classes=2, image_size=SIZE))
    return (
        Candidate(name=f"{model} fp32", path=folder / "single.onnx", asked="fp32", hint="f32"),
        Candidate(name=f"{model} bf16", path=folder / "single.onnx", asked="bf16", hint="bf16"),
        Candidate(name=f"{model} int8", path=folder / "shared.onnx", asked=None, hint="f32"),
    )


def time_with_app(candidate: Candidate, core: int, seconds: float) -> float:
    """Return the median in seconds that benchmark_app prints, to a hundredth of a millisecond."""
    command = [
        *("taskset", "--cpu-list", str(core), str(Path(sys.executable).with_name("benchmark_app"))),
        *("-m", str(candidate.path), "-d", "CPU", "-shape", f"[1,{SIZE},{SIZE},3]"),
        *("-hint", "none", "-api", "sync", "-nstreams", "1", "-nthreads", "1", "-nireq", "1"),
        *("-infer_precision", candidate.hint, "-t", str(math.ceil(seconds))),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = MEDIAN.search(done.stdout)
    if found is None:
        raise ValueError(f"benchmark_app printed no median:\n{done.stdout}")
    return float(found.group(1)) / 1e3


def time_with_bench(candidate: Candidate, core: int, seconds: float, number: int) -> Measurement:
    """Measure one process as `bench` does."""
    plan = ProcessPlan(
        target="openvino-cpu",
        precision=candidate.asked,
        model=candidate.path,
        threads=1,
        images=np.random.default_rng(number).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8),
        timing=TimingPlan(seconds=math.ceil(seconds), calls=40, warmup_limit_s=3.0),
        round_number=number,
        cores=(core,),
    )
    outcome = run_isolated(measure, plan, time.monotonic(), timeout_s=300, environment=limit_threads(1))
    return value_of(outcome, error=InconclusiveError, doing=f"cannot time {candidate.name}")


def time_by_both_clocks(path: Path, asked: str | None, core: int, seconds: float) -> tuple[float, float]:
    """Return medians over the same calls: of what a caller waits, and of what OpenVINO's own clock says, in seconds."""
    pin((core,))
    session = OpenVinoCpu().open(path, threads=1, precision=asked)
    image = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    session.run(image)
    request = session._compiled[1].request
    outside, inside = list[float](), list[float]()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(outside) < LEAST_CALLS:
        began = time.perf_counter()
        session.run(image)
        outside.append(time.perf_counter() - began)
        inside.append(request.latency / 1e3)  # OpenVINO says milliseconds
    return float(np.median(outside)), float(np.median(inside))


def compare(candidate: Candidate, rounds: int, seconds: float) -> dict[str, object]:
    """Run both in turns; returns the ratio of their medians with its interval, and the rounds."""
    order = random.Random(0)
    (core,) = choose_cores(1)
    ours, theirs = list[Timing](), list[float]()
    for number in range(rounds):
        app_first = order.random() < 0.5
        if app_first:
            theirs.append(time_with_app(candidate, core, seconds))
        measured = time_with_bench(candidate, core, seconds, number)
        ours.append(measured.timing)
        if not app_first:
            theirs.append(time_with_app(candidate, core, seconds))
    clocks = run_isolated(
        beside_benchmark_app.time_by_both_clocks,
        *(candidate.path, candidate.asked, core, CLOCKS_S),
        timeout_s=300,
        environment=limit_threads(1),
    )
    outside, inside = value_of(clocks, error=InconclusiveError, doing=f"cannot time {candidate.name}")
    medians = np.array([np.median(timing.samples_s) for timing in ours])
    mean, half = mean_and_half_width(np.log(medians / np.array(theirs)))
    return {
        "model": candidate.name,
        "ran": measured.precision,
        "ratio": round(math.exp(mean), 4),
        "low": round(math.exp(mean - half), 4),
        "high": round(math.exp(mean + half), 4),
        "bench_ms": round(1e3 * float(np.median(medians)), 4),
        "benchmark_app_ms": round(1e3 * float(np.median(theirs)), 4),
        "same_calls_ratio": round(outside / inside, 4),
        "same_calls_added_us": round(1e6 * (outside - inside), 1),
        "waited_share": round(waited_share(ours, threads=1) or 0.0, 3),
        "rounds_ms": [
            [round(1e3 * float(one), 4), round(1e3 * other, 4)] for one, other in zip(medians, theirs, strict=True)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="mobilenet_v2,densenet121")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    for model in given.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            for candidate in candidates_of(model, Path(folder)):
                rows.append(compare(candidate, given.rounds, given.seconds))
                print(rows[-1], flush=True)
    ahead = "chrt --fifo 1 " if os.sched_getscheduler(0) == os.SCHED_FIFO else ""
    store("beside_benchmark_app", f"{ahead}{COMMAND} --models {given.models} --rounds {given.rounds}", rows)


if __name__ == "__main__":
    main()
