"""The training loop: one trial in, one result out; resumable after every epoch, bit for bit."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from ttl_deploy.errors import UsageError
from ttl_deploy.evidence import metrics
from ttl_deploy.files import make_folder, publish_text, sha256_file
from ttl_deploy.models import truncation, weights
from ttl_deploy.models.input_conventions import Feeding
from ttl_deploy.records import codec
from ttl_deploy.records.trials import EpochRecord, FailureKind, Precision, Trial, TrialResult
from ttl_deploy.training import batches, checkpoints, devices, evaluation, losses
from ttl_deploy.training.batches import LabelledPixels, Plan, Wait
from ttl_deploy.training.freezing import train_mode
from ttl_deploy.training.gradient_norms import GRADIENT_BATCHES, relative_gradient_norms
from ttl_deploy.training.learning import Learning
from ttl_deploy.training.strategies import find_strategy

WEIGHTS = "best.safetensors"
RESULT = "result.json"


class TrialError(Exception):
    """A trial cannot go on; the search records it as a `TrialFailure` of this kind and goes on without it."""

    def __init__(self, kind: FailureKind, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a trial is: `done` of `total` batches of this epoch; `finished` once an epoch is complete."""

    epoch: int
    done: int
    total: int
    finished: EpochRecord | None = None


@dataclass(slots=True)
class _State:
    """What a checkpoint holds besides the tensors."""

    history: list[EpochRecord]
    best_epoch: int = 0
    best_rank: tuple[float, float] = (-math.inf, -math.inf)
    seconds: float = 0.0
    phase: int = 0
    phase_began: int = 0  # after so many epochs
    phase_best_epoch: int = 0
    phase_best_rank: tuple[float, float] = (-math.inf, -math.inf)

    @property
    def epoch(self) -> int:
        return len(self.history)


