"""Full finetuning: every parameter that is left after the cut learns at the same rate (TTL, section 1.1)."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ttl_deploy.records.trials import TrainSettings


class FullFinetuning:
    """Train everything; norms and biases are not decayed."""

    def parameter_groups(self, model: nn.Module, settings: TrainSettings) -> Sequence[Mapping[str, Any]]:
        """Return two groups, with and without weight decay."""
        parameters = list(model.parameters())
        decayed = [parameter for parameter in parameters if parameter.ndim > 1]
        plain = [parameter for parameter in parameters if parameter.ndim <= 1]
        return (
            {"params": decayed, "lr": settings.lr, "weight_decay": settings.weight_decay},
            {"params": plain, "lr": settings.lr, "weight_decay": 0.0},
        )
