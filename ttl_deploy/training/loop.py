"""The training loop: one trial in, one result out; resumable after every epoch, bit for bit."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from ttl_deploy import plugins
from ttl_deploy.errors import UsageError
from ttl_deploy.evidence import metrics
from ttl_deploy.files import make_folder, publish_text, sha256_file
from ttl_deploy.models import truncation, weights
from ttl_deploy.models.input_conventions import Feeding
from ttl_deploy.records import codec
from ttl_deploy.records.trials import EpochRecord, FailureKind, Precision, Trial, TrialResult
from ttl_deploy.training import batches, checkpoints, devices, evaluation, losses
from ttl_deploy.training.batches import LabelledPixels, Wait

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
        self.model = devices.place(model, device)
        strategy = plugins.load("strategies", trial.strategy)()
        self.optimiser = torch.optim.AdamW(strategy.parameter_groups(self.model, self.settings))
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        balance = losses.class_weights(train.labels, classes=trial.model.classes, kind=self.settings.class_weights)
        self.loss = losses.cross_entropy(balance, label_smoothing=self.settings.label_smoothing).to(device)
        self.state = _State(history=[])

    def resume(self) -> None:
        """Continue from the newest whole checkpoint, if there is one."""
        saved = checkpoints.load(self.folder)
        if saved is None:
            return
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.scaler.load_state_dict(saved["scaler"])
        history = [codec.from_builtins(EpochRecord, epoch) for epoch in saved["history"]]
        self.state = _State(history, saved["best_epoch"], tuple(saved["best_rank"]), saved["seconds"])

    def save(self) -> None:
        """Publish the state after an epoch: checkpoint first, then the log for readers."""
        history = [msgspec.to_builtins(epoch) for epoch in self.state.history]
        checkpoints.save(
            self.folder,
            {
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
                "history": history,
                "best_epoch": self.state.best_epoch,
                "best_rank": list(self.state.best_rank),
                "seconds": self.state.seconds,
            },
        )
        publish_text(self.folder / "metrics.jsonl", "".join(json.dumps(epoch) + "\n" for epoch in history))

    @property
    def finished(self) -> bool:
        """Whether all epochs ran, or validation has not improved for `patience` of them."""
        waited = self.state.epoch - self.state.best_epoch
        patience = self.settings.patience
        return self.state.epoch >= self.settings.epochs or bool(patience and self.state.history and waited >= patience)

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
            lr=self.optimiser.param_groups[0]["lr"],
            seconds=seconds,
            data_wait_share=wait.seconds / learned_s,
        )
        self.state.history.append(record)
        self.state.seconds += seconds
        rank = (-math.inf if val_auroc is None else val_auroc, -val_loss)
        if rank > self.state.best_rank:
            self.state.best_rank, self.state.best_epoch = rank, epoch
            weights.save_weights(self.model, self.folder / WEIGHTS, convention=self.trial.input)
        self.save()

    def _learn(self, epoch: int, report: Callable[[Progress], None], wait: Wait) -> float:
        self.model.train()
        plan = batches.shuffled(len(self.train), batch_size=self.settings.batch_size, seed=self.trial.seed, epoch=epoch)
        generator = torch.Generator().manual_seed(self.trial.seed * 1_000_003 + epoch)
        total = torch.zeros((), device=self.device)
        for number, (images, labels) in enumerate(batches.load(self.train, plan, device=self.device, wait=wait)):
            share = (epoch - 1 + number / len(plan)) / self.settings.epochs
            self._set_rate(learning_rate_factor(share, warmup=self.settings.warmup))
            changed = batches.augment(images, self.settings.augmentation, generator=generator)
            total += self._step(batches.normalise(changed, self.trial.input), labels)
            report(Progress(epoch, number + 1, len(plan)))
        mean = float(total) / len(plan)
        if not math.isfinite(mean):
            raise TrialError("numerical", f"the training loss became {mean} in epoch {epoch}: lower --lr")
        return mean

    def _step(self, images: Tensor, labels: Tensor) -> Tensor:
        with devices.autocast(self.precision, self.device):
            loss: Tensor = self.loss(self.model(images).float(), labels)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call] # torch's own
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss.detach()

    def _set_rate(self, factor: float) -> None:
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

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


def learning_rate_factor(share: float, *, warmup: float) -> float:
    """Return the factor on the peak rate after `share` of the training: linear warm-up, then a cosine to 0."""
    if share < warmup:
        return (share + 0.01 * warmup) / (1.01 * warmup)
    return 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))


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