class _Training:
    """One trial while it runs."""

    def __init__(
        self, trial: Trial, train: LabelledPixels, val: LabelledPixels, *, folder: Path, device: torch.device
    ) -> None:
        self.trial, self.settings, self.folder, self.device = trial, trial.train, folder, device
        self.train, self.val = train, val
        devices.seed_epoch(trial.seed, 0)
        model = truncation.build(trial.model)
        _check_channels(trial, model)
        feeding = Feeding(file=trial.weights_input, network=trial.input)
        self.note = weights.load_pretrained(model, trial.model, trial.weights, feeding=feeding).text
        self.precision: Precision = devices.pick_precision(self.settings.precision, device=device, model=model)
        strategy = find_strategy(trial.strategy)
        strategy.prepare(model, trial.model)
        self.model = devices.place(model, device)
        self.phases = strategy.phases(self.model, trial.model, self.settings)
        self.learning = Learning(self.model, self.phases[0])
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        balance = losses.class_weights(train.labels, classes=trial.model.classes, kind=self.settings.class_weights)
        self.loss = losses.training_loss(balance, settings=self.settings).to(device)
        self.state = _State(history=[])

    def resume(self) -> None:
        """Continue from the newest whole checkpoint, if there is one."""
        saved = checkpoints.load(self.folder)
        if saved is None:
            return
        self.model.load_state_dict(saved["model"])
        self.scaler.load_state_dict(saved["scaler"])
        history = [codec.from_builtins(EpochRecord, epoch) for epoch in saved["history"]]
        ranks = {name: tuple(saved["state"][name]) for name in ("best_rank", "phase_best_rank")}
        self.state = _State(history, **{**saved["state"], **ranks})
        if not self.finished:
            self.learning = Learning(self.model, self.phases[self.state.phase])
            self.learning.load(saved["optimiser"])

    def save(self) -> None:
        """Publish the state after an epoch: checkpoint first, then the log for readers."""
        state = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.state).items()}
        history = [msgspec.to_builtins(epoch) for epoch in state.pop("history")]
        checkpoints.save(
            self.folder,
            {
                "model": self.model.state_dict(),
                "optimiser": self.learning.state(),
                "scaler": self.scaler.state_dict(),
                "history": history,
                "state": state,
            },
        )
        publish_text(self.folder / "metrics.jsonl", "".join(json.dumps(epoch) + "\n" for epoch in history))

    @property
    def finished(self) -> bool:
        """Whether all phases are over."""
        return self.state.phase >= len(self.phases)

    def _end_phase_if_over(self) -> None:
        """Go to the next phase after all epochs of this one, or `patience` without a better validation score."""
        state, patience = self.state, self.settings.patience
        phase = self.phases[state.phase]
        waited = state.epoch - state.phase_best_epoch
        if state.epoch - state.phase_began < phase.epochs and not (patience and waited >= patience):
            return
        state.phase += 1
        state.phase_began = state.phase_best_epoch = state.epoch
        state.phase_best_rank = (-math.inf, -math.inf)
        if not self.finished:
            self.learning = Learning(self.model, self.phases[state.phase])

    def run_epoch(self, report: Callable[[Progress], None]) -> None:
        """Train one epoch, score it on validation, keep the weights if they are the best so far."""
        started = time.perf_counter()
        epoch = self.state.epoch + 1
        devices.seed_epoch(self.trial.seed, epoch)
        wait = Wait()
        train_loss = self._learn(epoch, report, wait)
        learned_s = time.perf_counter() - started
        val_loss, val_auroc = self._validate()
        seconds = time.perf_counter() - started
        record = EpochRecord(
            epoch=epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            val_auroc=val_auroc,
            lr=self.learning.optimiser.param_groups[0]["lr"],
            phase=self.learning.phase.name,
            seconds=seconds,
            data_wait_share=wait.seconds / learned_s,
        )
        self.state.history.append(record)
        self.state.seconds += seconds
        rank = (-math.inf if val_auroc is None else val_auroc, -val_loss)
        if rank > self.state.phase_best_rank:
            self.state.phase_best_rank, self.state.phase_best_epoch = rank, epoch
        if rank > self.state.best_rank:
            self.state.best_rank, self.state.best_epoch = rank, epoch
            weights.save_weights(self.model, self.folder / WEIGHTS, convention=self.trial.input)
        self._end_phase_if_over()
        self.save()

    def _learn(self, epoch: int, report: Callable[[Progress], None], wait: Wait) -> float:
        sampling, size = self.settings.sampling, self.settings.batch_size
        plan = batches.plan_epoch(
            self.train.labels, sampling=sampling, batch_size=size, seed=self.trial.seed, epoch=epoch
        )
        if self.learning.phase.regroup is not None:
            self._measure_gradients(epoch, plan)
        train_mode(self.model)
        total = torch.zeros((), device=self.device)
        done = epoch - 1 - self.state.phase_began
        for number, (images, labels) in enumerate(self._batches(epoch, plan, wait)):
            share = (done + number / len(plan)) / self.learning.phase.epochs
            self.learning.set_rate(share, warmup=self.settings.warmup)
            total += self._step(images, labels)
            report(Progress(epoch, number + 1, len(plan)))
        mean = float(total) / len(plan)
        if not math.isfinite(mean):
            raise TrialError("numerical", f"the training loss became {mean} in epoch {epoch}: lower --lr")
        return mean

    def _batches(self, epoch: int, plan: Plan, wait: Wait | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch's augmented, normalised images `(N, C, S, S)` and their labels."""
        generator = torch.Generator().manual_seed(self.trial.seed * 1_000_003 + epoch)
        for images, labels in batches.load(self.train, plan, device=self.device, wait=wait):
            changed = batches.augment(images, self.settings.augmentation, generator=generator)
            yield batches.normalise(changed, self.trial.input), labels

    def _measure_gradients(self, epoch: int, plan: Plan) -> None:
        """Choose the epoch's rates from the gradients on its first mini-batches, in evaluation mode and fp32."""
        self.model.eval()
        names = {name for group in self.learning.phase.groups for name in group.names}
        losses = (
            partial(self._loss_of, images, labels) for images, labels in self._batches(epoch, plan[:GRADIENT_BATCHES])
        )
        self.learning.regroup_by_gradients(relative_gradient_norms(self.model, names, losses))

    def _loss_of(self, images: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = self.loss(self.model(images).float(), labels)
        return loss

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        with devices.autocast(self.precision, self.device):
            loss = self._loss_of(images, labels)
        optimiser = self.learning.optimiser
        optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(self.learning.add_penalty(loss)).backward()  # type: ignore[no-untyped-call] # torch's own
        self.scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.scaler.step(optimiser)
        self.scaler.update()
        return loss.detach()

    def _validate(self) -> tuple[float, float | None]:
        logits = evaluation.predict(self.model, self.val, convention=self.trial.input, device=self.device)
        loss = evaluation.mean_loss(logits, self.val.labels)
        if not math.isfinite(loss):
            raise TrialError(
                "numerical", f"the validation loss became {loss} in epoch {self.state.epoch + 1}: lower --lr"
            )
        predicted = evaluation.probabilities(logits)
        return loss, metrics.evaluate("auroc", predicted, self.val.labels).value

    def conclude(self) -> TrialResult:
        """Return to the best weights, store the validation predictions, and describe the outcome."""
        weights.load_weights(self.model, self.folder / WEIGHTS)
        logits = evaluation.predict(self.model, self.val, convention=self.trial.input, device=self.device)
        predicted = evaluation.probabilities(logits)
        evaluation.save_predictions(self.folder / "predictions_val.npz", predicted=predicted, labels=self.val.labels)
        return TrialResult(
            key=self.trial.key,
            cut=self.trial.model.cut,
            strategy=self.trial.strategy,
            seed=self.trial.seed,
            best_epoch=self.state.best_epoch,
            epochs_run=self.state.epoch,
            val_auroc=metrics.evaluate("auroc", predicted, self.val.labels).value,
            params=sum(parameter.numel() for parameter in self.model.parameters()),
            weights_sha256=sha256_file(self.folder / WEIGHTS),
            weights_note=self.note,
            precision=self.precision,
            device=str(self.device),
            seconds=self.state.seconds,
        )


def _check_channels(trial: Trial, model: truncation.TruncatedModel) -> None:
    if len(trial.input.mean) != model.channels:
        raise UsageError(
            f"{trial.key}: `input` has {len(trial.input.mean)} entries, but {trial.model.backbone} takes "
            f"{model.channels} channels: give one entry for each (input_conventions.fit_channels)"
        )


def run_trial(
    trial: Trial,
    *,
    train: LabelledPixels,
    val: LabelledPixels,
    folder: Path,
    device: torch.device,
    report: Callable[[Progress], None] = lambda progress: None,
) -> TrialResult:
    """Train a trial in `folder`, resuming what lies there; returns the result, also in `result.json`.

    A trial that has finished before is not trained again.

    Raises `TrialError` when the trial cannot be finished, and `TtlDeployError` for what the user must mend.
    """
    if (folder / RESULT).exists():
        return codec.load(TrialResult, folder / RESULT)
    make_folder(folder)
    codec.save(folder / "trial.json", trial)
    with devices.repeatable(trial.train.threads):
        try:
            training = _Training(trial, train, val, folder=folder, device=device)
            training.resume()
            while not training.finished:
                training.run_epoch(report)
                report(Progress(training.state.epoch, 1, 1, training.state.history[-1]))
            result = training.conclude()
        except torch.OutOfMemoryError as error:
            raise TrialError(
                "memory", f"out of memory on {device}: lower --batch-size ({trial.train.batch_size})"
            ) from error
    codec.save(folder / RESULT, result)
    checkpoints.remove(folder)
    return result
