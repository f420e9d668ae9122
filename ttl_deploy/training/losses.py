"""What is minimised. All losses take logits."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ttl_deploy.records.trials import ClassWeights, TrainSettings


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


def masked_bce(
    logits: Tensor, labels: Tensor, *, pos_weight: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the binary cross-entropy of logits `(N, L)`, averaged over the known entries of `labels` `(N, L)`.

    Labels are 0 or 1, and NaN where missing or uncertain. A batch without a known entry gives 0, with zero
    gradients. `pos_weight` `(L,)` multiplies the term of the positives. Smoothing moves labels towards 1/2.
    """
    known = ~torch.isnan(labels)
    # Unknown entries are replaced before the loss, not after: a NaN times 0 is still NaN in the backward pass.
    targets = torch.where(known, labels, 0.0) * (1 - label_smoothing) + label_smoothing / 2
    terms = functional.binary_cross_entropy_with_logits(
        torch.where(known, logits, 0.0), targets, pos_weight=pos_weight, reduction="none"
    )
    return torch.where(known, terms, 0.0).sum() / known.sum().clamp(min=1)


def positive_weights(labels: NDArray[np.floating]) -> Tensor:
    """Return `negatives / positives` `(L,)` over the known entries of labels `(n, L)`: 0, 1, or NaN for unknown.

    A label without positives, or without negatives, gets 1: there is nothing to balance, and a weight of 0
    or infinity would switch the label off or break the loss. Raises `ValueError` for any other value, since
    an uncertain label left at -1 would be learned as "more than absent".
    """
    known = ~np.isnan(labels)
    if other := sorted({float(value) for value in labels[known]} - {0.0, 1.0}):
        raise ValueError(f"labels hold {other[0]:g}: allowed are 0, 1, and NaN for missing or uncertain")
    positives, negatives = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    balanced = (positives > 0) & (negatives > 0)
    return torch.tensor(np.where(balanced, negatives / np.maximum(positives, 1), 1.0), dtype=torch.float32)
