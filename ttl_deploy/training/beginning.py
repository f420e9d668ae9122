"""What a trial begins with: the weights of its model, and the model that teaches it."""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from ttl_deploy.errors import UsageError
from ttl_deploy.models import truncation, weights
from ttl_deploy.models.input_conventions import Feeding
from ttl_deploy.models.truncation import Model, TruncatedModel
from ttl_deploy.models.width.pruning import prune
from ttl_deploy.records.trials import Trial
from ttl_deploy.training import batches
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.joint import begin_with_heads
from ttl_deploy.training.recovery import TrialError
from ttl_deploy.training.strategies import Strategy, find_strategy
from ttl_deploy.training.strategies.narrowed import Narrowed
from ttl_deploy.training.teaching import Teacher

_BATCH_NORM_IMAGES = 2_000
"""Training images that the statistics of a pruned model are taken from, at most."""


def strategy_of(trial: Trial) -> Strategy:
    """Return how a trial's model learns; raises what `find_strategy` raises."""
    return Narrowed({}) if trial.model.layers else find_strategy(trial.strategy)


def begin(trial: Trial, *, warm: bool, start: Path | None) -> tuple[Model, str]:
    """Return the model with its first weights, on the CPU, and a note on where they are from.

    `start` is the file of the weights that the trial begins with, where it does. Raises `UsageError` where it is
    missing, `WeightsError` for files that do not fit, and `TrialError` for a model that cannot be narrowed.
    """
    if trial.model.layers:
        return _narrow(trial, _take_start(trial, start)), f"narrowed to width {trial.model.width:g} from {trial.start}"
    model = truncation.build_exits(trial.model) if trial.model.exits else truncation.build(trial.model)
    _check_channels(trial, model)
    feeding = Feeding(file=trial.weights_input, network=trial.input)
    note = weights.load_pretrained(model, trial.model, trial.weights, feeding=feeding).text
    if warm:
        weights.load_weights(model, _take_start(trial, start))
        return model, f"{note}; then finetuned jointly with other cuts ({trial.start})"
    if isinstance(model, truncation.MultiExitModel) and start is not None:
        begin_with_heads(model, start)
    return model, note


def _narrow(trial: Trial, start: Path) -> TruncatedModel:
    """Take from a trained model the channels with the smallest weights, as many as the trial's structure says."""
    spec = trial.model.at_full_width
    model = truncation.build(spec)
    weights.load_weights(model, start)
    try:
        layers = prune(model, spec, width=trial.model.width)
    except UsageError as error:
        raise TrialError("unsupported", str(error)) from error
    if layers != trial.model.layers:
        planned = {layer.name: layer for layer in trial.model.layers}
        other = [layer.name for layer in layers if planned.get(layer.name) != layer]
        raise TrialError("unsupported", f"pruning left other sizes than were planned, first in {other[:3]}")
    return model


def refresh_statistics(model: nn.Module, train: LabelledPixels, trial: Trial, *, device: torch.device) -> None:
    """Take the running statistics of BatchNorm anew, from training images as they are, in place.

    Those of the model at full width do not hold where channels are missing before them.
    """
    count = min(len(train), _BATCH_NORM_IMAGES)
    order = np.random.default_rng(trial.seed).permutation(len(train))[:count].astype(np.int64)
    size = trial.train.batch_size
    plan = tuple(order[first : first + size] for first in range(0, count, size) if count - first > 1)
    images = (batches.normalise(loaded, trial.input) for loaded, _ in batches.load(train, plan, device=device))
    update_bn(images, model)


def take_teacher(trial: Trial, wanted: str | None, given: Teacher | None) -> Teacher | None:
    """Return the teacher where the strategy wants one; raises `UsageError` where it is missing."""
    if wanted is None:
        return None
    if given is None:
        raise UsageError(
            f"{trial.key}: strategy {trial.strategy!r} needs a teacher but none is given: train the full network "
            f"with {wanted!r} and the same seed first, and pass its weights as run_trial(teacher=...)"
        )
    return given


def _take_start(trial: Trial, given: Path | None) -> Path:
    if given is None:
        raise UsageError(
            f"{trial.key}: strategy {trial.strategy!r} begins with a trained model's weights but none are given: train "
            f"{trial.start or 'all cuts as one network'} first, and pass its weights as run_trial(start=...)"
        )
    return given


def _check_channels(trial: Trial, model: Model) -> None:
    if len(trial.input.mean) != model.channels:
        raise UsageError(
            f"{trial.key}: `input` has {len(trial.input.mean)} entries, but {trial.model.backbone} takes "
            f"{model.channels} channels: give one entry for each (input_conventions.fit_channels)"
        )
