"""Whether two devices compute the same: predictions of trained models, and the first losses of one training.

Its functions are called by `gpu.py`; nothing is stored here.
"""

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ttl_deploy.data.cache import open_cache
from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.models import truncation, weights
from ttl_deploy.records import codec
from ttl_deploy.records.models import FULL
from ttl_deploy.records.trials import Trial, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import findings
from ttl_deploy.search.tasks import load_pixels
from ttl_deploy.training import batches, devices, evaluation, loop
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.loop import WEIGHTS

CPU = torch.device("cpu")


def results_of(run: RunFolder) -> list[TrialResult]:
    """Return what a run's finished trials came to, the smallest model first."""
    finished = [outcome for outcome in findings.outcomes(run).values() if isinstance(outcome, TrialResult)]
    return sorted(finished, key=lambda result: result.params)


def trained(run: RunFolder) -> list[Trial]:
    """Return a run's finished trials, the smallest model first."""
    return [codec.load(Trial, run.trial(result.key) / "trial.json") for result in results_of(run)]


def deepest_cut(trials: Sequence[Trial]) -> Trial:
    """Return the largest trial that is not the whole network."""
    return [trial for trial in trials if trial.model.cut != FULL][-1]


def read_split(run: RunFolder, split: Any, *, most: int) -> LabelledPixels:
    """Return the first images of a run's split, at most `most`."""
    cache = open_cache(load_manifest(run.data), run.settings().decode).path
    data = load_pixels(run, cache, (split,))[split]
    return LabelledPixels(array=data.array, rows=data.rows[:most], labels=data.labels[:most])


def compare_predictions(run: RunFolder, trial: Trial, data: LabelledPixels, device: torch.device) -> dict[str, object]:
    """Compare a trained model's decisions on the device with those of the CPU: in fp32, and as it was trained."""
    model = truncation.build(trial.model)
    weights.load_weights(model, run.trial(trial.key) / WEIGHTS)
    expected = evaluation.predict(devices.place(model, CPU), data, convention=trial.input, device=CPU)
    moved = devices.place(model, device)
    precision = devices.pick_precision("auto", device=device, model=model)
    full = evaluation.predict(moved, data, convention=trial.input, device=device)
    half = predict_as_trained(moved, trial, data, device)
    return {
        "trial": trial.key,
        "images": len(data),
        "fp32": differ(expected, full),
        f"training precision ({precision})": differ(expected, half),
    }


@torch.no_grad()
def predict_as_trained(
    model: truncation.TruncatedModel, trial: Trial, data: LabelledPixels, device: torch.device
) -> NDArray[np.float32]:
    """Return logits `(n, C)` at the precision that training chooses on the device."""
    model.eval()
    precision = devices.pick_precision("auto", device=device, model=model)
    plan = batches.in_order(len(data), batch_size=evaluation.BATCH_SIZE)
    parts = []
    for images, _ in batches.load(data, plan, device=device):
        with devices.autocast(precision, device):
            parts.append(model(batches.normalise(images, trial.input)).float().cpu().numpy())
    return np.concatenate(parts)


def differ(expected: NDArray[np.float32], given: NDArray[np.float32]) -> dict[str, float | int]:
    """Return the largest difference in logit and in probability, and how many decisions differ."""
    probabilities = np.abs(np.subtract(*(evaluation.probabilities(one, multilabel=False) for one in (expected, given))))
    return {
        "logit": float(np.abs(expected - given).max()),
        "probability": float(probabilities.max()),
        "flipped": int((expected.argmax(1) != given.argmax(1)).sum()),
    }


def compare_losses(trial: Trial, data: LabelledPixels, device: torch.device) -> dict[str, object]:
    """Compare the losses of a training's first steps in fp32 on the CPU and on the device, with and without TF32.

    Dropout is off, because its draws differ between devices.
    """
    settings = replace(trial.train, epochs=1, precision="fp32")
    trial = replace(trial, model=replace(trial.model, dropout=0.0), train=settings)
    expected = first_losses(trial, data, CPU)
    exact, usual = (first_losses(trial, data, device, tf32=tf32) for tf32 in (False, True))
    return {
        "trial": trial.key,
        "steps": len(expected),
        "relative_without_tf32": largest_relative(expected, exact),
        "relative_as_trained": largest_relative(expected, usual),
        "repeats": first_losses(trial, data, device) == usual,
        "losses_cpu": expected,
        "losses": usual,
    }


def largest_relative(expected: Sequence[float], given: Sequence[float]) -> float:
    """Return the largest relative difference."""
    return max(abs(a - b) / abs(a) for a, b in zip(expected, given, strict=True))


def first_losses(trial: Trial, data: LabelledPixels, device: torch.device, *, tf32: bool = True) -> list[float]:
    """Return the loss of every step of a training's first epoch over `data`."""
    seen: list[float] = []
    precise = nullcontext() if tf32 else devices.full_precision()
    with tempfile.TemporaryDirectory() as folder, devices.repeatable(1), precise:
        training = loop._Training(trial, data, data, folder=Path(folder), device=device)
        take = training.steps.take

        def keep(*arguments: Any, **options: Any) -> torch.Tensor:
            loss = take(*arguments, **options)
            seen.append(float(loss))
            return loss

        training.steps.take = keep
        devices.seed_epoch(trial.seed, 1)
        training._learn(1, lambda progress: None, batches.Wait())
    return seen
