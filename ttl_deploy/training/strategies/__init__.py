"""Strategies: what of a model is trainable, and at which rate. One file each; `plugins.py` names them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from ttl_deploy.records.trials import TrainSettings


class Strategy(Protocol):
    """Decides what a trial trains; the loop does the rest."""

    def parameter_groups(self, model: nn.Module, settings: TrainSettings) -> Sequence[Mapping[str, Any]]:
        """Freeze what is not trained, and return the optimiser's groups with `params`, `lr`, `weight_decay`."""
        ...
