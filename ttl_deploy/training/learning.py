"""What learns at the moment: one phase's parameters, their optimiser, rates and penalty."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ttl_deploy.training.freezing import freeze_all_but
from ttl_deploy.training.strategies import Group, Phase


class Learning:
    """A phase at work on a model; made anew at the beginning of each phase, and where the groups change."""

    def __init__(self, model: nn.Module, phase: Phase) -> None:
        self.model, self.phase = model, phase
        self.regroup(phase.groups)

    def regroup(self, groups: tuple[Group, ...]) -> None:
        """Let these groups learn, with a new optimiser; everything else is frozen."""
        parameters = dict(self.model.named_parameters())
        freeze_all_but(self.model, {name for group in groups for name in group.names})
        self.optimiser = torch.optim.AdamW(
            {
                "params": [parameters[name] for name in group.names],
                "lr": group.lr,
                "weight_decay": group.weight_decay,
            }
            for group in groups
        )
        self.rates = [group.lr for group in groups]

    def regroup_by_gradients(self, norms: Mapping[str, float]) -> None:
        """Let the phase choose its groups from relative gradient norms."""
        assert self.phase.regroup is not None
        self.regroup(self.phase.regroup(norms))

    def set_rate(self, share: float, *, warmup: float) -> float:
        """Set the rates for a point of the phase, `share` of it done; returns that of the first group."""
        factor = learning_rate_factor(share, warmup=warmup) if self.phase.decays else 1.0
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        return self.rates[0] * factor

    def add_penalty(self, loss: Tensor) -> Tensor:
        """Return the loss with the phase's penalty."""
        return loss if self.phase.penalty is None else loss + self.phase.penalty(self.model)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold of it."""
        return self.optimiser.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Take up a stored state, unless every epoch begins with a new optimiser anyway."""
        if self.phase.regroup is None:
            self.optimiser.load_state_dict(state)


def learning_rate_factor(share: float, *, warmup: float) -> float:
    """Return the factor on the peak rate after `share` of the training: linear warm-up, then a cosine to 0."""
    if share < warmup:
        return (share + 0.01 * warmup) / (1.01 * warmup)
    return 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup)))
