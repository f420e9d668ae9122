"""Auto-RGN: each tensor learns in proportion to its relative gradient norm (Lee et al. 2023, surgical finetuning)."""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

from torch import nn

from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import TrainSettings
from ttl_deploy.training.strategies import Group, KeepsStart, Phase, names_of

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


class AutoRgn(KeepsStart):
    """At the start of every epoch the rates become `lr · r_i`, `r_i = ‖gradient_i‖ / ‖w_i‖` over the largest of them.

    As in its source: measured on five mini-batches, a new optimiser in every epoch, no schedule, and
    normalisation layers are not trained at all (there by the letters "bn" in their names, which
    would miss DenseNet's and those of a ResNet's shortcuts; here by their kind).
    """

    options: ClassVar[Mapping[str, str]] = {}

    def __init__(self, given: Mapping[str, str]) -> None:
        """Take no options."""

    def phases(self, model: nn.Module, spec: ModelSpec, settings: TrainSettings) -> tuple[Phase, ...]:
        """Return one phase whose groups are measured anew in every epoch."""
        norms = {
            f"{name}.{own}"
            for name, layer in model.named_modules()
            if isinstance(layer, _NORMS)
            for own, _ in layer.named_parameters(recurse=False)
        }
        names = tuple(name for name in names_of(model) if name not in norms)
        group = Group(names=names, lr=settings.lr, weight_decay=settings.weight_decay)
        regroup = partial(_regroup, lr=settings.lr, weight_decay=settings.weight_decay)
        return (Phase(name="finetune", epochs=settings.epochs, groups=(group,), regroup=regroup, decays=False),)


def _regroup(ratios: Mapping[str, float], *, lr: float, weight_decay: float) -> tuple[Group, ...]:
    """Return one group per tensor, its rate scaled so that the largest ratio gets the whole rate."""
    largest = max(ratios.values(), default=0.0) or 1.0
    return tuple(
        Group(names=(name,), lr=lr * ratio / largest, weight_decay=weight_decay) for name, ratio in ratios.items()
    )
