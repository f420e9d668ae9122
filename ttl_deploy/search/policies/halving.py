"""Successive halving over epochs: all candidates for a few epochs, the better half for more, the best to the end.

Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization", with the
first seed only until the end; then the survivors go on, and begin on the other seeds. Trials go on from where they
rested, so nothing is trained twice. The full network is never dropped: without it nothing can be proved.

Losers are judged by validation AUROC alone, never by their costs, from which the front is made afterwards: a
candidate ranks by the upper end of the interval of its difference to the best of its rung, paired by patient.
After few epochs deep networks are behind shallow ones that end up worse, so where curves cross, this is misled.
"""

import math
from collections.abc import Sequence

from ttl_deploy.records.candidates import Candidate
from ttl_deploy.records.models import FULL
from ttl_deploy.records.scores import FrontPoint
from ttl_deploy.records.trials import Trial
from ttl_deploy.search.policies import Proposal, StudyState


class Halving:
    """Drop the worse half of the candidates after an eighth, a quarter and half of the epochs."""

    def propose(self, state: StudyState) -> Sequence[Proposal]:
        """Return what has not reached the next rung; after the last, what of the survivors has no outcome."""
        alive = [Candidate(cut.name, strategy) for cut in reversed(state.cuts) for strategy in state.strategies]
        for epoch in find_rungs(_first(state, alive[0]).train.epochs):
            missing = [trial for one in alive if not _has_reached(state, trial := _first(state, one), epoch)]
            if missing:
                return [Proposal(trial=trial, until=epoch) for trial in missing]
            alive = _survivors(state, alive, epoch)
        trials = [state.trial_of[one.cut, one.strategy, seed] for one in alive for seed in state.seeds]
        return [Proposal(trial=trial) for trial in trials if trial.key not in state.outcomes]


def find_rungs(epochs: int) -> tuple[int, ...]:
    """Return after which epochs trials rest to be compared: an eighth, a quarter and half of them, rounded up.

    A rung at the end, or one that comes twice, is left out: 10 epochs have rungs at 2, 3 and 5, one epoch has none.
    """
    return tuple(sorted({math.ceil(epochs / part) for part in (8, 4, 2)} - {epochs}))


def _first(state: StudyState, candidate: Candidate) -> Trial:
    return state.trial_of[candidate.cut, candidate.strategy, state.seeds[0]]


def _has_reached(state: StudyState, trial: Trial, epoch: int) -> bool:
    return trial.key in state.outcomes or state.rested.get(trial.key, 0) >= epoch


def _survivors(state: StudyState, alive: Sequence[Candidate], epoch: int) -> list[Candidate]:
    """Return the better half of the candidates after so many epochs, in their order, and the full network."""
    front = state.find_front_at(epoch, state.seeds[0])
    reach = {point.candidate: _reach(point) for point in front.points} if front else {}
    rivals = [one for one in alive if one.cut != FULL and one in reach]
    kept = sorted(rivals, key=lambda one: reach[one], reverse=True)[: math.ceil(len(rivals) / 2)]
    return [one for one in alive if one.cut == FULL or one in kept]


def _reach(point: FrontPoint) -> float:
    """Return the most by which a candidate may be ahead of the best of its rung (below 0: by how much it is behind)."""
    return math.inf if point.to_best is None else point.to_best.high
