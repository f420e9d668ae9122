"""Distillation: the full network, already trained, teaches the truncated one (Hinton et al. 2015).

What was tried: MobileNetV2 with ImageNet weights on three classes of chest X-rays, 96 px, 600 training and 600
validation images, 5 epochs, seeds 0 and 1, validation AUROC. The teachers came to 0.873 and 0.872, `full` alone
at features.5 to 0.807 and 0.800, at features.9 to 0.867 and 0.870. What a teacher changed in that:

                                    features.5         features.9
    weight 0.5, temperature 2    -0.001  -0.004     +0.002  -0.001
    weight 0.9, temperature 4    -0.007  -0.019         not run
    features 1                   +0.003  -0.000     +0.004  -0.007
    features 1, own cut's too    +0.003  +0.005     +0.004  -0.009
    attention maps, weight 10    -0.000  -0.003         not run

With two seeds that differ by as much, nothing here is a gain, and only the strong, soft teacher is a loss. So the
defaults are the mildest form of the source. Distances raised the validation loss by up to 0.06, most with the own cut's
features, whose job differs: the teacher's are made for further layers, the student's for a linear one. They are
left out, and so are attention maps (Zagoruyko and Komodakis 2017). Longer training was not tried.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from torch import nn

from ttl_deploy.errors import UsageError
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import TrainSettings
from ttl_deploy.training.strategies import Phase, Strategy, Teaching, find_strategy, read_number, read_weight

_WEIGHT, _TEMPERATURE, _FEATURES = 0.5, 2.0, 0.0


class Distillation:
    """Learn as another strategy does, from the labels and from a teacher."""

    warm = False
    options: ClassVar[Mapping[str, str]] = {
        "teacher": "strategy by which the full network learns that teaches, full",
        "learn": "strategy by which the model learns, full",
        "weight": f"share of the teacher's outputs in the loss, 0 to 1, {_WEIGHT:g}",
        "temperature": f"by which logits are divided for that, {_TEMPERATURE:g}",
        "features": f"weight of the distance between features at common stages, {_FEATURES:g}",
    }

    def __init__(self, given: Mapping[str, str]) -> None:
        """Take the two strategies and the weights; raises `UsageError` where either needs a teacher itself."""
        self.teacher: str | None = given.get("teacher", "full")
        self._learn = _find_untaught("learn", given.get("learn", "full"))
        _find_untaught("teacher", given.get("teacher", "full"))
        weight = read_weight(given, "weight", _WEIGHT, most=1.0)
        temperature = read_number(given, "temperature", _TEMPERATURE)
        features = read_weight(given, "features", _FEATURES)
        taught = weight > 0 or features > 0
        self._teaching = Teaching(weight=weight, temperature=temperature, features=features) if taught else None

    def prepare(self, model: nn.Module, spec: ModelSpec) -> None:
        """Begin as the strategy by which the model learns."""
        self._learn.prepare(model, spec)

    def phases(self, model: nn.Module, spec: ModelSpec, settings: TrainSettings) -> tuple[Phase, ...]:
        """Return that strategy's phases, with a teacher; raises what it raises."""
        phases = self._learn.phases(model, spec, settings)
        return tuple(replace(phase, teaching=self._teaching) for phase in phases)


def _find_untaught(option: str, name: str) -> Strategy:
    strategy = find_strategy(name)
    if strategy.teacher is not None:
        raise UsageError(f"strategy option {option}={name}: it needs a teacher itself; give one that needs none")
    return strategy
