"""What the training loop costs beside the training itself: the product's epoch against a bare loop in memory.

Run:  OMP_NUM_THREADS=1 python benchmarks/training_loop.py [--rounds 4]
Both train the same truncated network with the same optimiser, precision and batch size on one thread. The
product's epoch reads, augments, normalises, checks and clips; the bare loop has its batches ready and only
does forward, backward and step. Interleaved A B B A; prints images per CPU-second and the ratio of the
medians, and beside it the ratio without augmentation and the CPU-seconds of the product's parts.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from results import store
from torch import Tensor, nn
from torch.nn import functional

from ttl_deploy.models import truncation
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import Augmentation, Precision, TrainSettings, Trial
from ttl_deploy.training import batches, devices, loop
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.freezing import train_mode
from ttl_deploy.training.learning import Learning
from ttl_deploy.training.strategies import find_strategy

SIDE, IMAGES, BATCH = 128, 128, 32
CUTS = {"mobilenet_v2": "features.13", "resnet18": "layer2.1"}
CPU = torch.device("cpu")
STILL = Augmentation(flip=False, rotate_deg=0, zoom=0, shift=0, brightness=0, contrast=0)
Spent = tuple[float, float]
"""CPU and wall seconds."""


def measure(work: Callable[[], object], device: torch.device = CPU) -> Spent:
    """Return how long the work took, until the device had done it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    wait()
    return time.process_time() - cpu, time.perf_counter() - wall


def make_trial(
    backbone: str,
    augmentation: Augmentation,
    *,
    cut: str | None = None,
    side: int = SIDE,
    precision: Precision = "fp32",
) -> Trial:
    """Describe a trial on a network, by default cut in its middle."""
    spec = ModelSpec(backbone=backbone, cut=cut or CUTS[backbone], classes=2, image_size=side)
    settings = TrainSettings(epochs=100, batch_size=BATCH, precision=precision, augmentation=augmentation)
    return Trial(model=spec, weights="none", strategy="full", seed=0, train=settings)


def draw(images: int = IMAGES, side: int = SIDE) -> LabelledPixels:
    """Draw random images."""
    pixels = np.random.default_rng(0).integers(0, 256, (images, side, side, 3), dtype=np.uint8)
    return LabelledPixels(array=pixels, rows=np.arange(images), labels=np.arange(images) % 2)


def product_epochs(trial: Trial, data: LabelledPixels, device: torch.device = CPU) -> Iterator[Spent]:
    """Yield what each epoch's learning took in the product's loop; validation and checkpoints are left out."""
    with tempfile.TemporaryDirectory() as folder:
        training = loop._Training(trial, data, data, folder=Path(folder), device=device)
        for epoch in itertools.count(1):
            yield measure(lambda epoch=epoch: training._learn(epoch, lambda progress: None, batches.Wait()), device)


def bare_epochs(trial: Trial, data: LabelledPixels, device: torch.device = CPU) -> Iterator[Spent]:
    """Yield what each epoch took in a loop of forward, backward and step over batches that lie on the device."""
    devices.seed_epoch(0, 0)
    model = devices.place(truncation.build(trial.model), device)
    precision = devices.pick_precision(trial.train.precision, device=device, model=model)
    optimiser = Learning(model, find_strategy("full").phases(model, trial.model, trial.train)[0]).optimiser
    plan = batches.in_order(len(data), batch_size=BATCH)
    ready = [
        (batches.normalise(images, trial.input), labels) for images, labels in batches.load(data, plan, device=device)
    ]
    train_mode(model)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    step = partial(bare_step, model, optimiser, scaler, partial(devices.autocast, precision, device))
    while True:
        yield measure(lambda: [step(images, labels) for images, labels in ready], device)


def bare_step(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    autocast: Callable[[], AbstractContextManager[object]],
    images: Tensor,
    labels: Tensor,
) -> None:
    """Take a step on a batch."""
    optimiser.zero_grad(set_to_none=True)
    with autocast():
        loss = functional.cross_entropy(model(images).float(), labels)
    scaler.scale(loss).backward()
    scaler.step(optimiser)
    scaler.update()


def interleave(loops: Mapping[str, Iterator[Spent]], rounds: int) -> dict[str, list[Spent]]:
    """Run an epoch of each loop in turn, forwards and backwards, after one of each to warm up."""
    for epochs in loops.values():
        next(epochs)
    spent: dict[str, list[Spent]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name in (*loops, *reversed(loops)):
            spent[name].append(next(loops[name]))
    return spent


def time_parts(trial: Trial, data: LabelledPixels) -> dict[str, float]:
    """Return CPU seconds per epoch of reading, augmenting and normalising, each on its own."""
    plan = batches.in_order(len(data), batch_size=BATCH)
    read = list(batches.load(data, plan, device=CPU))
    generator = torch.Generator().manual_seed(0)
    changed = [batches.augment(images, trial.train.augmentation, generator=generator) for images, _ in read]
    work = SimpleNamespace(
        read=lambda: list(batches.load(data, plan, device=CPU)),
        augment=lambda: [batches.augment(images, trial.train.augmentation, generator=generator) for images, _ in read],
        normalise=lambda: [batches.normalise(images, trial.input) for images in changed],
    )
    return {name: round(statistics.median(measure(job)[0] for _ in range(5)), 4) for name, job in vars(work).items()}


def compare(backbone: str, rounds: int) -> dict[str, object]:
    """Run the loops in turn, forwards and backwards; returns a row of figures."""
    data, trial = draw(), make_trial(backbone, Augmentation())
    loops = {
        "product": product_epochs(trial, data),
        "still": product_epochs(make_trial(backbone, STILL), data),
        "bare": bare_epochs(trial, data),
    }
    spent = interleave(loops, rounds)
    cpu = {name: statistics.median(times[0] for times in spent[name]) for name in loops}
    wall = {name: statistics.median(times[1] for times in spent[name]) for name in loops}
    return {
        "backbone": backbone,
        "cut": CUTS[backbone],
        "ratio_cpu": round(cpu["bare"] / cpu["product"], 3),
        "ratio_wall": round(wall["bare"] / wall["product"], 3),
        "ratio_cpu_without_augmentation": round(cpu["bare"] / cpu["still"], 3),
        "images_per_cpu_s": {name: round(IMAGES / seconds, 1) for name, seconds in cpu.items()},
        "parts_cpu_s_per_epoch": time_parts(trial, data),
        "epochs_cpu_s": {name: [round(times[0], 3) for times in spent[name]] for name in loops},
    }


def main() -> None:
    """Compare on every backbone, print the ratios and store all figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    devices.keep_freed_memory()
    with devices.repeatable(1):
        rows = [compare(backbone, options.rounds) for backbone in CUTS]
    for row in rows:
        print(*(f"{key} {value}" for key, value in row.items() if key != "epochs_cpu_s"), sep=", ")
    store("training_loop", f"OMP_NUM_THREADS=1 python benchmarks/training_loop.py --rounds {options.rounds}", rows)


if __name__ == "__main__":
    main()
