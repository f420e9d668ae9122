"""A unit of work for an executor: train one trial, or open the test split for it. Runs in any process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ttl_deploy.data.cache import PixelCache
from ttl_deploy.data.labels import label_array
from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.errors import WeightsError
from ttl_deploy.models import truncation, weights
from ttl_deploy.models.input_conventions import Feeding
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import PROBED
from ttl_deploy.records.data import Split
from ttl_deploy.records.trials import Trial, TrialFailure, TrialPause, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.exits import divide, exit_trial
from ttl_deploy.search.probing import probe_cuts
from ttl_deploy.training import devices, evaluation
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.joint import save_heads
from ttl_deploy.training.loop import WEIGHTS, Progress, TrialError, run_trial
from ttl_deploy.training.teaching import Teacher

Outcome = TrialResult | TrialPause | TrialFailure
Kind = Literal["train", "test", "probe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a worker needs to know; small, picklable, and all its data are on the disk.

    `train` trains the trial, from `begun` epochs on `until` so many are over, or to its end; `test` predicts
    the test split with its best weights; `probe` probes its exits before anything is trained. `cost` in MACs;
    `memory_bytes` is what it is expected to need of the device's memory.
    """

    kind: Kind
    trial: Trial
    run: str
    cache: str
    device: str
    cost: float
    memory_bytes: int = 0
    begun: int = 0
    until: int | None = None

    @property
    def end(self) -> int:
        """The epoch after which it is done, at the latest."""
        return self.trial.train.epochs if self.until is None else self.until


def failure(trial: Trial, error: TrialError) -> TrialFailure:
    """Describe a trial that could not be finished."""
    return TrialFailure(
        key=trial.key,
        cut=trial.cut,
        strategy=trial.strategy,
        seed=trial.seed,
        kind=error.kind,
        reason=error.reason,
    )


def execute(task: Task, report: Callable[[Progress], None]) -> Outcome | None:
    """Do one task; a trial that cannot be finished comes back as a `TrialFailure`."""
    run = RunFolder(Path(task.run))
    device = torch.device(task.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # some questions to torch are about the current device only
    try:
        if task.kind == "test":
            _predict_test(task, run, device)
            return None
        if task.kind == "probe":
            _probe(task, run, device, report)
            return None
        pixels = load_pixels(run, Path(task.cache), ("train", "val"))
        result = run_trial(
            task.trial,
            train=pixels["train"],
            val=pixels["val"],
            folder=run.trial(task.trial.key),
            device=device,
            report=report,
            teacher=_find_teacher(task.trial, run),
            start=_find_start(task.trial, run),
            until=task.until,
        )
        if task.trial.model.exits and isinstance(result, TrialResult):
            return divide(run, task.trial, result)
        return result
    except TrialError as error:
        return failure(task.trial, error)
    except WeightsError as error:
        return failure(task.trial, TrialError("weights", str(error)))


def _find_teacher(trial: Trial, run: RunFolder) -> Teacher | None:
    """Return the trained model that a trial learns from, as its own trial has left it in the run folder."""
    if trial.teacher is None:
        return None
    folder = run.trial(trial.teacher)
    taught_by = codec.load(Trial, folder / "trial.json")
    return Teacher(model=taught_by.model, weights=folder / WEIGHTS, input=taught_by.input)


def _find_start(trial: Trial, run: RunFolder) -> Path | None:
    """Return the weights that a trial begins with: the probe's, of its cut's exit, or of the model at full width."""
    if trial.start is None:
        return None
    if trial.start == PROBED:
        return run.probe_heads
    if trial.model.layers:
        return run.trial(trial.start) / WEIGHTS
    joint = codec.load(Trial, run.trial(trial.start) / "trial.json")
    return run.trial(exit_trial(joint, trial.model.cut).key) / WEIGHTS


def load_pixels(run: RunFolder, cache: Path, splits: tuple[Split, ...]) -> Mapping[Split, LabelledPixels]:
    """Map the cached images of some splits, in the manifest's order."""
    manifest = load_manifest(run.data)
    pixels = PixelCache.load(cache)
    labels = label_array(manifest.samples)
    chosen = {split: np.array(manifest.of_split(split), dtype=np.int64) for split in splits}
    return {
        split: LabelledPixels(
            array=pixels.array, rows=pixels.rows[positions].astype(np.int64), labels=labels[positions]
        )
        for split, positions in chosen.items()
    }


def _probe(task: Task, run: RunFolder, device: torch.device, report: Callable[[Progress], None]) -> None:
    settings, trial = run.settings(), task.trial
    found = probe_cuts(
        settings,
        load_manifest(run.data),
        PixelCache.load(Path(task.cache)),
        trial.model,
        feeding=Feeding(file=trial.weights_input, network=trial.input),
        device=device,
        progress=lambda stage, done, total: report(Progress(1, done, total)),
    )
    save_heads(found.heads, run.probe_heads)
    codec.save(run.probe, found.probe)


def _predict_test(task: Task, run: RunFolder, device: torch.device) -> None:
    folder = run.trial(task.trial.key)
    data = load_pixels(run, Path(task.cache), ("test",))["test"]
    model = truncation.build(task.trial.model)
    weights.load_weights(model, folder / WEIGHTS)
    model = devices.place(model, device)
    with devices.repeatable(task.trial.train.threads):
        logits = evaluation.predict(model, data, convention=task.trial.input, device=device)
    predicted = evaluation.probabilities(logits, multilabel=task.trial.model.multilabel)
    evaluation.save_predictions(folder / "predictions_test.npz", predicted=predicted, labels=data.labels)
