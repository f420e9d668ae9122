"""Trials that learn from another: a teacher comes before whom it teaches, and takes them with it when it fails.

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
    """Positions in a plan: what can run now, and what never can, because its teacher failed."""

    ready: tuple[int, ...]
    failed: Mapping[int, TrialFailure]


def plan_trials(
    proposed: Iterable[Proposal], trials: Iterable[Trial], outcomes: Mapping[str, Outcome]
) -> tuple[Proposal, ...]:
    """Return the proposed trials in their order, but each behind its teacher, taken from `trials`.

    A teacher without an outcome that was not proposed is added, and always trained to its end.
    """
    by_key = {trial.key: trial for trial in trials}
    plan: dict[str, Proposal] = {}

    def add(proposal: Proposal) -> None:
        trial = proposal.trial
        if trial.key in outcomes:
            return
        if trial.teacher is not None:
            add(Proposal(trial=by_key[trial.teacher]))
        if trial.key not in plan or proposal.until is None:
            plan[trial.key] = proposal

    for proposal in proposed:
        add(proposal)
    return tuple(plan.values())


def next_wave(waiting: Mapping[int, Trial], outcomes: Mapping[str, Outcome]) -> Wave:
    """Return which of the waiting trials of a plan are next; as long as there are some, so is their wave."""
    taught_by = {position: outcomes.get(trial.teacher or "") for position, trial in waiting.items()}
    return Wave(
        ready=tuple(
            position
            for position, trial in waiting.items()
            if trial.teacher is None or isinstance(taught_by[position], TrialResult)
        ),
        failed={
            position: _fail(waiting[position], teacher)
            for position, teacher in taught_by.items()
            if isinstance(teacher, TrialFailure)
        },
    )


def _fail(trial: Trial, teacher: TrialFailure) -> TrialFailure:
    return failure(trial, TrialError("error", f"its teacher {teacher.key} failed: {teacher.reason}"))
