"""Full finetuning: every parameter that is left after the cut learns at the same rate.

At the cut `full` that is FTL, at any other TTL (Peng et al. 2023, papers' section 1.1), and on a `slim:`
backbone TF; in Davila et al. 2024 it is FT.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import TrainSettings
from ttl_deploy.training.strategies import KeepsStart, Phase, learning_groups, names_of


class FullFinetuning(KeepsStart):
    """Train everything; norms and biases are not decayed."""

    options: ClassVar[Mapping[str, str]] = {}

    def __init__(self, given: Mapping[str, str]) -> None:
        """Take no options."""

    def phases(self, model: nn.Module, spec: ModelSpec, settings: TrainSettings) -> tuple[Phase, ...]:
        """Return one phase with all parameters."""
        groups = learning_groups(model, names_of(model), lr=settings.lr, weight_decay=settings.weight_decay)
        return (Phase(name="finetune", epochs=settings.epochs, groups=groups),)
