"""How often `bench --compare` calls a file faster or slower than its own copy: it should be a tie in 95 of 100 runs.

Run:  python benchmarks/aa_comparison.py ARTIFACT [--runs 100] [--minutes 30]
      python benchmarks/aa_comparison.py --simulate
The first compares an artifact with its copy by short benchmarks, on this machine as it is, and stores every result
with how disturbed the machine was; it stops when time is up and says how many runs there were. The second draws
benchmarks at random and counts verdicts: of the rule in use, and of a bootstrap over processes and blocks of calls.
"""

import argparse
import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from results import store
from simulated_timings import simulate_rows

from ttl_deploy.records.benchmarks import BenchReport, BenchRow
from ttl_deploy.runtime.artifact import Artifact, open_artifact
from ttl_deploy.runtime.bench import BenchPlan, bench
from ttl_deploy.runtime.comparison import FASTER, SLOWER, TIE, compare_rows
from ttl_deploy.runtime.steadiness import INCONCLUSIVE, waited_share

SHORT = BenchPlan(seconds=0.5, runs=100, rounds=5, limit_s=10.0, warmup_limit_s=0.5, compare=True)
SIMULATED = 400
DRAWS = 300
BLOCK = 10
MACHINES: tuple[dict[str, float], ...] = (
    {},
    {"between": 0.03},
    {"memory": 0.99},
    {"drift": 0.1},
    {"drift": 0.3},
    {"outliers": 0.2},
    {"outliers": 0.4, "worst": 0.6},
)
PLANS = (
    {"rounds": 3, "extra_rounds": 0},
    {"rounds": 5, "extra_rounds": 0},
    {"rounds": 5, "extra_rounds": 10},
    {"rounds": 10, "extra_rounds": 0},
)


def compare_once(artifacts: Sequence[Artifact], seed: int) -> dict[str, object]:
    """Make one short benchmark of a file and its copy."""
    began = time.perf_counter()
    report = bench(artifacts, replace(SHORT, seed=seed))
    (one,) = report.comparisons
    return {
        "verdict": one.verdict,
        "basis": one.basis,
        "ratio": round(one.ratio, 4),
        "low": round(one.low, 4),
        "high": round(one.high, 4),
        "floor": round(one.floor, 4),
        "rounds": len(report.rows[0].timings),
        "row_verdicts": [row.verdict.partition(":")[0] for row in report.rows],
        "waited_share": round(_waited(report), 3),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _waited(report: BenchReport) -> float:
    return max(waited_share(row.timings, threads=1) or 0.0 for row in report.rows)


def measure(path: Path, runs: int, minutes: float) -> None:
    """Compare as often as asked for, or as time allows."""
    end = time.monotonic() + 60 * minutes
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(path, Path(folder) / "copy"))
        artifacts = [open_artifact(path), open_artifact(copy)]
        while len(rows) < runs and time.monotonic() < end:
            rows.append(compare_once(artifacts, seed=len(rows)))
            print(len(rows), rows[-1], flush=True)
    counts = Counter(str(row["verdict"]).partition(":")[0] for row in rows)
    summary = {
        "runs": len(rows),
        "model": artifacts[0].manifest.name,
        **counts,
        "within_3_percent": sum(abs(math.log(float(str(row["ratio"])))) < math.log(1.03) for row in rows),
        "interval_without_1": sum(not float(str(row["low"])) <= 1 <= float(str(row["high"])) for row in rows),
        "rounds_added": sum(int(str(row["rounds"])) > SHORT.rounds for row in rows),
        "inconclusive_rows": sum("inconclusive" in str(row["row_verdicts"]) for row in rows),
        "waited_share_median": float(np.median([float(str(row["waited_share"])) for row in rows])),
    }
    print(summary)
    store("aa_comparison", f"python benchmarks/aa_comparison.py ARTIFACT --runs {runs}", [summary, *rows])


def simulate() -> None:
    """Count verdicts of both rules on drawn benchmarks, of a copy and of a file 10 % slower."""
    rows = []
    for machine, plan in [(machine, plan) for machine in MACHINES for plan in PLANS]:
        row: dict[str, object] = {"machine": machine, "plan": plan}
        for ratio in (1.0, 1.1):
            drawn = [draw(seed, ratio, machine, plan) for seed in range(SIMULATED)]
            verdicts = [compare_rows(pair, first=0, second=1).verdict for pair in drawn]
            different = [excludes_one(pair, seed) for seed, pair in enumerate(drawn)]
            row[f"ties_at_{ratio}"] = sum(verdict == TIE for verdict in verdicts) / SIMULATED
            row[f"differences_at_{ratio}"] = sum(verdict in (FASTER, SLOWER) for verdict in verdicts) / SIMULATED
            row[f"bootstrap_differences_at_{ratio}"] = sum(different) / SIMULATED
            row[f"rounds_at_{ratio}"] = sum(len(pair[0].timings) for pair in drawn) / SIMULATED
        rows.append(row)
        print(row, flush=True)
    store("aa_simulated", "python benchmarks/aa_comparison.py --simulate", rows)


def draw(seed: int, ratio: float, machine: Mapping[str, float], plan: Mapping[str, int]) -> list[BenchRow]:
    """Draw a benchmark to which rounds are added while it is inconclusive, as `bench` does.

    A drift is that of the asked rounds, and goes on through the others.
    """
    least, most = plan["rounds"], plan["rounds"] + plan["extra_rounds"]
    drift = machine.get("drift", 0.0) * most / least
    whole = simulate_rows(seed=seed, ratio=ratio, rounds=most, **{**machine, "drift": drift})  # type: ignore[arg-type]  # mypy cannot see which keyword is which
    for count in range(least, most):
        rows = [replace(row, timings=row.timings[:count]) for row in whole]
        if not compare_rows(rows, first=0, second=1).verdict.startswith(INCONCLUSIVE):
            return rows
    return whole


def excludes_one(rows: Sequence[BenchRow], seed: int) -> bool:
    """Tell whether the 95 % interval of the ratio excludes 1, by a bootstrap over processes, then blocks of calls."""
    generator = np.random.default_rng(seed)
    middles = []
    for row in rows:
        calls = np.array([timing.samples_s for timing in row.timings])
        blocks = calls.reshape(len(calls), -1, BLOCK)
        processes = generator.integers(0, len(calls), (DRAWS, len(calls)))
        chosen = generator.integers(0, blocks.shape[1], (*processes.shape, blocks.shape[1]))
        medians = np.median(blocks[processes[..., None], chosen].reshape(*processes.shape, -1), axis=-1)
        middles.append(np.median(medians, axis=1))
    low, high = np.quantile(middles[1] / middles[0], [0.025, 0.975])
    return bool(low > 1 or high < 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--simulate", action="store_true")
    given = parser.parse_args()
    if given.simulate:
        simulate()
    elif given.artifact is None:
        parser.error("give an artifact, or --simulate")
    else:
        measure(given.artifact, given.runs, given.minutes)


if __name__ == "__main__":
    main()
