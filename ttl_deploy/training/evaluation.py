"""Predictions of a model on a split: always fp32, evaluation mode, no augmentation."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from ttl_deploy.files import publish_bytes
from ttl_deploy.records.models import InputConvention
from ttl_deploy.training import batches
from ttl_deploy.training.batches import LabelledPixels

BATCH_SIZE = 64


@torch.no_grad()
def predict(
    model: nn.Module,
    data: LabelledPixels,
    *,
    convention: InputConvention,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Return logits `(n, C)` of all images of `data`, normalised by `convention`, in order, from one fp32 pass."""
    model.eval()
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    outputs: list[NDArray[np.float32]] = []
    plan = batches.in_order(len(data), batch_size=BATCH_SIZE)
    try:
        for number, (images, _) in enumerate(batches.load(data, plan, device=device), start=1):
            outputs.append(model(batches.normalise(images, convention)).float().cpu().numpy())
            if progress:
                progress(number, len(plan))
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    return np.concatenate(outputs)


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax over classes of logits `(n, C)`, as fp32 torch computes it."""
    return functional.softmax(torch.from_numpy(logits), dim=1).numpy()


def mean_loss(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the unweighted mean cross-entropy of logits `(n, C)`."""
    return float(functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))


def save_predictions(path: Path, *, predicted: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Publish probabilities `(n, C)` and labels `(n,)` of one split, in the manifest's order."""
    buffer = io.BytesIO()
    np.savez(buffer, probabilities=predicted, labels=labels)
    publish_bytes(path, buffer.getvalue())
