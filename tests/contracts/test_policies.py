"""What holds for every policy of the table: it ends, repeats nothing, and goes on after a stop as if there was none."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ttl_deploy import plugins
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.records.candidates import JOINT, WARM
from ttl_deploy.records.models import FULL, ModelSpec
from ttl_deploy.records.probe import Probe, ProbeScore
from ttl_deploy.records.scores import Front, FrontPoint, PairedDifference, Score
from ttl_deploy.records.trials import TrainSettings, Trial, TrialFailure, TrialResult
from ttl_deploy.search.findings import Outcome, expand
from ttl_deploy.search.policies import Proposal, StudyState
from ttl_deploy.search.policies.halving import find_rungs

POLICIES = plugins.names("policies")
CUTS = tuple(
    cut
    for cut in list_cuts("resnet18", image_size=64, classes=2)
    if cut.depth % 2 == 1 or cut.stage or cut.name == FULL
)
SEEDS, STRATEGIES = (0, 1), ("full", "l2-sp")
EPOCHS = 8
MOST_ROUNDS = 50


def trial_of(cut: str, strategy: str, seed: int, exits: tuple[str, ...] = ()) -> Trial:
    spec = ModelSpec(backbone="resnet18", cut=cut, classes=2, image_size=64, exits=exits)
    return Trial(model=spec, weights="none", strategy=strategy, seed=seed, train=TrainSettings(epochs=EPOCHS))


TRIALS = {
    (cut.name, strategy, seed): trial_of(cut.name, strategy, seed)
    for cut in (*CUTS,)
    for strategy in STRATEGIES
    for seed in SEEDS
}
JOINT_TRIAL = trial_of(FULL, "full", 0, tuple(cut.name for cut in CUTS))
BY_KEY = {trial.key: trial for trial in (*TRIALS.values(), JOINT_TRIAL)}


def finish(trial: Trial, score: Mapping[str, float]) -> TrialResult:
    exits = tuple(
        finish(replace(trial, model=replace(trial.model, cut=cut, exits=()), strategy=JOINT), score)
        for cut in trial.model.exits
    )
    return TrialResult(
        key=trial.key,
        cut=trial.model.cut,
        strategy=trial.strategy,
        seed=trial.seed,
        best_epoch=1,
        epochs_run=1,
        val_auroc=score[trial.model.cut],
        params=1,
        weights_sha256="0" * 64,
        weights_note="",
        precision="fp32",
        device="cpu",
        seconds=1.0,
        exits=exits,
    )


def fail(trial: Trial) -> TrialFailure:
    return TrialFailure(
        key=trial.key, cut=trial.model.cut, strategy=trial.strategy, seed=trial.seed, kind="error", reason="by chance"
    )


def front_of(outcomes: Mapping[str, Outcome], *, joint: bool) -> Front | None:
    """Stand in for the front: differences to the best are known to .02 either way."""
    found = [one for one in outcomes.values() if isinstance(one, TrialResult) and not one.is_joint]
    scores = {(one.cut, one.strategy): one.val_auroc for one in found if (one.strategy == JOINT) == joint}
    if not scores:
        return None
    best = max(scores, key=lambda candidate: scores[candidate])
    return Front(best=best[0], reference=FULL, target="t", points=tuple(_point(scores, best, cut) for cut in scores))


def _point(scores: Mapping[tuple[str, str], float], best: tuple[str, str], candidate: tuple[str, str]) -> FrontPoint:
    value = scores[candidate] - scores[best]
    cut = next(cut for cut in CUTS if cut.name == candidate[0])
    return FrontPoint(
        cut=cut.name,
        strategy=candidate[1],
        name=f"{candidate}",
        params=cut.params,
        macs=cut.macs,
        layers=cut.layers,
        params_share=cut.params_share,
        macs_share=cut.macs_share,
        latency_s=None,
        latency_noise_s=None,
        validation=(),
        test=(),
        seeds=SEEDS,
        seed_values=(),
        to_best=None
        if candidate == best
        else PairedDifference(reference=f"{best}", value=value, low=value - 0.02, high=value + 0.02, level=0.95),
        on_front=(),
    )


def state_of(
    outcomes: Mapping[str, Outcome], rested: Mapping[str, int], score: Mapping[str, float], **changes: Any
) -> StudyState:
    state = StudyState(
        cuts=CUTS,
        strategies=STRATEGIES,
        seeds=SEEDS,
        trial_of=TRIALS,
        outcomes=outcomes,
        rested=rested,
        joint=JOINT_TRIAL,
        find_exits_front=lambda: front_of(outcomes, joint=True),
        find_front=lambda: front_of(outcomes, joint=False),
        find_front_at=lambda epoch, seed: front_at(rested, score, epoch, seed),
    )
    return replace(state, **changes)


def name_of(proposal: Proposal) -> str:
    return proposal.trial.key if proposal.until is None else f"{proposal.trial.key}@{proposal.until}"


def do(
    proposal: Proposal,
    outcomes: dict[str, Outcome],
    rested: dict[str, int],
    score: Mapping[str, float],
    *,
    failing: float = 0.0,
) -> None:
    """Stand in for training: the proposal's trial rests, ends or, by chance, fails."""
    trial = proposal.trial
    assert trial.key not in outcomes
    if np.random.default_rng(sum(trial.key.encode())).random() < failing:
        outcomes |= expand(fail(trial))
    elif proposal.until is None:
        outcomes |= expand(finish(trial, score))
    else:
        assert rested.get(trial.key, 0) < proposal.until < trial.train.epochs
        rested[trial.key] = proposal.until


