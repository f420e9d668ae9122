"""What keeping freed memory saves in training on a CPU: the same trial with and without, in fresh processes.

Run:  python benchmarks/freed_memory.py [--backbone mobilenet_v2] [--rounds 3]
Prints CPU seconds (user + kernel) of one epoch on random images, interleaved, and their ratio.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from results import store

from ttl_deploy.records.models import FULL, ModelSpec
from ttl_deploy.records.trials import TrainSettings, Trial
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.devices import keep_freed_memory
from ttl_deploy.training.loop import run_trial

SIDE = 128
IMAGES = 256


def train_once(backbone: str, keep: bool) -> tuple[float, float]:
    """Train one epoch in this process; returns user and kernel seconds."""
    if keep:
        keep_freed_memory()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    train = LabelledPixels(array=pixels, rows=np.arange(IMAGES), labels=np.arange(IMAGES) % 2)
    val = LabelledPixels(array=pixels, rows=np.arange(32), labels=np.arange(32) % 2)
    spec = ModelSpec(backbone=backbone, cut=FULL, classes=2, image_size=SIDE)
    trial = Trial(model=spec, weights="none", strategy="full", seed=0, train=TrainSettings(epochs=1))
    with tempfile.TemporaryDirectory() as folder:
        run_trial(trial, train=train, val=val, folder=Path(folder), device=torch.device("cpu"))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime


def main() -> None:
    """Measure both variants in turn and print the ratio of their CPU time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    spent: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for _ in range(options.rounds):
            for keep in spent:
                spent[keep].append(pool.apply(train_once, (options.backbone, keep)))
    rows = [
        {
            "freed_memory": "kept" if keep else "returned",
            "cpu_s": [round(sum(time), 2) for time in times],
            "kernel_s": [round(time[1], 2) for time in times],
        }
        for keep, times in spent.items()
    ]
    for row in rows:
        print(*(f"{key} {value}" for key, value in row.items()), sep=", ")
    totals = [statistics.median(map(sum, times)) for times in spent.values()]
    print(f"ratio kept / returned, of the medians: {totals[1] / totals[0]:.3f}")
    store("freed_memory", f"python benchmarks/freed_memory.py --backbone {options.backbone}", rows)


if __name__ == "__main__":
    main()
