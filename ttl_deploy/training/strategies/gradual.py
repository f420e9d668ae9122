"""Gradual unfreezing: block by block from the top down, or from the bottom up (G-LF, G-FL in Davila et al. 2024).

The paper's own details are not known: going block by block is inferred, and that each stage takes
`epochs // stages` epochs, at least one, with the same rate, a new optimiser and early stopping of its own, is
a third party's re-implementation (papers' section 3.3). That the last stage takes the epochs left over, that
several blocks are freed at once where there are more blocks than epochs, and that warm-up and cosine begin
anew in each stage is our choice.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import ClassVar

from torch import nn

from ttl_deploy.errors import UsageError
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import TrainSettings
from ttl_deploy.training.blocks import list_blocks
from ttl_deploy.training.strategies import KeepsStart, Phase, learning_groups


class _Gradual(KeepsStart, ABC):
    """Unfreeze more blocks at each stage; in the last one everything learns."""

    options: ClassVar[Mapping[str, str]] = {}

    def __init__(self, given: Mapping[str, str]) -> None:
        """Take no options."""

    def phases(self, model: nn.Module, spec: ModelSpec, settings: TrainSettings) -> tuple[Phase, ...]:
        """Return one phase per stage; of several blocks per stage where there are more blocks than epochs."""
        *body, head = list_blocks(model, spec)
        steps = self.steps(body, head, settings.epochs)
        stages = min(len(steps), settings.epochs)
        lengths = _share_out(settings.epochs, stages)
        return tuple(
            Phase(
                name=f"stage {stage} of {stages}",
                epochs=length,
                groups=learning_groups(
                    model,
                    chain(*_until(steps, stage, stages)),
                    lr=settings.lr,
                    weight_decay=settings.weight_decay,
                ),
            )
            for stage, length in enumerate(lengths, start=1)
        )

    @abstractmethod
    def steps(self, body: Sequence[tuple[str, ...]], head: tuple[str, ...], epochs: int) -> list[tuple[str, ...]]:
        """Return the parameters that each step unfreezes, in order."""


class LastToFirst(_Gradual):
    """The head alone first, then one more block at each stage, from the top down.

    A stage in which nothing of the trunk learns sees images without augmentation, as `linear-probe` does.
    """

    def steps(self, body: Sequence[tuple[str, ...]], head: tuple[str, ...], epochs: int) -> list[tuple[str, ...]]:
        """Return the head, then the blocks below it; raises `UsageError` for one epoch, which cannot be shared out."""
        if epochs < 2:
            raise UsageError(f"gradual-last-first needs at least 2 epochs, one for the head alone, not {epochs}")
        return [head, *reversed(body)]


class FirstToLast(_Gradual):
    """The lowest block first, then one more at each stage, from the bottom up; the head learns in all of them.

    What was found of the source says only "the same from the bottom up", beginning with all blocks frozen but
    the head; so the head does not wait for its turn at the end. Behind a random head that stays as it is, the
    bottom would learn to please noise. The blocks in between are frozen, with their statistics, until it is
    their turn.
    """

    def steps(self, body: Sequence[tuple[str, ...]], head: tuple[str, ...], epochs: int) -> list[tuple[str, ...]]:
        """Return the head with the lowest block, then the others."""
        return [tuple(chain(head, *body[:1])), *body[1:]]


def _share_out(epochs: int, stages: int) -> list[int]:
    """Return the epochs of each stage; the last one takes what is left over."""
    each = epochs // stages
    return [each] * (stages - 1) + [epochs - each * (stages - 1)]


def _until(steps: Sequence[tuple[str, ...]], stage: int, stages: int) -> Sequence[tuple[str, ...]]:
    """Return the steps taken by a stage, counted from 1: the first alone, the others spread evenly, all at the end."""
    if stages == 1:
        return steps
    return steps[: 1 + (len(steps) - 1) * (stage - 1) // (stages - 1)]
