"""How fast this machine trains: a few real steps, timed in as many processes at once as would train side by side."""

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ttl_deploy.errors import TtlDeployError
from ttl_deploy.models import truncation
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.records.trials import Precision, Trial
from ttl_deploy.training import batches, checkpoints, devices, evaluation, losses
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.freezing import train_mode
from ttl_deploy.training.learning import Learning
from ttl_deploy.training.steps import GuardedSteps
from ttl_deploy.training.strategies import find_strategy

_BUDGET_S = 0.8
"""How long each kind of step is timed."""
_FIRST_IMAGES = 4
_TIMEOUT_S = 600.0
MOST_AT_ONCE = 4
"""Processes that take the times side by side, at most: more would hardly tell more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """What one model takes, in seconds: a training step and a validation pass, per image; its making; a checkpoint."""

    image_s: float
    validation_s: float
    begin_s: float
    save_s: float
    precision: Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What the full network and the cheapest cut take, by which what lies between is estimated.

    `macs` are those of one image, `params` all parameters, of the two; `start_s` is how long a process takes to begin.
    """

    full: Timed
    shallow: Timed
    macs: tuple[int, int]
    params: tuple[int, int]
    start_s: float

    def image_s(self, macs: int) -> float:
        """Return the seconds of a training step per image of a model of so many MACs."""
        return self._between(macs, lambda timed: timed.image_s)

    def validation_s(self, macs: int) -> float:
        """Return the seconds of a validation pass per image."""
        return self._between(macs, lambda timed: timed.validation_s)

    def begin_s(self, macs: int) -> float:
        """Return the seconds in which a model of so many MACs is built."""
        return self._between(macs, lambda timed: timed.begin_s)

    def save_s(self, params: int) -> float:
        """Return the seconds in which the checkpoint of a model with so many parameters is written."""
        return self.full.save_s * params / self.params[0]

    def _between(self, macs: int, value: Callable[[Timed], float]) -> float:
        """Take the two models' values for the ends of a line; noise must not let it fall, nor reach below the lower."""
        high, low = value(self.full), min(value(self.full), value(self.shallow))
        full, shallow = self.macs
        share = (macs - shallow) / (full - shallow) if full > shallow else 1.0
        return low + max(0.0, share) * (high - low)


def measure_pace(
    full: Trial, shallow: Trial, *, macs: tuple[int, int], params: tuple[int, int], device: torch.device, at_once: int
) -> Pace:
    """Time steps of two models in `at_once` fresh processes; the median of these counts.

    All parameters learn in them, as by full finetuning. Raises `TtlDeployError` where a process cannot do it.
    """
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        answers = list(pool.map(_measure_in_process, [(full, shallow, str(device))] * at_once))
    timed = [[answer[0][number] for answer in answers] for number in (0, 1)]
    return Pace(
        full=_median(timed[0]),
        shallow=_median(timed[1]),
        macs=macs,
        params=params,
        start_s=statistics.median(start_s for _, start_s in answers),
    )


def _measure_in_process(task: tuple[Trial, Trial, str]) -> tuple[tuple[Timed, Timed], float]:
    """Return what a process measured, and how long it took to begin."""
    started = time.perf_counter()
    outcome = run_isolated(time_models, *task, timeout_s=_TIMEOUT_S)
    timed, busy_s = value_of(outcome, error=TtlDeployError, doing="timing training steps")
    return timed, time.perf_counter() - started - busy_s


def _median(timed: list[Timed]) -> Timed:
    parts = ("image_s", "validation_s", "begin_s", "save_s")
    middle = {name: statistics.median(getattr(one, name) for one in timed) for name in parts}
    return Timed(**middle, precision=timed[0].precision)


def time_models(full: Trial, shallow: Trial, device: str) -> tuple[tuple[Timed, Timed], float]:
    """Time both models, the large one first; returns the seconds that this took as well."""
    started = time.perf_counter()
    devices.keep_freed_memory()
    place = torch.device(device)
    if place.type == "cuda" and place.index is not None:
        torch.cuda.set_device(place)
    with devices.repeatable(full.train.threads):
        timed = _time_model(full, place), _time_model(shallow, place)
    return timed, time.perf_counter() - started


def _time_model(trial: Trial, device: torch.device) -> Timed:
    settings, started = trial.train, time.perf_counter()
    model = devices.place(truncation.build(trial.model), device)
    begin_s = time.perf_counter() - started
    phase = find_strategy("full").phases(model, trial.model, settings)[0]
    learning = Learning(model, phase)
    precision = devices.pick_precision(settings.precision, device=device, model=model)
    pixels = _draw(trial, max(settings.batch_size, evaluation.BATCH_SIZE))
    loss = losses.task_loss(pixels.labels, classes=trial.model.classes, settings=settings).module.to(device)

    def loss_of(images: Tensor, labels: Tensor) -> Tensor:
        value: Tensor = loss(model(batches.normalise(images, trial.input)).float(), labels)
        return value

    steps = GuardedSteps(
        model, loss_of, class_weights=None, precision=precision, device=device, clip_norm=settings.clip_norm
    )
    generator = torch.Generator().manual_seed(0)

    def train(count: int) -> None:
        for images, labels in batches.load(pixels, (np.arange(count),), device=device):
            changed = batches.augment(images, settings.augmentation, generator=generator)
            float(steps.take(learning, changed, labels, micro_batch=count))  # waits for the device

    def validate(count: int) -> None:
        some = LabelledPixels(array=pixels.array, rows=pixels.rows[:count], labels=pixels.labels[:count])
        evaluation.predict(model, some, convention=trial.input, device=device)

    train_mode(model)
    image_s = _time_per_image(train, settings.batch_size)
    validation_s = _time_per_image(validate, evaluation.BATCH_SIZE)
    save_s = _time_saving({"model": model.state_dict(), "optimiser": learning.state()})
    return Timed(image_s=image_s, validation_s=validation_s, begin_s=begin_s, save_s=save_s, precision=precision)


def _draw(trial: Trial, count: int) -> LabelledPixels:
    rng, side, classes = np.random.default_rng(0), trial.model.image_size, trial.model.classes
    several = trial.model.multilabel
    return LabelledPixels(
        array=rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        rows=np.arange(count, dtype=np.int64),
        labels=rng.integers(0, 2 if several else classes, (count, classes) if several else count).astype(np.int64),
    )


def _time_per_image(work: Callable[[int], None], most: int) -> float:
    """Return the seconds per image of work on up to `most` images at once, or on as many as the budget allows.

    The first two times are to warm up, on few images, and tell how many can be had.
    """
    few = min(_FIRST_IMAGES, most)
    work(few)
    began = time.perf_counter()
    work(few)
    first_s = (time.perf_counter() - began) / few
    count = max(few, min(most, int(_BUDGET_S / first_s)))
    if count > few and first_s * count < _BUDGET_S / 2:
        work(count)  # what is prepared for this size is not timed, where that costs little
    done, began = 0, time.perf_counter()
    while not done or time.perf_counter() - began < _BUDGET_S:
        work(count)
        done += count
    return (time.perf_counter() - began) / done


def _time_saving(state: dict[str, object]) -> float:
    with tempfile.TemporaryDirectory(prefix="ttl-deploy-pace-") as folder:
        began = time.perf_counter()
        checkpoints.save(Path(folder), state)
        return time.perf_counter() - began
