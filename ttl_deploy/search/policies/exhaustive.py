"""The exhaustive policy: every candidate cut by every strategy on every seed, as the TTL paper did with one."""

from collections.abc import Sequence
from itertools import product

from ttl_deploy.search.policies import Proposal, StudyState


class Exhaustive:
    """All trials in one round, the costliest first: so places stay filled and the estimate settles early."""

    def propose(self, state: StudyState) -> Sequence[Proposal]:
        """Return all trials without an outcome."""
        deepest_first = [
            state.trial_of[cut.name, strategy, seed]
            for cut, strategy, seed in product(reversed(state.cuts), state.strategies, state.seeds)
        ]
        return [Proposal(trial=trial) for trial in deepest_first if trial.key not in state.outcomes]
