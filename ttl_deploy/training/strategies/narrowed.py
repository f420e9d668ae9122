"""How a narrowed model learns, whatever the strategy of the one at full width was: all of it, taught by that one.

No strategy of its own: channels are missing everywhere, so nothing can rest.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from torch import nn

from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import TrainSettings
from ttl_deploy.training.strategies import Phase, Teaching
from ttl_deploy.training.strategies.full import FullFinetuning

TEACHING = Teaching(weight=0.5, temperature=2.0, features=0.0)


class Narrowed(FullFinetuning):
    """Finetune everything that pruning left, from the labels and from the same model at full width."""

    options: ClassVar[Mapping[str, str]] = {}
    teacher: str | None = "the strategy of the model at full width"

    def phases(self, model: nn.Module, spec: ModelSpec, settings: TrainSettings) -> tuple[Phase, ...]:
        """Return one phase with all parameters and a teacher."""
        return tuple(replace(phase, teaching=TEACHING) for phase in super().phases(model, spec, settings))
