"""What a phase learns on and is scored on. Here images; `features.py` and `teaching.py` have the other kinds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ttl_deploy.models.truncation import Model
from ttl_deploy.records.trials import Augmentation, Trial
from ttl_deploy.training import batches, evaluation
from ttl_deploy.training.batches import LabelledPixels, Plan, Wait

AS_THEY_ARE = Augmentation(flip=False, rotate_deg=0.0, zoom=0.0, shift=0.0, brightness=0.0, contrast=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all phases of a trial have in common.

    Attributes:
        model: the one that learns.
        compiled: the same for the passes of the training, compiled where the settings ask for it.
        scored: the one that is validated and kept: `model`, or the average of its weights.
        loss: of logits `(N, classes)` and labels `(N,)`.
        class_weights: `(classes,)`, by which `loss` weighs its mean; None where all are 1.
    """

    trial: Trial
    train: LabelledPixels
    val: LabelledPixels
    model: Model
    compiled: Callable[[Tensor], Tensor]
    scored: Model
    loss: nn.Module
    class_weights: Tensor | None
    device: torch.device

    def task_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of logits at any precision, computed in fp32."""
        loss: Tensor = self.loss(logits.float(), labels)
        return loss


class Material(Protocol):
    """A phase's mini-batches, what is minimised on them, and how the result is validated."""

    def batches(self, plan: Plan, *, epoch: int, wait: Wait | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield inputs `(N, …)` and labels `(N,)` of an epoch's mini-batches, on the device."""
        ...

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss of a mini-batch or of a part of one, without the phase's penalty."""
        ...

    def predict(self) -> NDArray[np.float32]:
        """Return the logits `(n, classes)` of the model that is scored for all validation images, in fp32."""
        ...


class Images:
    """Images, changed at random or as they are, through the whole model."""

    def __init__(self, setup: Setup, augmentation: Augmentation) -> None:
        self._setup, self._augmentation = setup, augmentation

    def batches(self, plan: Plan, *, epoch: int, wait: Wait | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images `(N, 3, S, S)` in 0..255, float32, and their labels."""
        generator = torch.Generator().manual_seed(self._setup.trial.seed * 1_000_003 + epoch)
        for images, labels in batches.load(self._setup.train, plan, device=self._setup.device, wait=wait):
            yield batches.augment(images, self._augmentation, generator=generator), labels

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of images in 0..255."""
        return self._setup.task_loss(self.logits(inputs), labels)

    def logits(self, inputs: Tensor) -> Tensor:
        """Return what the model that learns makes of images in 0..255."""
        return self._setup.compiled(batches.normalise(inputs, self._setup.trial.input))

    def predict(self) -> NDArray[np.float32]:
        """Run the scored model over the validation images."""
        setup = self._setup
        return evaluation.predict(setup.scored, setup.val, convention=setup.trial.input, device=setup.device)
