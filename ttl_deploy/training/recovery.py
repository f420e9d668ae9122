"""What a trial goes back to after a setback, and what it changes then."""

import copy
import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ttl_deploy.records.trials import FailureKind, Precision, Trial
from ttl_deploy.training.steps import LEAST_IMAGES

MOST_REDUCTIONS = 3
"""How often a trial halves its rates before it gives up."""
_log = logging.getLogger(__name__)


class TrialError(Exception):
    """A trial cannot go on; the search records it as a `TrialFailure` of this kind and goes on without it."""

    def __init__(self, kind: FailureKind, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Setbacks:
    """What a trial changed on its way: part of its checkpoint, so that a resumed trial goes on alike.

    Attributes:
        reductions: how often all rates were halved.
        micro_batch: how many images go through the model at once; 0 is the whole mini-batch.
    """

    reductions: int = 0
    micro_batch: int = 0

    def lower_rates(self, optimiser: torch.optim.Optimizer) -> None:
        """Multiply the rates that the schedule has set by what the reductions leave of them."""
        for group in optimiser.param_groups:
            group["lr"] *= 0.5**self.reductions


def halve_rates(before: Setbacks, seen: str, *, trial: Trial, precision: Precision) -> Setbacks:
    """Return the setbacks with one more reduction; raises `TrialError` with what was seen after the last one."""
    if before.reductions == MOST_REDUCTIONS:
        remedy = f"lower --lr ({trial.train.lr:g})" + ("" if precision == "fp32" else " or use --precision fp32")
        halved = f"after all rates were halved {MOST_REDUCTIONS} times"
        raise TrialError("numerical", f"{seen}, {halved}: {remedy}") from None
    _log.warning("%s: %s; the epoch begins anew with all rates halved", trial.key, seen)
    return replace(before, reductions=before.reductions + 1)


def halve_batch(before: Setbacks, images: int, *, trial: Trial, device: torch.device) -> Setbacks:
    """Return the setbacks with half of `images` at once; raises `TrialError` where that is less than 2.

    The mini-batch stays what it is, but BatchNorm's statistics are those of its parts from then on.
    """
    if images // 2 < LEAST_IMAGES:
        raise TrialError(
            "memory",
            f"out of memory on {device} with only {images} images of a mini-batch ({trial.train.batch_size}) "
            "at once: take a smaller --image-size or backbone, fewer --workers, or another --device",
        ) from None
    _log.warning("%s: out of memory; the epoch begins anew with %d images at once", trial.key, images // 2)
    return replace(before, micro_batch=images // 2)


def copy_of(content: Any) -> Any:
    """Return a copy of nested dicts, lists and tuples with all their tensors copied to main memory."""
    if isinstance(content, Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, dict):
        copied = copy.copy(content)  # a state dict also carries its layers' versions
        copied.update({key: copy_of(value) for key, value in content.items()})
        return copied
    if isinstance(content, list | tuple):
        return type(content)(copy_of(value) for value in content)
    return content
