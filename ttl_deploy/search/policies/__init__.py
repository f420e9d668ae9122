"""Policies: which trials a search makes. One file each; `plugins.py` names them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ttl_deploy.records.models import Cut
from ttl_deploy.records.probe import Probe
from ttl_deploy.records.scores import Front
from ttl_deploy.records.trials import Trial, TrialFailure, TrialResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A trial to train: to its end, or `until` so many of its epochs are over, when it rests and can go on later."""

    trial: Trial
    until: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyState:
    """What a policy may know: the candidate cuts, shallow to deep with the full network last, and outcomes so far.

    Attributes:
        trial_of: every trial that the settings allow, by cut, strategy and seed. What a trial needs, a
            teacher or the joint training, the study adds ahead of it by itself. By a strategy that is not among
            `strategies` there are the teachers' trials, of the full network only, and, by `WARM`, the shorter
            ones that begin with the exits of the joint network, where these are wanted.
        outcomes: of all trials so far, by key; those into which a joint training was divided among them.
        rested: the epoch until which each trial without an outcome was trained, by key.
        joint: the training of all cuts as one network; None where there are not two cuts that the weights cover,
            or it is not wanted.
        confirms: whether cuts are to be trained by themselves at all.
        find_probe: probes all cuts, once; None where they cannot be, or are not to be.
        find_exits_front: computes the front of the joint training's exits alone, from the validation split;
            None before it.
        find_front: computes that of all that were trained by themselves so far; None before the first.
        find_front_at: computes that of one seed's trials that rested after so many epochs, or ended before, as they
            were then.
    """

    cuts: tuple[Cut, ...]
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    trial_of: Mapping[tuple[str, str, int], Trial]
    outcomes: Mapping[str, TrialResult | TrialFailure]
    rested: Mapping[str, int] = field(default_factory=dict)
    joint: Trial | None = None
    confirms: bool = True
    find_probe: Callable[[], Probe | None] = lambda: None
    find_exits_front: Callable[[], Front | None] = lambda: None
    find_front: Callable[[], Front | None] = lambda: None
    find_front_at: Callable[[int, int], Front | None] = lambda epoch, seed: None


class Policy(Protocol):
    """Proposes trials in rounds until it proposes none."""

    def propose(self, state: StudyState) -> Sequence[Proposal]:
        """Return the next round's trials; an empty round ends the search."""
        ...
