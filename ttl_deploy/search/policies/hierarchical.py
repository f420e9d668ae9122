"""The hierarchical policy of the TTL paper: the ends of stages first, then layer by layer around the best of them."""

from collections.abc import Sequence
from statistics import mean

from ttl_deploy.records.models import FULL, Cut
from ttl_deploy.records.trials import TrialResult
from ttl_deploy.search.policies import Proposal, StudyState


class Hierarchical:
    """Two rounds, for each strategy by itself; the best is that of the highest mean validation AUROC over seeds."""

    def propose(self, state: StudyState) -> Sequence[Proposal]:
        """Return the trials at the ends of stages, then those between the best end and its neighbours."""
        coarse = [cut for cut in state.cuts if cut.stage or cut.name == FULL]
        first = [trial for strategy in state.strategies for trial in _missing(state, coarse, strategy)]
        if first:
            return first
        return [
            trial
            for strategy in state.strategies
            for trial in _missing(state, _around_best(state, coarse, strategy), strategy)
        ]


def _missing(state: StudyState, cuts: Sequence[Cut], strategy: str) -> list[Proposal]:
    """Return the trials without an outcome, the costliest first."""
    wanted = [state.trial_of[cut.name, strategy, seed] for cut in reversed(cuts) for seed in state.seeds]
    return [Proposal(trial=trial) for trial in wanted if trial.key not in state.outcomes]


def _around_best(state: StudyState, coarse: Sequence[Cut], strategy: str) -> list[Cut]:
    scored = [
        (score, number) for number, cut in enumerate(coarse) if (score := _score(state, cut, strategy)) is not None
    ]
    if not scored:
        return []
    best = max(scored)[1]
    low = coarse[best - 1].depth if best > 0 else 0
    high = coarse[best + 1].depth if best + 1 < len(coarse) else coarse[best].depth
    return [cut for cut in state.cuts if low < cut.depth < high]


def _score(state: StudyState, cut: Cut, strategy: str) -> float | None:
    trials = [state.trial_of[cut.name, strategy, seed] for seed in state.seeds]
    outcomes = [state.outcomes.get(trial.key) for trial in trials]
    values = [one.val_auroc for one in outcomes if isinstance(one, TrialResult) and one.val_auroc is not None]
    return mean(values) if values else None
