"""Strategies: what of a model learns, at which rate, in which phase, with which penalty.

One file each; `plugins.py` names them. A strategy is given as `--strategy NAME?option=value&…`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor, nn

from ttl_deploy import plugins
from ttl_deploy.errors import UsageError
from ttl_deploy.options import split_options
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import TrainSettings

Penalty = Callable[[nn.Module], Tensor]
"""Added to the loss of every mini-batch: a scalar from the model's parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Parameters, by name, that learn with the same peak rate and weight decay."""

    names: tuple[str, ...]
    lr: float
    weight_decay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Teaching:
    """How a phase learns from a teacher: `(1 - weight) · loss + weight · T² · KL + features · distance`.

    Attributes:
        weight: share of the teacher's softened outputs, 0 to 1.
        temperature: the T by which both models' logits are divided before their softmax.
        features: weight of the distance between both models' features at the stages they share.
    """

    weight: float
    temperature: float
    features: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch of training in which one set of parameters learns.

    What is in no group is frozen: it gets no gradient, and modules that are frozen as a whole run in
    evaluation mode, so that their BatchNorm statistics stay too. Every phase has an optimiser and a
    schedule of its own; early stopping ends the phase, not the training. Where nothing of the trunk
    learns, images are shown as they are, without augmentation, so that the trunk can run once for all epochs.

    Attributes:
        epochs: at most so many.
        groups: what learns; a parameter is in one group at most.
        penalty: added to the loss.
        regroup: where rates follow the gradients, the groups of the next epoch from each parameter's
            relative gradient norm, measured on that epoch's first mini-batches; the optimiser then
            begins anew in every epoch.
        decays: whether the rate follows warm-up and cosine over the phase, or stays.
        teaching: how it learns from the trial's teacher.
    """

    name: str
    epochs: int
    groups: tuple[Group, ...]
    penalty: Penalty | None = None
    regroup: Callable[[Mapping[str, float]], tuple[Group, ...]] | None = None
    decays: bool = True
    teaching: Teaching | None = None


class Strategy(Protocol):
    """Decides what a trial trains; the loop does the rest."""

    options: ClassVar[Mapping[str, str]]
    """The options it takes, and for each what may be given, in words."""
    teacher: str | None
    """The strategy by which the full network was trained that must teach; None where nobody does."""
    warm: bool
    """Whether it begins with the weights of its cut's exit from a network that was trained with a head at every cut."""

    def __init__(self, given: Mapping[str, str]) -> None:
        """Take the options as they were typed; raises `UsageError` for values that do not fit."""
        ...

    def prepare(self, model: nn.Module, spec: ModelSpec) -> None:
        """Change the initial weights in place, under the trial's seed; most strategies leave them as loaded."""
        ...

    def phases(self, model: nn.Module, spec: ModelSpec, settings: TrainSettings) -> tuple[Phase, ...]:
        """Return the phases for a model that holds its initial weights; parameters are `trunk.…` and `head.…`."""
        ...


class KeepsStart:
    """The part of a strategy that begins with the weights as they were loaded, and has no teacher."""

    teacher: str | None = None
    warm: bool = False

    def prepare(self, model: nn.Module, spec: ModelSpec) -> None:
        """Change nothing."""


def find_strategy(text: str) -> Strategy:
    """Return the strategy that `--strategy` names; raises `UnknownNameError`, or `UsageError` for its options."""
    name = text.partition("?")[0]
    kind = plugins.load("strategies", name)
    _, given = split_options(text, kind.options)
    strategy: Strategy = kind(given)
    return strategy


def read_number(given: Mapping[str, str], option: str, default: float, *, least: float = 0.0) -> float:
    """Return an option's number, or the default; raises `UsageError` unless it is above `least`."""
    value = _parse_number(given, option, default)
    if not least < value < math.inf:
        raise UsageError(f"strategy option {option}={given[option]}: give a number above {least:g}")
    return value


def read_weight(given: Mapping[str, str], option: str, default: float, *, most: float | None = None) -> float:
    """Return an option's number, or the default; raises `UsageError` unless it is 0 or more, and `most` or less."""
    value = _parse_number(given, option, default)
    if not (0 <= value < math.inf and (most is None or value <= most)):
        allowed = "of 0 or more" if most is None else f"from 0 to {most:g}"
        raise UsageError(f"strategy option {option}={given[option]}: give a number {allowed}")
    return value


def _parse_number(given: Mapping[str, str], option: str, default: float) -> float:
    try:
        return float(given.get(option, default))
    except ValueError as error:
        raise UsageError(f"strategy option {option}={given[option]!r} is not a number") from error


def learning_groups(model: nn.Module, names: Iterable[str], *, lr: float, weight_decay: float) -> tuple[Group, ...]:
    """Return groups in which these parameters learn at one rate; norms and biases are not decayed."""
    wanted = set(names)
    parameters = {name: parameter for name, parameter in model.named_parameters() if name in wanted}
    weights = tuple(name for name, parameter in parameters.items() if parameter.ndim > 1)
    plain = tuple(name for name, parameter in parameters.items() if parameter.ndim <= 1)
    groups = (Group(names=weights, lr=lr, weight_decay=weight_decay), Group(names=plain, lr=lr, weight_decay=0.0))
    return tuple(group for group in groups if group.names)


def names_of(model: nn.Module, part: str = "") -> tuple[str, ...]:
    """Return the names of all parameters, or of those of a part, `trunk` or `head`."""
    return tuple(name for name, _ in model.named_parameters() if name.startswith(part))
