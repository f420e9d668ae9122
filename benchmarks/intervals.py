"""How long the intervals of all metrics take, 2,000 replicates over patients, against scikit-learn for AUROC alone.

Run:  python benchmarks/intervals.py [--rounds 3]
scikit-learn is timed on a few replicates, the way one would write it (draw patients, copy their rows, score), and its
time is multiplied up. Both are CPU times of one thread, taken in turns.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from results import store
from sklearn.metrics import roc_auc_score

from ttl_deploy.evidence import intervals

REPLICATES = 2000
COPIED = 20
CASES = ((20_000, 20_000, 2), (20_000, 5_000, 2), (5_000, 5_000, 8), (600, 400, 2))
"""Images, patients, classes."""
Drawn = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]


def draw(images: int, patients: int, classes: int) -> Drawn:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, images)
    probabilities = generator.random((images, classes)) + 0.5 * np.eye(classes)[labels]
    owners = np.arange(images) if patients == images else generator.integers(0, patients, images)
    return probabilities / probabilities.sum(axis=1, keepdims=True), labels, owners


def copy_and_score(data: Drawn) -> None:
    """Bootstrap AUROC over patients by copying rows, `COPIED` times."""
    probabilities, labels, patients = data
    order = np.argsort(patients, kind="stable")
    ends = np.cumsum(np.bincount(patients))
    begins = ends - np.bincount(patients)
    generator = np.random.default_rng(0)
    for _ in range(COPIED):
        drawn = generator.integers(0, len(ends), len(ends))
        rows = np.concatenate([order[begins[one] : ends[one]] for one in drawn])
        for k in range(probabilities.shape[1] if probabilities.shape[1] > 2 else 1):
            klass = k if probabilities.shape[1] > 2 else 1
            roc_auc_score(labels[rows] == klass, probabilities[rows, klass])


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return CPU and wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds: int = parser.parse_args().rounds
    rows: list[dict[str, object]] = []
    for images, patients, classes in CASES:
        data = draw(images, patients, classes)
        ours, walls, theirs = [], [], []
        for _ in range(rounds):
            cpu, wall = seconds(lambda data=data: intervals.scores(*data, split="test", replicates=REPLICATES))
            ours.append(cpu)
            walls.append(wall)
            theirs.append(seconds(lambda data=data: copy_and_score(data))[0] * REPLICATES / COPIED)
        rows.append(
            {
                "images": images,
                "patients": patients,
                "classes": classes,
                "replicates": REPLICATES,
                "all_metrics_cpu_s": min(ours),
                "all_metrics_wall_s": min(walls),
                "copying_auroc_cpu_s": min(theirs),
                "ratio": min(theirs) / min(ours),
            }
        )
        print(rows[-1])
    store("intervals", f"python benchmarks/intervals.py --rounds {rounds}", rows)


if __name__ == "__main__":
    main()
