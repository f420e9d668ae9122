"""Pooled features of a frozen backbone at all its cuts, from one forward pass."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ttl_deploy.models.heads import Head
from ttl_deploy.models.truncation import MultiExitModel
from ttl_deploy.records.models import InputConvention
from ttl_deploy.training import batches, evaluation
from ttl_deploy.training.batches import LabelledPixels

_FIRST_IMAGES = 64


class PooledExits(nn.Module):
    """The features at every exit of a network as the exit's own head pools them, side by side in one vector.

    Where a head normalises first (DenseNet), its BatchNorm takes the statistics of the images that
    `settle` is given, and no others.
    """

    def __init__(self, network: MultiExitModel) -> None:
        super().__init__()
        self.trunk = network.trunk
        self.pools = nn.ModuleList(_build_pool(head) for head in network.heads)
        self.widths: tuple[int, ...] = ()

    @torch.no_grad()
    def settle(self, images: Tensor) -> None:
        """Take the normalisations' statistics from normalised images `(N, C, H, W)`, and the number of features."""
        self.eval()
        features = self.trunk(images)
        for layer in self.pools.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.momentum = None  # running statistics are then those of all that was seen
                layer.train()
        self.widths = tuple(pool(one).shape[1] for pool, one in zip(self.pools, features, strict=True))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return the features of all exits `(N, sum of widths)`, the shallowest first."""
        features = self.trunk(images)
        return torch.cat([pool(one) for pool, one in zip(self.pools, features, strict=True)], dim=1)


def collect(
    pooled: PooledExits,
    data: LabelledPixels,
    *,
    convention: InputConvention,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[NDArray[np.float32], ...]:
    """Return features `(n, D)` for each exit, shallow to deep, of images as they are, in evaluation mode and fp32.

    `progress` gets the batches done and their number. The first data set that is given settles the statistics.
    """
    if not pooled.widths:
        plan = batches.in_order(min(_FIRST_IMAGES, len(data)), batch_size=_FIRST_IMAGES)
        for images, _ in batches.load(data, plan, device=device):
            pooled.settle(batches.normalise(images, convention))
    features = evaluation.run_over(pooled, data, convention=convention, device=device, progress=progress)
    return tuple(np.split(features.numpy(), np.cumsum(pooled.widths)[:-1], axis=1))


def _build_pool(head: nn.Module) -> nn.Module:
    if isinstance(head, Head):
        return nn.Sequential(head.norm, head.to_map, head.pool)
    return _Flat()


class _Flat(nn.Module):
    """What enters a network's own classifier: a vector per image, or a map (SqueezeNet), which is averaged."""

    def forward(self, features: Tensor) -> Tensor:
        return features if features.ndim == 2 else features.flatten(2).mean(2)
