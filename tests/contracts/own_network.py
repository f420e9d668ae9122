"""Networks as users write them: functional layers, dropout that looks at the mode, one channel."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Branch(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, channels, 1)
        self.wide = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(2 * channels)

    def forward(self, features: Tensor) -> Tensor:
        joined = torch.cat([self.narrow(features), self.wide(features)], 1)
        return functional.dropout2d(functional.relu(self.norm(joined)), 0.3, self.training)


class _Branching(nn.Module):
    """A stem, two blocks of parallel convolutions, and functional pooling and dropout in the forward itself."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.first = _Branch(8)
        self.second = _Branch(16)
        self.classifier = nn.Linear(32, 7)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.max_pool2d(functional.relu(self.stem(images)), 2)
        features = self.second(self.first(features))
        pooled = features.mean((2, 3))
        return self.classifier(functional.dropout(pooled, p=0.2, training=self.training))


class _Grey(nn.Module):
    """A small network for images of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()),
        )
        self.last = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.features(images).flatten(2).mean(2))


def branching() -> nn.Module:
    """Build the network with parallel branches."""
    return _Branching()


def grey() -> nn.Module:
    """Build the network for one channel."""
    return _Grey()
