"""What is minimised. All losses take logits."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ttl_deploy.records.trials import ClassWeights, TrainSettings


@dataclass(frozen=True, slots=True)
class TaskLoss:
    """What a training minimises; `class_weights` `(C,)` are those by which the mean over images is weighted, if any."""

    module: nn.Module
    class_weights: Tensor | None


def task_loss(labels: NDArray[np.int64], *, classes: int, settings: TrainSettings) -> TaskLoss:
    """Return the loss that the settings ask for, balanced by training labels `(n,)`, or `(n, C)` of several each."""
    if labels.ndim == 2:
        gamma = settings.focal_gamma if settings.loss == "focal" else 0.0
        positives = positive_weights(labels, kind=settings.class_weights)
        return TaskLoss(MaskedBce(positives, gamma=gamma, label_smoothing=settings.label_smoothing), None)
    weights = class_weights(labels, classes=classes, kind=settings.class_weights)
    return TaskLoss(training_loss(weights, settings=settings), weights)


def image_weights(labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return what each image counts in a batch's mean loss, `(N,)`.

    By its class's weight; of several labels per image, by how many of them are known.
    """
    if labels.ndim == 2:
        return (labels >= 0).sum(dim=1).float()
    return torch.ones(len(labels), device=labels.device) if weights is None else weights[labels]


def training_loss(weights: Tensor | None, *, settings: TrainSettings) -> nn.Module:
    """Return the loss over classes that the settings ask for, with class weights `(C,)`.

    Whichever it is, a batch's mean divides by the sum of its labels' weights.
    """
    if settings.loss == "focal":
        return Focal(weights, gamma=settings.focal_gamma, label_smoothing=settings.label_smoothing)
    return cross_entropy(weights, label_smoothing=settings.label_smoothing)


def class_weights(labels: NDArray[np.int64], *, classes: int, kind: ClassWeights) -> Tensor | None:
    """Return weights `(classes,)` from the training labels: `n / (classes * n_c)`, mean 1 over images.

    A class without training images gets weight 0; `none` returns None.
    """
    if kind == "none":
        return None
    counts = np.bincount(labels, minlength=classes)
    weights = np.where(counts > 0, len(labels) / (classes * np.maximum(counts, 1)), 0.0)
    return torch.tensor(weights, dtype=torch.float32)


def cross_entropy(weights: Tensor | None, *, label_smoothing: float) -> nn.Module:
    """Return weighted cross-entropy over logits `(N, C)` and class indices `(N,)`."""
    return nn.CrossEntropyLoss(weight=weights, label_smoothing=label_smoothing)


class Focal(nn.Module):
    """Weigh down what is already right (Lin et al. 2017, equation 5); logits `(N, C)`, class indices `(N,)`."""

    weights: Tensor | None

    def __init__(self, weights: Tensor | None, *, gamma: float, label_smoothing: float = 0.0) -> None:
        """Keep the class weights `(C,)`, which take the place of the paper's alpha, and gamma, 0 or more."""
        super().__init__()
        self.register_buffer("weights", weights)
        self.gamma, self.label_smoothing = gamma, label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        return focal(logits, labels, gamma=self.gamma, weights=self.weights, label_smoothing=self.label_smoothing)


def focal(
    logits: Tensor, labels: Tensor, *, gamma: float, weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return `sum_nc q_nc w_c (1 - p_nc)^gamma (-log p_nc) / sum_n w_(label n)` over logits `(N, C)`.

    Without smoothing, q is 1 for the label and the sum is the focal loss of Lin et al. 2017, equation 5,
    with the weights `(C,)` as alpha. Smoothing spreads its share over all classes evenly. The divisor is
    the one of torch's weighted cross-entropy, so gamma 0 is exactly that.
    """
    classes = logits.shape[1]
    weights = logits.new_ones(classes) if weights is None else weights
    right = labels.unsqueeze(1) == torch.arange(classes, device=labels.device)
    wanted = right.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / classes
    log_likely = functional.log_softmax(logits, dim=1)
    # For gamma below 1 the slope of 0^gamma is infinite; the floor keeps it finite for images that are certain.
    doubt = -torch.expm1(log_likely)
    doubt = doubt.clamp(min=torch.finfo(doubt.dtype).tiny)
    return -(wanted * weights * doubt**gamma * log_likely).sum() / weights[labels].sum()


class MaskedBce(nn.Module):
    """Binary cross-entropy of several labels per image; unknown ones count for nothing."""

    positives: Tensor | None

    def __init__(self, positives: Tensor | None, *, gamma: float = 0.0, label_smoothing: float = 0.0) -> None:
        """Keep the weights of the positives `(C,)`, and focal's gamma, 0 or more."""
        super().__init__()
        self.register_buffer("positives", positives)
        self.gamma, self.label_smoothing = gamma, label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        return masked_bce(
            logits, labels, positives=self.positives, gamma=self.gamma, label_smoothing=self.label_smoothing
        )


def masked_bce(
    logits: Tensor,
    labels: Tensor,
    *,
    positives: Tensor | None = None,
    gamma: float = 0.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the binary cross-entropy of logits `(N, C)`, averaged over the known entries of `labels` `(N, C)`.

    Labels are whole numbers: 1 present, 0 absent, -1 not known. A batch without a known entry gives 0, with zero
    gradients. `positives` `(C,)` multiplies the term of the positives. Smoothing moves labels towards 1/2. `gamma`
    weighs down what is already right (Lin et al. 2017, equation 4, for each label by itself).
    """
    known = labels >= 0
    # Unknown entries are replaced before the loss, not after: what comes of them must not reach the gradients.
    targets = torch.where(known, labels, 0).to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    given = torch.where(known, logits, 0.0)
    terms = functional.binary_cross_entropy_with_logits(given, targets, pos_weight=positives, reduction="none")
    if gamma:
        right = torch.where(labels == 1, given, -given)
        doubt = torch.sigmoid(-right).clamp(min=torch.finfo(given.dtype).tiny)
        terms = terms * doubt**gamma
    return torch.where(known, terms, 0.0).sum() / known.sum().clamp(min=1)


def positive_weights(labels: NDArray[np.int64], *, kind: ClassWeights) -> Tensor | None:
    """Return `negatives / positives` `(C,)` over the known entries of labels `(n, C)`; `none` returns None.

    A class without positives, or without negatives, gets 1: there is nothing to balance, and a weight of 0
    or infinity would switch it off or break the loss.
    """
    if kind == "none":
        return None
    positives, negatives = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    balanced = (positives > 0) & (negatives > 0)
    return torch.tensor(np.where(balanced, negatives / np.maximum(positives, 1), 1.0), dtype=torch.float32)
