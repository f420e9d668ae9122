"""The stages of a search, and what each of them cost and told."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal["profile", "probe", "joint", "confirm", "vary", "test"]
"""In their order: costs before any training; what a linear classifier reads at every cut; all cuts trained as one
network; cuts trained by themselves; finalists at other widths and input sizes; scores on the locked test split."""
STAGES: tuple[Stage, ...] = get_args(Stage)
_UNGUIDED = ("exhaustive", "hierarchical", "halving")


def check_skip(skip: Sequence[Stage], *, policy: str) -> None:
    """Raise `ValueError` where a stage is left out that the policy does not have, or too many are."""
    if policy in _UNGUIDED and (alien := {"probe", "joint", "confirm"} & set(skip)):
        raise ValueError(f"skip {', '.join(sorted(alien))}: policy {policy} has no such stage; guided has")
    if {"probe", "joint"} <= set(skip):
        raise ValueError("skip probe and joint: nothing would guide; take policy exhaustive or hierarchical instead")
    if {"joint", "confirm"} <= set(skip):
        raise ValueError("skip joint and confirm: nothing would be trained; keep one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """What one stage cost, and what it told.

    `macs` are multiply-accumulates of its networks, `seconds` the time of its trainings or passes, added up over
    those that ran side by side, None where it was not taken; `trials` how many trainings it held.
    """

    stage: Stage
    macs: float
    seconds: float | None
    trials: int
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCosts:
    """All stages that a search has had so far; `finished` tells whether there will be more.

    `full_macs` is what one training of the full network costs in all its epochs, `exhaustive_macs` what it would
    cost to train every cut within the limits by every strategy on every seed, in all epochs too.
    """

    stages: tuple[StageCost, ...]
    full_macs: float
    exhaustive_macs: float
    finished: bool

    @property
    def vary_macs(self) -> float:
        """What the trainings at other widths and input sizes cost, in multiply-accumulates."""
        return sum(one.macs for one in self.stages if one.stage == "vary")

    @property
    def macs(self) -> float:
        """What all stages cost together, in multiply-accumulates."""
        return sum(one.macs for one in self.stages)
