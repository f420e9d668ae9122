"""What follows the trunk: pooling, dropout, and the linear layer for the task's classes."""

from typing import get_args

import torch
from torch import Tensor, nn

from ttl_deploy.errors import UsageError
from ttl_deploy.records.models import Pool


class Head(nn.Module):
    """Turn features `(N, channels, height, width)` into logits `(N, classes)`.

    Where the features are not normalised and activated yet, BatchNorm and ReLU come first.
    """

    def __init__(
        self,
        features: tuple[int, int, int],
        classes: int,
        *,
        pool: Pool = "avg",
        dropout: float = 0.0,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        channels = features[0]
        self.norm = nn.Identity() if normalised else nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.pool = _build_pool(pool)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(count_pooled(features, pool), classes)

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.pool(self.norm(features))  # (N, pooled)
        logits: Tensor = self.linear(self.dropout(pooled))
        return logits


def count_pooled(features: tuple[int, int, int], pool: Pool) -> int:
    """Return how many numbers per image pooling leaves of features `(channels, height, width)`."""
    channels, height, width = features
    if pool == "flatten":
        return channels * height * width
    return 2 * channels if pool == "avgmax" else channels


class AvgPool(nn.Module):
    """Average over height and width, as a mean, whose gradient is deterministic on CUDA."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3))


class MaxPool(nn.Module):
    """Maximum over height and width; equal maxima share the gradient."""

    def forward(self, features: Tensor) -> Tensor:
        return features.amax((2, 3))


class AvgMaxPool(nn.Module):
    """Averages, then maxima, side by side: twice as many numbers as channels."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)


class GemPool(nn.Module):
    """Generalised mean with a learned exponent that starts at 3 (Radenović et al. 2019, equation 3).

    Values below 1e-6 count as 1e-6: it belongs behind an activation. Computed in single precision,
    as powers leave the range of half precision.
    """

    def __init__(self) -> None:
        super().__init__()
        self.exponent = nn.Parameter(torch.tensor(3.0))

    def forward(self, features: Tensor) -> Tensor:
        powers = features.float().clamp(min=1e-6).pow(self.exponent)
        return powers.mean((2, 3)).pow(1 / self.exponent).to(features.dtype)


def _build_pool(pool: Pool) -> nn.Module:
    kinds = {"avg": AvgPool, "max": MaxPool, "avgmax": AvgMaxPool, "gem": GemPool, "flatten": nn.Flatten}
    if pool not in kinds:
        raise UsageError(f"unknown pooling {pool!r}: choose one of {', '.join(get_args(Pool))}")
    return kinds[pool]()
