"""Linear probing: the trunk stays as it is, the head learns (LP in Davila et al. 2024, FAT in Peng et al. 2023)."""

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import TrainSettings
from ttl_deploy.training.strategies import KeepsStart, Phase, learning_groups, names_of, read_number

RATE = 20.0
"""How much faster than `--lr` a head learns alone."""


class LinearProbe(KeepsStart):
    """Train the head; the trunk is frozen, its BatchNorm statistics too.

    `--lr` is meant for pretrained layers. A head that learns alone is convex on fixed features and wants far
    more: MobileNetV2 cut at features.7 and features.13 (chest X-rays, three classes, 400 images of 64 px, 5
    epochs, validation AUROC): at --lr .62 and .62, at 10 times that .85 and .85, at 40 times .87 and .86.

    Images are shown without augmentation: the trunk runs over them once, and every epoch takes its features.
    """

    options: ClassVar[Mapping[str, str]] = {"rate": f"rate of the head as a multiple of --lr, {RATE:g}"}

    def __init__(self, given: Mapping[str, str]) -> None:
        """Take the rate."""
        self.rate = read_number(given, "rate", RATE)

    def phases(self, model: nn.Module, spec: ModelSpec, settings: TrainSettings) -> tuple[Phase, ...]:
        """Return one phase with the head's parameters."""
        head = names_of(model, "head")
        groups = learning_groups(model, head, lr=self.rate * settings.lr, weight_decay=settings.weight_decay)
        return (Phase(name="probe", epochs=settings.epochs, groups=groups),)
