"""The guided policy: one joint training shows the whole curve, then only what matters is trained by itself.

All cuts are first trained as one network. The shallowest exit that its validation split cannot tell from the best
exit is the finalist; it and the full network are trained by themselves, by every strategy on every seed. Where the
finalist then turns out worse than the best of those, the next deeper cut follows, as long as that could change the
choice. In a joint training most exits come out lower than they would alone, the shallow ones most, so the finalist
is rather too deep than too shallow.
"""

from collections.abc import Sequence

from ttl_deploy.records.models import FULL
from ttl_deploy.records.scores import FrontPoint
from ttl_deploy.records.trials import Trial, TrialResult
from ttl_deploy.search.policies import Proposal, StudyState
from ttl_deploy.search.policies.exhaustive import Exhaustive

MOST_FINALISTS = 3
"""The full network apart. More would cost as much as they could save."""


class Guided:
    """Joint training first; then the full network and the finalists, one after the other until one is as good."""

    def propose(self, state: StudyState) -> Sequence[Proposal]:
        """Return the joint training, or what of the finalists has no outcome; all trials where no joint one can be."""
        if state.joint is None or _failed(state, state.joint):
            return Exhaustive().propose(state)
        if state.joint.key not in state.outcomes:
            return [Proposal(trial=state.joint)]
        for finalists in _growing(rank_finalists(state)):
            missing = [
                Proposal(trial=trial)
                for cut in (FULL, *finalists)
                for trial in _trials_of(state, cut)
                if _is_missing(state, trial)
            ]
            if missing:
                return missing
            if any(_is_as_good(state, cut) for cut in finalists):
                return []
        return []


def rank_finalists(state: StudyState) -> tuple[str, ...]:
    """Return the cuts to train by themselves, in order: the smallest exit as good as the best, then deeper ones."""
    front = state.find_exits_front()
    assert front is not None
    points = sorted((point for point in front.points if point.cut != FULL), key=lambda point: point.macs)
    good = [number for number, point in enumerate(points) if _reaches_the_best(point)]
    if not good:
        return ()
    return tuple(point.cut for point in points[good[0] :][:MOST_FINALISTS])


def _reaches_the_best(point: FrontPoint) -> bool:
    return point.to_best is None or point.to_best.high >= 0


def _growing(ranked: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [ranked[:count] for count in range(1, len(ranked) + 1)] or [()]


def _trials_of(state: StudyState, cut: str) -> list[Trial]:
    return [state.trial_of[cut, strategy, seed] for strategy in state.strategies for seed in state.seeds]


def _is_missing(state: StudyState, trial: Trial) -> bool:
    return trial.key not in state.outcomes


def _failed(state: StudyState, trial: Trial) -> bool:
    outcome = state.outcomes.get(trial.key)
    return outcome is not None and not isinstance(outcome, TrialResult)


def _is_as_good(state: StudyState, cut: str) -> bool:
    """Tell whether a cut, trained by itself by any strategy, cannot be told from the best that was."""
    front = state.find_front()
    points = [point for point in front.points if point.cut == cut] if front else []
    return any(_reaches_the_best(point) for point in points)
