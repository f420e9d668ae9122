"""Features of a frozen trunk, computed once and kept, for phases in which nothing of the trunk learns.

What is kept is what enters the first part that learns: pooled vectors, or maps where the head's own
normalisation or pooling learns. They are computed as in evaluation: in fp32, from images as they are.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ttl_deploy.models.heads import Head
from ttl_deploy.models.truncation import Model, TruncatedModel, find_place
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.training import devices, evaluation
from ttl_deploy.training.batches import Plan, Wait
from ttl_deploy.training.material import Setup
from ttl_deploy.training.strategies import Phase

MOST_BYTES = 2 * 2**30
"""Features of all training and validation images are kept up to this size, in main memory."""
_log = logging.getLogger(__name__)


class Features:
    """Features in place of images, and the rest of the model behind them. Compiling that would gain nothing."""

    def __init__(self, setup: Setup, progress: Callable[[int, int], None]) -> None:
        """Run the frozen part once over all images; `progress` gets the batches done and their number."""
        self._setup = setup
        frozen, self._learner = split(setup.model)
        self._scored = split(setup.scored)[1]
        self._labels = torch.from_numpy(setup.train.labels)
        self._train, self._val = (
            evaluation.run_over(frozen, data, convention=setup.trial.input, device=setup.device, progress=progress)
            for data in (setup.train, setup.val)
        )

    def batches(self, plan: Plan, *, epoch: int, wait: Wait | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the features of mini-batches, `(N, …)`, and their labels; they are the same in every epoch."""
        for positions in plan:
            started = time.perf_counter()
            chosen = torch.from_numpy(positions)
            features, labels = self._to_device(self._train[chosen]), self._labels[chosen].to(self._setup.device)
            if wait is not None:
                wait.seconds += time.perf_counter() - started
            yield features, labels

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of features."""
        return self._setup.task_loss(self._learner(inputs), labels)

    @torch.no_grad()
    def predict(self) -> NDArray[np.float32]:
        """Return what `evaluation.predict` would for the scored model and the validation images."""
        self._scored.eval()
        with devices.full_precision():
            parts = torch.split(self._val, evaluation.BATCH_SIZE)
            return torch.cat([self._scored(self._to_device(part)).float().cpu() for part in parts]).numpy()

    def _to_device(self, features: Tensor) -> Tensor:
        """Move features to the device, maps channels last in memory, as a trunk returns them."""
        if features.ndim == 4:
            return features.to(self._setup.device, memory_format=torch.channels_last)
        return features.to(self._setup.device)


def split(model: Model) -> tuple[nn.Module, nn.Module]:
    """Return the trunk, with the head's beginning where that has no parameters, and the rest of the head.

    One after the other they are the model, whose layers they share.
    """
    assert isinstance(model, TruncatedModel)
    head = model.head
    if isinstance(head, Head) and _begins_without_parameters(head):
        return nn.Sequential(model.trunk, head.norm, head.to_map, head.pool), nn.Sequential(head.dropout, head.linear)
    return model.trunk, head


def _begins_without_parameters(head: Head) -> bool:
    return not [*head.norm.parameters(), *head.pool.parameters()]


def trunk_rests(phase: Phase) -> bool:
    """Tell whether a phase needs of the trunk only its features for images as they are.

    It needs more where rates follow the trunk's gradients, or where a teacher looks at the images too.
    """
    learning = (name for group in phase.groups for name in group.names)
    alone = phase.regroup is None and phase.teaching is None
    return alone and not any(name.startswith("trunk.") for name in learning)


def are_worth_keeping(phases: Sequence[Phase], setup: Setup) -> bool:
    """Tell whether features are kept for the last of `phases`, the others being over.

    They are not where they are too large, nor where an average of the weights is scored whose trunk still
    moves, towards the one that an earlier phase has trained.
    """
    averaged = setup.scored is not setup.model
    if not trunk_rests(phases[-1]) or (averaged and not all(map(trunk_rests, phases))):
        return False
    size_bytes = (len(setup.train) + len(setup.val)) * count_bytes(setup.model, setup.trial.model)
    if size_bytes > MOST_BYTES:
        _log.warning(
            "features would take %.1f GiB, more than the %.0f GiB that are kept: the frozen trunk runs in every epoch",
            *(size / 2**30 for size in (size_bytes, MOST_BYTES)),
        )
    return size_bytes <= MOST_BYTES


def count_bytes(model: Model, spec: ModelSpec) -> int:
    """Return the size of one image's features as `split` divides the model."""
    head = model.head
    if isinstance(head, Head) and _begins_without_parameters(head):
        return head.linear.in_features * torch.float32.itemsize
    return math.prod(find_place(spec).features) * torch.float32.itemsize
