"""A small learnable task: the bright quadrant tells the class."""

from collections.abc import Callable

import numpy as np
import pytest

from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import Augmentation, TrainSettings, Trial
from ttl_deploy.training.batches import LabelledPixels

SIDE = 32


def draw(count: int, *, seed: int) -> LabelledPixels:
    """Draw noise images; class 1 is brighter at the top left, class 0 at the top right."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 2
    images = rng.integers(60, 140, size=(count, SIDE, SIDE, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        columns = slice(0, SIDE // 2) if label else slice(SIDE // 2, SIDE)
        image[: SIDE // 2, columns] += 60
    return LabelledPixels(array=images, rows=np.arange(count, dtype=np.int64), labels=labels)


@pytest.fixture(scope="session")
def train_pixels() -> LabelledPixels:
    """64 training images."""
    return draw(64, seed=1)


@pytest.fixture(scope="session")
def val_pixels() -> LabelledPixels:
    """32 validation images."""
    return draw(32, seed=2)


@pytest.fixture
def make_trial() -> Callable[..., Trial]:
    """Make a quick trial on a shallow ResNet-18; keyword arguments change the training settings."""

    def make(*, seed: int = 0, **changes: object) -> Trial:
        still = Augmentation(flip=False, rotate_deg=2, zoom=0.02, shift=0.0)
        settings = {"epochs": 3, "batch_size": 16, "lr": 3e-3, "augmentation": still} | changes
        return Trial(
            model=ModelSpec(backbone="resnet18", cut="layer1.1", classes=2, image_size=SIDE, dropout=0.2),
            weights="none",
            strategy="full",
            seed=seed,
            train=TrainSettings(**settings),  # type: ignore[arg-type] # keyword arguments of mixed types
        )

    return make
