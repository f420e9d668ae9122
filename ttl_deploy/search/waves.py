"""Trials that need another: it comes before them, and takes them with it when it fails.

A trial can need a teacher to learn from, and the joint training whose weights it begins with.

The plan of a round is the order in which its outcomes stand in the ledger; a wave is what of it can run now.
Both follow from the proposals and the outcomes alone, so a resumed search goes on with the same plan.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ttl_deploy.records.trials import Trial, TrialFailure, TrialResult
from ttl_deploy.search.findings import Outcome
from ttl_deploy.search.policies import Proposal
from ttl_deploy.search.tasks import failure
from ttl_deploy.training.loop import TrialError


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """Positions in a plan: what can run now, and what never can, because what it needs failed."""

    ready: tuple[int, ...]
    failed: Mapping[int, TrialFailure]


def plan_trials(
    proposed: Iterable[Proposal], trials: Iterable[Trial], outcomes: Mapping[str, Outcome]
) -> tuple[Proposal, ...]:
    """Return the proposed trials in their order, but each behind those that it needs, taken from `trials`.

    What is needed, has no outcome and was not proposed is added, and always trained to its end.
    """
    by_key = {trial.key: trial for trial in trials}
    plan: dict[str, Proposal] = {}

    def add(proposal: Proposal) -> None:
        trial = proposal.trial
        if trial.key in outcomes:
            return
        for key in trial.needs:
            if key not in outcomes:
                add(Proposal(trial=by_key[key]))
        if trial.key not in plan or proposal.until is None:
            plan[trial.key] = proposal

    for proposal in proposed:
        add(proposal)
    return tuple(plan.values())


def next_wave(waiting: Mapping[int, Trial], outcomes: Mapping[str, Outcome]) -> Wave:
    """Return which of the waiting trials of a plan are next; as long as there are some, so is their wave."""
    ready = tuple(
        position
        for position, trial in waiting.items()
        if all(isinstance(outcomes.get(key), TrialResult) for key in trial.needs)
    )
    broken = {
        position: lost
        for position, trial in waiting.items()
        for lost in map(outcomes.get, trial.needs)
        if isinstance(lost, TrialFailure)
    }
    return Wave(ready=ready, failed={position: _fail(waiting[position], lost) for position, lost in broken.items()})


def _fail(trial: Trial, lost: TrialFailure) -> TrialFailure:
    what = "teacher" if lost.key == trial.teacher else "beginning"
    return failure(trial, TrialError("error", f"its {what} {lost.key} failed: {lost.reason}"))
