"""What is minimised. All losses take logits."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ttl_deploy.records.trials import ClassWeights


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
