"""Linear probing: the trunk stays as it is, the head learns (LP in Davila et al. 2024, FAT in Peng et al. 2023)."""

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import TrainSettings
from ttl_deploy.training.strategies import KeepsStart, Phase, learning_groups, names_of


class LinearProbe(KeepsStart):
    """Train the head; the trunk is frozen, its BatchNorm statistics too.

    Images are shown without augmentation: the trunk runs over them once, and every epoch takes its features.
    """

    options: ClassVar[Mapping[str, str]] = {}

    def __init__(self, given: Mapping[str, str]) -> None:
        """Take no options."""

    def phases(self, model: nn.Module, spec: ModelSpec, settings: TrainSettings) -> tuple[Phase, ...]:
        """Return one phase with the head's parameters."""
        head = names_of(model, "head")
        groups = learning_groups(model, head, lr=settings.lr, weight_decay=settings.weight_decay)
        return (Phase(name="probe", epochs=settings.epochs, groups=groups),)
