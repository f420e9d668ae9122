"""Predictions of a model on a split: always fp32, evaluation mode, no augmentation."""

import io
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ttl_deploy.evidence import metrics
from ttl_deploy.files import publish_bytes
from ttl_deploy.records.models import InputConvention
from ttl_deploy.training import batches, devices, losses
from ttl_deploy.training.batches import LabelledPixels

BATCH_SIZE = 64
_log = logging.getLogger(__name__)


def predict(
    model: nn.Module,
    data: LabelledPixels,
    *,
    convention: InputConvention,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Return logits `(n, C)` of all images of `data`, normalised by `convention`, in order, from one fp32 pass."""
    return run_over(model, data, convention=convention, device=device, progress=progress).numpy()


def run_over(
    module: nn.Module,
    data: LabelledPixels,
    *,
    convention: InputConvention,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return what a module makes of all images, `(n, …)` in fp32 and main memory, from one pass in evaluation mode.

    After too little memory the pass begins anew with half as many images at once; where one alone is too
    many, `torch.OutOfMemoryError` goes on to the caller. `progress` gets the batches done and their number.
    """
    size = max(1, min(BATCH_SIZE, len(data)))
    while True:
        try:
            return _run_over(module, data, convention=convention, device=device, batch_size=size, progress=progress)
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        size //= 2
        _log.warning("out of memory in evaluation on %s: it begins anew with %d images at once", device, size)


@torch.no_grad()
def _run_over(
    module: nn.Module,
    data: LabelledPixels,
    *,
    convention: InputConvention,
    device: torch.device,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    module.eval()
    plan = batches.in_order(len(data), batch_size=batch_size)
    results = torch.empty(0)
    with devices.full_precision():
        for number, (images, _) in enumerate(batches.load(data, plan, device=device)):
            made = module(batches.normalise(images, convention)).float()
            if number == 0:
                results = torch.empty((len(data), *made.shape[1:]))
            results[number * batch_size : number * batch_size + len(made)] = made.cpu()
            if progress:
                progress(number + 1, len(plan))
    return results


def probabilities(logits: NDArray[np.float32], *, multilabel: bool) -> NDArray[np.floating]:
    """Return the softmax over classes of logits `(n, C)` or `(n, exits, C)`, as fp32 torch computes it.

    With several labels per image it is the sigmoid of each, in double precision: single precision would round
    probabilities near 1 so that their logits, which calibration needs, are lost.
    """
    given = torch.from_numpy(logits)
    return (torch.sigmoid(given.double()) if multilabel else functional.softmax(given, dim=-1)).numpy()


def mean_loss(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the unweighted mean cross-entropy of logits `(n, C)` or `(n, exits, C)`; labels `(n,)` or `(n, C)`."""
    given, wanted = torch.from_numpy(logits), torch.from_numpy(labels)
    if given.ndim == 3:
        given, wanted = given.flatten(0, 1), wanted.repeat_interleave(given.shape[1], dim=0)
    return float(losses.masked_bce(given, wanted) if wanted.ndim == 2 else functional.cross_entropy(given, wanted))


def mean_auroc(predicted: NDArray[np.floating], labels: NDArray[np.int64]) -> float | None:
    """Return the macro AUROC of probabilities `(n, C)`, the mean over exits where they are `(n, exits, C)`."""
    scored = predicted if predicted.ndim == 2 else np.moveaxis(predicted, 1, 0)
    return metrics.evaluate("auroc", scored, labels).value


def save_predictions(path: Path, *, predicted: NDArray[np.floating], labels: NDArray[np.int64]) -> None:
    """Publish probabilities `(n, C)` and labels `(n,)` or `(n, C)` of one split, in the manifest's order."""
    buffer = io.BytesIO()
    np.savez(buffer, probabilities=predicted, labels=labels)
    publish_bytes(path, buffer.getvalue())