def front_at(rested: Mapping[str, int], score: Mapping[str, float], epoch: int, seed: int) -> Front | None:
    """Stand in for the front of a rung, at which trials are as good as they will be."""
    then = {key: finish(BY_KEY[key], score) for key, until in rested.items() if until >= epoch}
    return front_of({key: one for key, one in then.items() if one.seed == seed}, joint=False)


def follow(
    policy: str,
    score: Mapping[str, float],
    *,
    failing: float = 0.0,
    known: Mapping[str, Outcome] | None = None,
    resting: Mapping[str, int] | None = None,
    **changes: Any,
) -> list[str]:
    """Let a policy propose until it ends; returns what, in its order. A share of the trials fails."""
    outcomes: dict[str, Outcome] = dict(known or {})
    rested: dict[str, int] = dict(resting or {})
    order: list[str] = []
    for _ in range(MOST_ROUNDS):
        proposed = plugins.load("policies", policy)().propose(state_of(outcomes, rested, score, **changes))
        if not proposed:
            return order
        for proposal in proposed:
            order.append(name_of(proposal))
            do(proposal, outcomes, rested, score, failing=failing)
    raise AssertionError(f"{policy} does not end")


def rising(seed: int = 0) -> dict[str, float]:
    """Draw a curve that rises with depth and then is flat, with noise."""
    noise = np.random.default_rng(seed).normal(scale=0.004, size=len(CUTS))
    return {
        cut.name: 0.9 - 0.2 * max(0.0, 0.5 - cut.macs_share) + error for cut, error in zip(CUTS, noise, strict=True)
    }


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("failing", [0.0, 0.3, 1.0])
def test_a_policy_ends_and_proposes_nothing_twice(policy: str, failing: float) -> None:
    order = follow(policy, rising(), failing=failing)
    assert len(order) == len(set(order)) > 0


@pytest.mark.parametrize("policy", POLICIES)
def test_the_full_network_is_trained_on_every_seed(policy: str) -> None:
    order = follow(policy, rising())
    assert {trial_of(FULL, strategy, seed).key for strategy in STRATEGIES for seed in SEEDS} <= set(order)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_that_is_asked_again_after_a_stop_goes_on_where_it_was(policy: str) -> None:
    score = rising()
    whole = follow(policy, score)
    for stopped in range(len(whole)):
        done: dict[str, Outcome] = {}
        rested: dict[str, int] = {}
        for name in whole[:stopped]:
            key, _, until = name.partition("@")
            do(Proposal(trial=BY_KEY[key], until=int(until) if until else None), done, rested, score)
        assert follow(policy, score, known=done, resting=rested) == whole[stopped:]


