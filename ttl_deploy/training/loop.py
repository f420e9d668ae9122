"""The training loop: one trial in, one result out; resumable after every epoch, bit for bit."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ttl_deploy.files import make_folder, publish_bytes, publish_text, sha256_file
from ttl_deploy.models import weights
from ttl_deploy.models.truncation import Model
from ttl_deploy.records import codec
from ttl_deploy.records.trials import EpochRecord, Precision, Trial, TrialPause, TrialResult
from ttl_deploy.training import batches, checkpoints, devices, ema, evaluation, features, losses, recovery
from ttl_deploy.training.batches import LabelledPixels, Plan, Wait
from ttl_deploy.training.beginning import begin, refresh_statistics, strategy_of, take_teacher
from ttl_deploy.training.features import Features
from ttl_deploy.training.freezing import train_mode
from ttl_deploy.training.gradient_norms import GRADIENT_BATCHES, relative_gradient_norms
from ttl_deploy.training.joint import Exits
from ttl_deploy.training.learning import Learning
from ttl_deploy.training.material import AS_THEY_ARE, Images, Material, Setup
from ttl_deploy.training.recovery import TrialError as TrialError  # for those who call run_trial
from ttl_deploy.training.state import State
from ttl_deploy.training.steps import GuardedSteps, NotFiniteError
from ttl_deploy.training.strategies import Phase
from ttl_deploy.training.teaching import Lessons, Teacher

WEIGHTS = "best.safetensors"
PREDICTIONS = "predictions_val.npz"
RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a trial is: `done` of `total` batches of this epoch; `finished` once an epoch is complete."""

    epoch: int
    done: int
    total: int
    finished: EpochRecord | None = None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What an epoch came to: losses, score, the share of the learning spent waiting, validation probabilities."""

    train_loss: float
    val_loss: float
    val_auroc: float | None
    wait_share: float
    predicted: NDArray[np.floating]


class _Training:
    """One trial while it runs."""

    def __init__(
        self,
        trial: Trial,
        train: LabelledPixels,
        val: LabelledPixels,
        *,
        folder: Path,
        device: torch.device,
        teacher: Teacher | None = None,
        start: Path | None = None,
    ) -> None:
        self.trial, self.settings, self.folder, self.device = trial, trial.train, folder, device
        strategy = strategy_of(trial)
        self.teacher = take_teacher(trial, strategy.teacher, teacher)
        devices.seed_epoch(trial.seed, 0)
        model, self.note = begin(trial, warm=strategy.warm, start=start)
        self.precision: Precision = devices.pick_precision(self.settings.precision, device=device, model=model)
        strategy.prepare(model, trial.model)
        self.model = devices.place(model, device)
        self.phases = strategy.phases(self.model, trial.model, self.settings)
        self.average = ema.average(self.model, self.settings.ema)
        self.setup = self._set_up(train, val)
        self.steps = GuardedSteps(
            self.model,
            lambda inputs, labels: self.material.loss(inputs, labels),
            class_weights=self.setup.class_weights,
            precision=self.precision,
            device=device,
            clip_norm=self.settings.clip_norm,
        )
        self.state = State()
        self._enter_phase()

    def _set_up(self, train: LabelledPixels, val: LabelledPixels) -> Setup:
        task = losses.task_loss(train.labels, classes=self.trial.model.classes, settings=self.settings)
        return Setup(
            trial=self.trial,
            train=train,
            val=val,
            model=self.model,
            compiled=torch.compile(self.model) if self.settings.compile else self.model,
            scored=cast(Model, self.average.module) if self.average else self.model,
            loss=task.module.to(self.device),
            class_weights=task.class_weights,
            device=self.device,
        )

    def _enter_phase(self) -> None:
        """Let the phase's parameters learn, from images until its first epoch begins, which may compute features."""
        phases = self.phases[: self.state.phase + 1]
        self.learning = Learning(self.model, phases[-1])
        self.material = self._find_images(phases[-1])
        self.wants_features = not self.trial.model.exits and features.are_worth_keeping(phases, self.setup)

    def _find_images(self, phase: Phase) -> Material:
        if self.trial.model.exits:
            return Exits(self.setup)
        if phase.teaching is not None:
            assert self.teacher is not None
            return Lessons(self.setup, phase.teaching, self.teacher)
        rests = features.trunk_rests(phase)
        return Images(self.setup, AS_THEY_ARE if rests else self.settings.augmentation)

    def resume(self) -> None:
        """Continue from the newest whole checkpoint, or begin where there is none."""
        saved = checkpoints.load(self.folder)
        if saved is None:
            if self.trial.model.layers:
                refresh_statistics(self.model, self.setup.train, self.trial, device=self.device)
            return
        self.state = State.from_builtins(saved["history"], saved["state"])
        if not self.finished:
            self._enter_phase()
        self._take_up(saved["tensors"])

    def save(self) -> None:
        """Publish the state after an epoch: checkpoint first, then the log for readers."""
        history, state = self.state.to_builtins()
        checkpoints.save(self.folder, {"tensors": self._tensors(), "history": history, "state": state})
        publish_text(self.folder / "metrics.jsonl", "".join(json.dumps(epoch) + "\n" for epoch in history))

    def _tensors(self) -> dict[str, Any]:
        """Return all that a step changes, the tensors themselves."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimiser": self.learning.state(),
            "scaler": self.steps.scaler.state_dict(),
        }

    def _take_up(self, tensors: dict[str, Any]) -> None:
        """Go back to what `_tensors` returned."""
        self.model.load_state_dict(tensors["model"])
        if self.average:
            self.average.load_state_dict(tensors["average"])
        self.steps.scaler.load_state_dict(tensors["scaler"])
        if not self.finished:
            self.learning.load(tensors["optimiser"])

    @property
    def finished(self) -> bool:
        """Whether all phases are over."""
        return self.state.phase >= len(self.phases)

    def _end_phase_if_over(self) -> None:
        """Go to the next phase after all epochs of this one, or `patience` without a better validation score."""
        epochs = self.phases[self.state.phase].epochs
        if not self.state.phase_is_over(epochs=epochs, patience=self.settings.patience):
            return
        self.state.begin_next_phase()
        if not self.finished:
            self._enter_phase()

    def run_epoch(self, report: Callable[[Progress], None]) -> None:
        """Train one epoch, score it on validation, keep the weights if they are the best so far."""
        started = time.perf_counter()
        epoch = self.state.epoch + 1
        if self.wants_features:
            self.material = Features(self.setup, lambda done, total: report(Progress(epoch, done, total)))
            self.wants_features = False
        done = self._attempt_until_good(epoch, report)
        record = EpochRecord(
            epoch=epoch,
            train_loss=done.train_loss,
            val_loss=done.val_loss,
            val_auroc=done.val_auroc,
            lr=self.learning.optimiser.param_groups[0]["lr"],
            phase=self.learning.phase.name,
            seconds=time.perf_counter() - started,
            data_wait_share=done.wait_share,
        )
        if self.state.add(record):
            self._keep(done.predicted)
        self._end_phase_if_over()
        self.save()

    def _attempt_until_good(self, epoch: int, report: Callable[[Progress], None]) -> _Outcome:
        """Learn and validate an epoch; after a setback begin it anew, with lower rates or fewer images at once."""
        beginning = recovery.copy_of(self._tensors())
        while True:
            devices.seed_epoch(self.trial.seed, epoch)
            started, wait = time.perf_counter(), Wait()
            try:
                train_loss = self._learn(epoch, report, wait)
            except NotFiniteError as error:
                self._reduce_rates(f"{error} in epoch {epoch}")
            except torch.OutOfMemoryError:
                self.state.setbacks = recovery.halve_batch(
                    self.state.setbacks, self._images_at_once, trial=self.trial, device=self.device
                )
            else:
                wait_share = wait.seconds / (time.perf_counter() - started)
                outcome = self._validate(train_loss, wait_share)
                if math.isfinite(outcome.val_loss):
                    return outcome
                rate = self.learning.optimiser.param_groups[0]["lr"]
                seen = f"the validation loss became {outcome.val_loss} after epoch {epoch} at a rate of {rate:.3g}"
                self._reduce_rates(seen)
            self._take_up(recovery.copy_of(beginning))

    def _reduce_rates(self, seen: str) -> None:
        self.state.setbacks = recovery.halve_rates(
            self.state.setbacks, seen, trial=self.trial, precision=self.precision
        )

    @property
    def _images_at_once(self) -> int:
        return self.state.setbacks.micro_batch or min(self.settings.batch_size, len(self.setup.train))

    def _learn(self, epoch: int, report: Callable[[Progress], None], wait: Wait) -> float:
        sampling, size = self.settings.sampling, self.settings.batch_size
        plan = batches.plan_epoch(
            self.setup.train.labels, sampling=sampling, batch_size=size, seed=self.trial.seed, epoch=epoch
        )
        if self.learning.phase.regroup is not None:
            self._measure_gradients(epoch, plan)
        train_mode(self.model)
        self.steps.begin_epoch()
        total = torch.zeros((), device=self.device)
        done = epoch - 1 - self.state.phase_began
        for number, (inputs, labels) in enumerate(self.material.batches(plan, epoch=epoch, wait=wait)):
            share = (done + number / len(plan)) / self.learning.phase.epochs
            self.learning.set_rate(share, warmup=self.settings.warmup)
            self.state.setbacks.lower_rates(self.learning.optimiser)
            total += self.steps.take(self.learning, inputs, labels, micro_batch=self._images_at_once)
            if self.average:
                self.average.update_parameters(self.model)
            report(Progress(epoch, number + 1, len(plan)))
        self.steps.look()
        return float(total) / len(plan)

    def _measure_gradients(self, epoch: int, plan: Plan) -> None:
        """Choose the epoch's rates from the gradients on its first mini-batches, in evaluation mode and fp32.

        Where a whole mini-batch does not fit into memory, its first images stand for it.
        """
        self.model.eval()
        names = {name for group in self.learning.phase.groups for name in group.names}
        measured = tuple(batch[: self._images_at_once] for batch in plan[:GRADIENT_BATCHES])
        mini_batches = self.material.batches(measured, epoch=epoch)
        losses = (partial(self.material.loss, inputs, labels) for inputs, labels in mini_batches)
        self.learning.regroup_by_gradients(relative_gradient_norms(self.model, names, losses))

    def _validate(self, train_loss: float, wait_share: float) -> _Outcome:
        logits = self.material.predict()
        loss, auroc = evaluation.mean_loss(logits, self.setup.val.labels), None
        predicted = evaluation.probabilities(logits, multilabel=self.trial.model.multilabel)
        if math.isfinite(loss):
            auroc = evaluation.mean_auroc(predicted, self.setup.val.labels)
        return _Outcome(train_loss, loss, auroc, wait_share, predicted)

    def _keep(self, predicted: NDArray[np.floating]) -> None:
        """Publish the weights, and the validation probabilities that they give."""
        weights.save_weights(self.setup.scored, self.folder / WEIGHTS, convention=self.trial.input)
        evaluation.save_predictions(self.folder / PREDICTIONS, predicted=predicted, labels=self.setup.val.labels)

    def pause(self) -> TrialPause:
        """Describe where the trial rests; the validation probabilities of its best epoch so far stay."""
        paused = TrialPause(
            key=self.trial.key,
            cut=self.trial.cut,
            strategy=self.trial.strategy,
            seed=self.trial.seed,
            epoch=self.state.epoch,
            val_auroc=self.state.history[self.state.best_epoch - 1].val_auroc,
            seconds=self.state.seconds,
        )
        publish_bytes(self.folder / paused.predictions, (self.folder / PREDICTIONS).read_bytes())
        return paused

    def conclude(self) -> TrialResult:
        """Describe the outcome, which is that of the best epoch."""
        return TrialResult(
            key=self.trial.key,
            cut=self.trial.cut,
            strategy=self.trial.strategy,
            seed=self.trial.seed,
            best_epoch=self.state.best_epoch,
            epochs_run=self.state.epoch,
            val_auroc=self.state.history[self.state.best_epoch - 1].val_auroc,
            params=sum(parameter.numel() for parameter in self.model.parameters()),
            weights_sha256=sha256_file(self.folder / WEIGHTS),
            weights_note=self.note,
            precision=self.precision,
            device=self.device.type,
            seconds=self.state.seconds,
        )


def run_trial(
    trial: Trial,
    *,
    train: LabelledPixels,
    val: LabelledPixels,
    folder: Path,
    device: torch.device,
    teacher: Teacher | None = None,
    start: Path | None = None,
    until: int | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> TrialResult | TrialPause:
    """Train a trial in `folder`, resuming what lies there; returns the result, also in `result.json`.

    A trial that has finished before is not trained again. `teacher` is the model that the trial's strategy
    wants to learn from, `start` the file of the weights that it wants to begin with, if it does. A trial
    that is not finished `until` so many epochs are over rests then.

    Raises `TrialError` when the trial cannot be finished, and `TtlDeployError` for what the user must mend.
    """
    if (folder / RESULT).exists():
        return codec.load(TrialResult, folder / RESULT)
    make_folder(folder)
    codec.save(folder / "trial.json", trial)
    with devices.repeatable(trial.train.threads):
        try:
            training = _Training(trial, train, val, folder=folder, device=device, teacher=teacher, start=start)
            training.resume()
            while not training.finished:
                if until is not None and training.state.epoch >= until:
                    return training.pause()
                training.run_epoch(report)
                report(Progress(training.state.epoch, 1, 1, training.state.history[-1]))
            result = training.conclude()
        except torch.OutOfMemoryError as error:
            raise TrialError(
                "memory",
                f"out of memory on {device} outside of a training step: take a smaller --image-size or fewer --workers",
            ) from error
    codec.save(folder / RESULT, result)
    checkpoints.remove(folder)
    return result
