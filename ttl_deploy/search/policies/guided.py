"""The guided policy: one joint training shows the whole curve, then only what matters is trained by itself.

A linear probe of the frozen backbone looks at all cuts first. Then they are trained as one network. The shallowest
exit that its validation split cannot tell from the best exit is the finalist; it and the full network are trained by
themselves, on every seed. Where the finalist then turns out worse than the best of those, the next deeper cut
follows, as long as that could change the choice. In a joint training the deep exits come out lower than they would
alone, so where their curve becomes flat is not exactly where that of cuts trained alone does.

The probe decides where there is no joint training. Where there is, it has no vote: it ranks cuts worse (its
correlation with cuts trained alone was .62 and .77, the joint training's .93 and .93: docs/search-measured.md).
Where guiding could not save anything, because there are few cuts and seeds, everything is trained.
"""

from collections.abc import Sequence
from itertools import product

from ttl_deploy.records.candidates import WARM
from ttl_deploy.records.models import FULL
from ttl_deploy.records.probe import Probe
from ttl_deploy.records.scores import FrontPoint
from ttl_deploy.records.trials import Trial, TrialResult
from ttl_deploy.search.policies import Proposal, StudyState
from ttl_deploy.search.policies.exhaustive import Exhaustive

MOST_FINALISTS = 3
"""The full network apart. More would cost as much as they could save."""


class Guided:
    """Joint training first; then the full network and the finalists, one after the other until one is as good."""

    def propose(self, state: StudyState) -> Sequence[Proposal]:
        """Return the joint training, or what of the finalists has no outcome; all trials where nothing can guide."""
        if state.confirms and not _can_save(state):
            return Exhaustive().propose(state)
        probe = state.find_probe()
        joint = None if state.joint is None or _failed(state, state.joint) else state.joint
        if joint is not None and joint.key not in state.outcomes:
            return [Proposal(trial=joint)]
        if not state.confirms:
            return []
        if joint is None and probe is None:
            return Exhaustive().propose(state)
        for finalists in _growing(rank_exits(state) if joint is not None else rank_probed(state, probe)):
            missing = [
                Proposal(trial=trial)
                for cut in (FULL, *finalists)
                for trial in _trials_of(state, cut)
                if trial.key not in state.outcomes
            ]
            if missing:
                return missing
            if any(_is_as_good(state, cut) for cut in finalists):
                return []
        return []


def rank_exits(state: StudyState) -> tuple[str, ...]:
    """Return the cuts to train by themselves, in order: the smallest exit as good as the best, then deeper ones."""
    front = state.find_exits_front()
    assert front is not None
    good = {point.cut for point in front.points if _reaches_the_best(point)}
    return _from_smallest(state, good)


def rank_probed(state: StudyState, probe: Probe | None) -> tuple[str, ...]:
    """Return the same by the probe: a cut is good where its interval reaches the best value."""
    scores = {one.cut: one.validation for one in probe.cuts} if probe else {}
    best = max((score.value for score in scores.values() if score.value is not None), default=0.0)
    good = {cut for cut, score in scores.items() if score.value is not None and (score.high or score.value) >= best}
    return _from_smallest(state, good)


def _from_smallest(state: StudyState, good: set[str]) -> tuple[str, ...]:
    """Return the first cut that is good, and the next deeper ones; the full network is trained anyway."""
    cuts = [cut.name for cut in state.cuts if cut.name != FULL]
    first = next((number for number, cut in enumerate(cuts) if cut in good), len(cuts))
    return tuple(cuts[first:][:MOST_FINALISTS])


def _reaches_the_best(point: FrontPoint) -> bool:
    return point.to_best is None or point.to_best.high >= 0


def _growing(ranked: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [ranked[:count] for count in range(1, len(ranked) + 1)] or [()]


def _trials_of(state: StudyState, cut: str) -> list[Trial]:
    """Return what a finalist is trained by: from its exit where that is wanted and there, else by every strategy."""
    warm = [state.trial_of[cut, WARM, seed] for seed in state.seeds if (cut, WARM, seed) in state.trial_of]
    joint = state.joint is not None and not _failed(state, state.joint)
    if joint and len(warm) == len(state.seeds) and WARM not in state.strategies:
        return warm
    return [state.trial_of[cut, strategy, seed] for strategy, seed in product(state.strategies, state.seeds)]


def _can_save(state: StudyState) -> bool:
    """Tell whether a joint training, the full network and the dearest other cut cost less than all cuts."""
    macs = {cut.name: cut.macs for cut in state.cuts}

    def price(*cuts: str) -> int:
        trials = [trial for cut in cuts for trial in _trials_of(state, cut)]
        return sum(macs[trial.model.cut] * trial.train.epochs for trial in trials)

    others = [cut.name for cut in state.cuts if cut.name != FULL]
    joint = 0 if state.joint is None else macs[state.joint.model.cut] * state.joint.train.epochs
    everything = sum(
        macs[cut] * state.trial_of[cut, strategy, seed].train.epochs
        for cut, strategy, seed in product(macs, state.strategies, state.seeds)
    )
    return bool(others) and joint + price(FULL) + max(price(cut) for cut in others) < everything


def _failed(state: StudyState, trial: Trial) -> bool:
    outcome = state.outcomes.get(trial.key)
    return outcome is not None and not isinstance(outcome, TrialResult)


def _is_as_good(state: StudyState, cut: str) -> bool:
    """Tell whether a cut, trained by itself by any strategy, cannot be told from the best that was."""
    front = state.find_front()
    points = [point for point in front.points if point.cut == cut] if front else []
    return any(_reaches_the_best(point) for point in points)
