"""What a precision costs and saves: file size and CPU time per image of every artifact of a run, interleaved.

    python benchmarks/precisions.py RUN [--rounds 3] [--runs 30]

Every round runs every artifact once, in shuffled order, each in a fresh process with one thread. What is compared is
CPU time (`time.process_time`), which other load on the machine moves little; `ttl-deploy bench` measures the wall
clock, with verdicts. Files of the format `onnx` in int8 are run on both CPU runtimes, to show the difference.
"""

import argparse
import random
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import precisions  # this very file, as children can import it
from results import store

from ttl_deploy import plugins
from ttl_deploy.errors import InconclusiveError
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime.artifact import Artifact, open_artifact, precision_to_ask

WARMUP = 5
TIMEOUT_S = 600.0


def main() -> None:
    """Measure, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=30)
    given = parser.parse_args()
    candidates = [
        (opened, target)
        for opened in map(open_artifact, sorted(RunFolder(given.run).exports()))
        for target in targets_of(opened)
    ]
    samples: dict[tuple[str, str], list[tuple[float, str, str]]] = {}
    for _ in range(given.rounds):
        for opened, target in random.sample(candidates, len(candidates)):
            measured = run_isolated(
                precisions.time_file,
                target,
                opened.model_path,
                precision_to_ask(opened.manifest),
                given.runs,
                timeout_s=TIMEOUT_S,
            )
            found = value_of(measured, error=InconclusiveError, doing=f"cannot time {opened.folder.name} on {target}")
            samples.setdefault((opened.folder.name, target), []).append(found)
    rows = [describe(opened, target, samples[opened.folder.name, target]) for opened, target in candidates]
    print("| artifact | target | ran | file MB | CPU ms per image | rounds |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        rounds = ", ".join(f"{value:.1f}" for value in row["rounds_ms"])
        print(
            f"| {row['artifact']} | {row['target']} | {row['ran']} | {row['megabytes']:.2f} | {row['cpu_ms']:.1f} | "
            f"{rounds} |"
        )
    store(f"precisions-{given.run.name}", f"python benchmarks/precisions.py {given.run}", rows)


def targets_of(opened: Artifact) -> tuple[str, ...]:
    """Return where an artifact is timed: where it belongs, and 8 bits that runtimes share on both."""
    manifest = opened.manifest
    both = manifest.format == "onnx" and manifest.precision == "int8"
    return tuple(dict.fromkeys((opened.default_target, *(("onnxruntime-cpu",) if both else ()))))


def time_file(target: str, path: Path, precision: str | None, runs: int) -> tuple[float, str, str]:
    """Return the median CPU seconds of one image, the precision that ran and the runtime; for a child process."""
    session = plugins.load("targets", target)().open(path, threads=1, precision=precision)
    image = np.random.default_rng(0).integers(0, 256, (1, session.height, session.width, 3), dtype=np.uint8)
    for _ in range(WARMUP):
        session.run(image)
    times = []
    for _ in range(runs):
        begun = time.process_time()
        session.run(image)
        times.append(time.process_time() - begun)
    return statistics.median(times), session.precision, session.runtime


def describe(opened: Artifact, target: str, samples: list[tuple[float, str, str]]) -> dict[str, Any]:
    """Return a row: the median of the rounds' medians, and each of them."""
    size = sum(entry.size_bytes for entry in opened.manifest.files if entry.name.startswith("model."))
    return {
        "artifact": opened.folder.name,
        "target": target,
        "runtime": samples[0][2],
        "ran": samples[0][1],
        "megabytes": size / 1e6,
        "cpu_ms": statistics.median(value for value, *_ in samples) * 1e3,
        "rounds_ms": [value * 1e3 for value, *_ in samples],
    }


if __name__ == "__main__":
    main()
