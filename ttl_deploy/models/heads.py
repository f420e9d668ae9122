"""What follows the trunk: pooling, dropout, and the linear layer for the task's classes."""

from typing import get_args

import torch
from torch import Tensor, nn

from ttl_deploy.errors import UsageError
from ttl_deploy.records.models import Layout, Pool


class Head(nn.Module):
    """Turn features into logits `(N, classes)`.

    Features come in their layout, and are pooled as a map `(N, channels, height, width)`; tokens are
    a map of width 1, so average pooling takes the mean of all tokens, a class token included. Where
    the features are not normalised yet, maps go through BatchNorm and ReLU first, and the features
    of transformers through LayerNorm, as in their own last layers.
    """

    def __init__(
        self,
        features: tuple[int, int, int],
        classes: int,
        *,
        pool: Pool = "avg",
        dropout: float = 0.0,
        layout: Layout = "map",
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.norm = nn.Identity() if normalised else _build_norm(features[0], layout)
        self.to_map = _build_to_map(layout)
        self.pool = _build_pool(pool)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(count_pooled(features, pool), classes)

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.pool(self.to_map(self.norm(features)))  # (N, pooled)
        logits: Tensor = self.linear(self.dropout(pooled))
        return logits


def count_pooled(features: tuple[int, int, int], pool: Pool) -> int:
    """Return how many numbers per image pooling leaves of features `(channels, height, width)`."""
    channels, height, width = features
    if pool == "flatten":
        return channels * height * width
    return 2 * channels if pool == "avgmax" else channels


class MapFromChannelsLast(nn.Module):
    """Turn `(N, H, W, C)` into `(N, C, H, W)`."""

    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 3, 1, 2)


class MapFromTokens(nn.Module):
    """Turn `(N, tokens, C)` into `(N, C, tokens, 1)`."""

    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 2, 1).unsqueeze(3)


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


def _build_norm(channels: int, layout: Layout) -> nn.Module:
    if layout == "map":
        return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    return nn.LayerNorm(channels)


def _build_to_map(layout: Layout) -> nn.Module:
    kinds = {"map": nn.Identity, "map-last": MapFromChannelsLast, "tokens": MapFromTokens}
    return kinds[layout]()


def _build_pool(pool: Pool) -> nn.Module:
    kinds = {"avg": AvgPool, "max": MaxPool, "avgmax": AvgMaxPool, "gem": GemPool, "flatten": nn.Flatten}
    if pool not in kinds:
        raise UsageError(f"unknown pooling {pool!r}: choose one of {', '.join(get_args(Pool))}")
    return kinds[pool]()
