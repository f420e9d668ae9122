"""What it brings to let several trainings share a device: the same ones, some at once, in processes that are warm.

Its functions are called by `gpu.py`; nothing is stored here.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from agreement import deepest_cut, trained

from ttl_deploy.data.cache import open_cache
from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.records.trials import Trial, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.executors import Place
from ttl_deploy.search.executors.local import LocalExecutor
from ttl_deploy.search.executors.memory import estimate_task, find_budget
from ttl_deploy.search.tasks import Task


def share(
    run: RunFolder, device: torch.device, *, trainings: int, at_once: Sequence[int]
) -> Iterator[dict[str, object]]:
    """Yield how fast as many trainings of a run's deepest cut are, and whether they end in the same weights."""
    trial = deepest_cut(trained(run))
    trials = [replace(trial, seed=seed, train=replace(trial.train, patience=0)) for seed in range(trainings)]
    images = len(load_manifest(run.data).of_split("train")) * trial.train.epochs * trainings
    budget = find_budget(device)
    first: dict[str, str] = {}
    for workers in at_once:
        seconds, ended = train_at_once(run, trials, device, workers=workers, memory_bytes=budget)
        first = first or ended
        yield {
            "backbone": trial.model.backbone,
            "cut": trial.model.cut,
            "image_size": trial.model.image_size,
            "trainings": trainings,
            "at_once": workers,
            "seconds": round(seconds, 2),
            "images_per_s": round(images / seconds, 1),
            "same_weights": ended == first,
        }


def train_at_once(
    run: RunFolder, trials: Sequence[Trial], device: torch.device, *, workers: int, memory_bytes: int | None
) -> tuple[float, dict[str, str]]:
    """Train with so many processes that have trained before; returns seconds, and the hashes of the weights."""
    with tempfile.TemporaryDirectory() as parent:
        warm, timed = (RunFolder(Path(parent) / name) for name in ("warm", "timed"))
        for folder in (warm, timed):
            shutil.copytree(run.data, folder.data)
        short = [replace(trial, train=replace(trial.train, epochs=1)) for trial in trials[:workers]]
        place = Place(device=str(device), workers=workers, memory_bytes=memory_bytes)
        with closing(LocalExecutor([place])) as executor:
            train_all(executor, make_tasks(short, warm, run, device))
            tasks = make_tasks(trials, timed, run, device)
            started = time.perf_counter()
            ended = train_all(executor, tasks)
            return time.perf_counter() - started, ended


def make_tasks(trials: Sequence[Trial], folder: RunFolder, run: RunFolder, device: torch.device) -> list[Task]:
    """Describe trainings on a run's images whose results go into another folder."""
    cache = str(open_cache(load_manifest(run.data), run.settings().decode).path)
    return [
        Task(
            kind="train",
            trial=trial,
            run=str(folder.path),
            cache=cache,
            device=str(device),
            cost=1.0,
            memory_bytes=estimate_task("train", trial, device),
        )
        for trial in trials
    ]


def train_all(executor: LocalExecutor, tasks: Sequence[Task]) -> dict[str, str]:
    """Train, and return the hash of each trial's weights."""
    hashes: dict[str, str] = {}
    for done in executor.run(tasks, report=lambda position, progress: None):
        if not isinstance(done.outcome, TrialResult):
            raise RuntimeError(f"{tasks[done.position].trial.key} cannot be trained: {done.outcome}")
        hashes[done.outcome.key] = done.outcome.weights_sha256
    return hashes