def test_guided_trains_the_shallowest_exit_that_reaches_the_best_and_the_full_network() -> None:
    flat_from = CUTS[len(CUTS) // 2]
    score = {cut.name: 0.9 if cut.depth >= flat_from.depth else 0.7 for cut in CUTS}
    order = follow("guided", score)
    wanted = [
        JOINT_TRIAL,
        *(TRIALS[cut, strategy, seed] for cut in (FULL, flat_from.name) for strategy in STRATEGIES for seed in SEEDS),
    ]
    assert order == [trial.key for trial in wanted]


def test_guided_goes_deeper_where_the_finalist_alone_is_worse_after_all() -> None:
    joint = dict.fromkeys((cut.name for cut in CUTS), 0.9)
    outcomes: dict[str, Outcome] = expand(finish(JOINT_TRIAL, joint))
    alone = {cut.name: 0.9 if number >= 1 else 0.8 for number, cut in enumerate(CUTS)}
    order = follow("guided", alone, known=outcomes)
    trained = list(dict.fromkeys(key.partition("__")[0] for key in order))
    assert trained == [FULL, CUTS[0].name, CUTS[1].name]


def probe_of(values: Mapping[str, float]) -> Probe:
    """Stand in for a probe: scores are known to .02 either way."""
    scores = {
        cut: Score(
            metric="auroc",
            value=value,
            low=value - 0.02,
            high=value + 0.02,
            level=0.95,
            method="made up",
            images=9,
            patients=9,
            per_class=(value,),
            defined=1,
            split="val",
        )
        for cut, value in values.items()
    }
    found = tuple(
        ProbeScore(cut=cut, features=1, cv_auroc=None, validation=score, penalty=1.0) for cut, score in scores.items()
    )
    return Probe(cuts=found, train_images=9, val_images=9, macs=1, seconds=0.1)


def test_guided_ranks_by_the_probe_where_the_joint_training_failed() -> None:
    known = expand(fail(JOINT_TRIAL))
    flat_from = CUTS[len(CUTS) // 2]
    probe = probe_of({cut.name: 0.9 if cut.depth >= flat_from.depth else 0.7 for cut in CUTS})
    order = follow("guided", dict.fromkeys((cut.name for cut in CUTS), 0.9), known=known, find_probe=lambda: probe)
    assert {key.partition("__")[0] for key in order} == {FULL, flat_from.name}


def test_guided_begins_finalists_with_their_exits_where_that_is_wanted() -> None:
    warm = {
        (cut.name, WARM, seed): replace(TRIALS[cut.name, "full", seed], strategy=WARM, start=JOINT_TRIAL.key)
        for cut in CUTS[:-1]
        for seed in SEEDS
    }
    BY_KEY.update({trial.key: trial for trial in warm.values()})
    score = dict.fromkeys((cut.name for cut in CUTS), 0.9)
    order = follow("guided", score, trial_of={**TRIALS, **warm}, strategies=("full",))
    assert order == [
        JOINT_TRIAL.key,
        *(TRIALS[FULL, "full", seed].key for seed in SEEDS),
        *(warm[CUTS[0].name, WARM, seed].key for seed in SEEDS),
    ]


def test_guided_trains_nothing_but_the_joint_network_where_nothing_is_to_be_confirmed() -> None:
    assert follow("guided", rising(), confirms=False) == [JOINT_TRIAL.key]


def test_guided_trains_everything_where_guiding_could_not_save_anything() -> None:
    two = (CUTS[len(CUTS) // 2], CUTS[-1])
    order = follow("guided", rising(), cuts=two, seeds=(0,), strategies=("full",))
    assert order == [TRIALS[cut.name, "full", 0].key for cut in reversed(two)]


def test_guided_trains_everything_where_no_joint_training_can_be() -> None:
    outcomes = expand(fail(JOINT_TRIAL))
    assert set(follow("guided", rising(), known=outcomes)) == {trial.key for trial in TRIALS.values()}


def test_hierarchical_trains_the_ends_of_stages_and_then_what_lies_around_the_best() -> None:
    ends = [cut for cut in CUTS if cut.stage or cut.name == FULL]
    best = ends[1]
    score = {cut.name: 0.9 - abs(cut.depth - best.depth) / 100 for cut in CUTS}
    order = follow("hierarchical", score)
    first = {trial_of(cut.name, strategy, seed).key for cut in ends for strategy in STRATEGIES for seed in SEEDS}
    assert set(order[: len(first)]) == first
    between = {cut.name for cut in CUTS if ends[0].depth < cut.depth < ends[2].depth} - {best.name}
    assert {key.partition("__")[0] for key in order[len(first) :]} == between


def test_halving_drops_half_at_each_rung_and_keeps_the_full_network() -> None:
    score = {cut.name: 0.9 - abs(cut.depth - CUTS[2].depth) / 10 for cut in CUTS}
    order = follow("halving", score)
    at = {epoch: {name.partition("@")[0] for name in order if name.endswith(f"@{epoch}")} for epoch in (1, 2, 4)}
    candidates = len(CUTS) * len(STRATEGIES)
    rivals = candidates - len(STRATEGIES)
    assert [len(keys) for keys in at.values()] == [
        candidates,
        (rivals + 1) // 2 + len(STRATEGIES),
        (rivals + 3) // 4 + len(STRATEGIES),
    ]
    ended = {name for name in order if "@" not in name}
    assert {TRIALS[FULL, strategy, seed].key for strategy in STRATEGIES for seed in SEEDS} <= ended
    assert {TRIALS[CUTS[2].name, strategy, seed].key for strategy in STRATEGIES for seed in SEEDS} <= ended


def test_halving_drops_what_is_worst_for_certain_not_what_is_dear() -> None:
    worst = CUTS[0].name
    score = {cut.name: 0.6 if cut.name == worst else 0.9 for cut in CUTS}
    order = follow("halving", score)
    assert {name.rpartition("@")[2] for name in order if name.startswith(f"{worst}__") and "@" in name} == {"1"}


@pytest.mark.parametrize(("epochs", "rungs"), [(1, ()), (2, (1,)), (5, (1, 2, 3)), (10, (2, 3, 5)), (40, (5, 10, 20))])
def test_rungs_lie_at_an_eighth_a_quarter_and_half_of_the_epochs(epochs: int, rungs: tuple[int, ...]) -> None:
    assert find_rungs(epochs) == rungs
