"""Searches that are only imagined: a policy followed to its end in made-up worlds, to know what it may come to.

A policy is a function of outcomes, so it is asked as in a real search and told made-up ones. In every world nothing
fails, but what the weights do not cover. Where the best cut lies decides what a policy trains next, so there is a
world for every place; and since a joint training may promise what cuts trained alone do not keep, there are worlds
in which it does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ttl_deploy import plugins
from ttl_deploy.errors import TtlDeployError
from ttl_deploy.records.candidates import JOINT, Candidate, name_candidate
from ttl_deploy.records.models import FULL, Cut
from ttl_deploy.records.probe import Probe, ProbeScore
from ttl_deploy.records.scores import Front, FrontPoint, PairedDifference, Score
from ttl_deploy.records.trials import SearchSettings, Trial, TrialFailure, TrialResult
from ttl_deploy.search.candidates import TrialOf, make_joint, make_warm, probes
from ttl_deploy.search.exits import exit_trial
from ttl_deploy.search.findings import Outcome, expand
from ttl_deploy.search.policies import StudyState
from ttl_deploy.search.waves import plan_trials

_MOST_ROUNDS = 10_000
_GOOD, _POOR, _SLOPE = 0.9, 0.6, 0.2
Scores = Mapping[str, float]
"""Made-up AUROCs by cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How good every cut looks, to a probe and in a joint training, and how good it is when trained by itself."""

    looks: Scores
    alone: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Possible:
    """What a search may train, as its policy is told: see `StudyState`; `covered` are cuts that the weights cover."""

    settings: SearchSettings
    cuts: tuple[Cut, ...]
    covered: tuple[Cut, ...]
    trial_of: TrialOf
    joint: Trial | None

    @property
    def can_probe(self) -> bool:
        """Tell whether there can be a probe at all."""
        return len(self.covered) >= 2 and probes(self.settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A trial trained from after `begun` epochs until `end` are over."""

    trial: Trial
    begun: int
    end: int

    def epochs(self, patience: int) -> int:
        """Return how many epochs that is at least, where a training may stop after `patience` useless ones; 0 never.

        A phase's first epoch is its best so far, so it takes one more than its patience.
        """
        last = patience + 1 if patience else self.end
        return max(0, min(self.end, last) - min(self.begun, last))


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a search went in one world: its rounds of trainings, and whether the cuts were probed before."""

    rounds: tuple[tuple[Part, ...], ...]
    probed: bool

    @property
    def parts(self) -> tuple[Part, ...]:
        """All trainings."""
        return tuple(part for one in self.rounds for part in one)


def list_possible(settings: SearchSettings, cuts: tuple[Cut, ...], covered: set[str], trials: TrialOf) -> Possible:
    """Return what a search among these cuts may train, as `rounds.train` does."""
    names = {cut.name for cut in cuts}
    allowed = {place: trial for place, trial in trials.items() if place[0] in names}
    within = tuple(cut for cut in cuts if cut.name in covered)
    joint = make_joint(allowed, within, settings)
    return Possible(
        settings=settings,
        cuts=cuts,
        covered=within,
        trial_of={**allowed, **make_warm(allowed, joint, settings)},
        joint=joint,
    )


def imagine_worlds(cuts: Sequence[Cut]) -> Iterator[World]:
    """Yield the worlds: for every cut, it and all deeper ones are good, or it is the best; and false promises.

    Among them are the flat curve, where every cut is as good as the full network, and the steepest, where only the
    deepest is good.
    """
    deepest = _rise(cuts, len(cuts) - 1)
    for place in range(len(cuts)):
        rising, peaked = _rise(cuts, place), _peak(cuts, place)
        yield World(looks=rising, alone=rising)
        yield World(looks=rising, alone=deepest)
        yield World(looks=peaked, alone=peaked)


def _rise(cuts: Sequence[Cut], place: int) -> Scores:
    return {
        cut.name: _GOOD if number >= place else _POOR + _SLOPE * number / len(cuts) for number, cut in enumerate(cuts)
    }


def _peak(cuts: Sequence[Cut], place: int) -> Scores:
    return {cut.name: _GOOD - _SLOPE * abs(number - place) / len(cuts) for number, cut in enumerate(cuts)}


@dataclass(slots=True)
class _Search:
    """One imagined search while it goes on."""

    possible: Possible
    world: World
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    rested: dict[str, int] = field(default_factory=dict)
    rests: list[tuple[str, int]] = field(default_factory=list)
    probed: bool = False

    def find_probe(self) -> Probe | None:
        if not self.possible.can_probe:
            return None
        self.probed = True
        scores = tuple(_probe(cut, self.world.looks[cut.name]) for cut in self.possible.covered)
        return Probe(cuts=scores, train_images=1, val_images=1, macs=0, seconds=0.0)

    def find_front(self, *, joint: bool) -> Front | None:
        found = [one for one in self.outcomes.values() if isinstance(one, TrialResult) and not one.is_joint]
        return self._front([one.candidate for one in found if (one.strategy == JOINT) == joint])

    def find_front_at(self, epoch: int, seed: int) -> Front | None:
        by_key = {trial.key: trial for trial in self.possible.trial_of.values()}
        resting = [by_key[key] for key, until in self.rests if until == epoch]
        ended = [by_key[key] for key, one in self.outcomes.items() if isinstance(one, TrialResult) and key in by_key]
        chosen = [*resting, *(trial for trial in ended if trial.train.epochs <= epoch)]
        return self._front([trial.candidate for trial in chosen if trial.seed == seed])

    def _front(self, candidates: Sequence[Candidate]) -> Front | None:
        if not candidates:
            return None
        score = {one: (self.world.looks if one[1] == JOINT else self.world.alone)[one[0]] for one in candidates}
        best = max(score, key=lambda one: score[one])
        places = [cut.name for cut in self.possible.cuts]
        ordered = sorted(score, key=lambda one: places.index(one[0]))
        full = next((_name(one) for one in ordered if one[0] == FULL), None)
        costs = {cut.name: cut for cut in self.possible.cuts}
        points = tuple(
            _point(one, costs[one[0]], None if one == best else score[one] - score[best], _name(best))
            for one in ordered
        )
        return Front(best=_name(best), reference=full, target="", points=points)

    def state(self) -> StudyState:
        possible = self.possible
        return StudyState(
            cuts=possible.cuts,
            strategies=possible.settings.strategies,
            seeds=possible.settings.seeds,
            trial_of=possible.trial_of,
            outcomes=dict(self.outcomes),
            rested=dict(self.rested),
            joint=possible.joint,
            confirms="confirm" not in possible.settings.skip,
            find_probe=self.find_probe,
            find_exits_front=lambda: self.find_front(joint=True),
            find_front=lambda: self.find_front(joint=False),
            find_front_at=self.find_front_at,
        )

    def do(self, trial: Trial, until: int | None) -> Part | None:
        """Have a trial trained; None where it cannot begin."""
        lost = any(not isinstance(self.outcomes.get(key), TrialResult) for key in trial.needs)
        if lost or trial.model.cut not in {cut.name for cut in self.possible.covered}:
            self.outcomes[trial.key] = _failure(trial)
            return None
        begun = self.rested.get(trial.key, 0)
        if until is not None and until < trial.train.epochs:
            self.rested[trial.key] = until
            self.rests.append((trial.key, until))
            return Part(trial=trial, begun=begun, end=until)
        self.rested.pop(trial.key, None)
        self.outcomes |= expand(_result(trial, self.world))
        return Part(trial=trial, begun=begun, end=trial.train.epochs)


def follow(possible: Possible, world: World) -> Course:
    """Follow the settings' policy to its end in one world; raises `TtlDeployError` where it has none."""
    policy = plugins.load("policies", possible.settings.policy)()
    joint = [possible.joint] if possible.joint else []
    search = _Search(possible, world)
    rounds = []
    while proposed := policy.propose(search.state()):
        plan = plan_trials(proposed, [*possible.trial_of.values(), *joint], search.outcomes)
        done = (search.do(one.trial, one.until) for one in plan)
        rounds.append(tuple(part for part in done if part is not None))
        if len(rounds) > _MOST_ROUNDS:
            raise TtlDeployError(f"policy {possible.settings.policy} proposes trials without end: mend its propose()")
    return Course(rounds=tuple(rounds), probed=search.probed)


def _name(candidate: Candidate) -> str:
    return name_candidate(candidate, several=True)


def _result(trial: Trial, world: World) -> TrialResult:
    exits = tuple(_result(exit_trial(trial, cut), world) for cut in trial.model.exits)
    scores = world.looks if trial.strategy == JOINT or exits else world.alone
    return TrialResult(
        key=trial.key,
        cut=trial.model.cut,
        strategy=trial.strategy,
        seed=trial.seed,
        best_epoch=trial.train.epochs,
        epochs_run=trial.train.epochs,
        val_auroc=scores[trial.model.cut],
        params=1,
        weights_sha256="",
        weights_note="imagined",
        precision="fp32",
        device="cpu",
        seconds=0.0,
        exits=exits,
    )


def _failure(trial: Trial) -> TrialFailure:
    return TrialFailure(
        key=trial.key,
        cut=trial.model.cut,
        strategy=trial.strategy,
        seed=trial.seed,
        kind="weights",
        reason="not covered by the weights",
    )


def _probe(cut: Cut, value: float) -> ProbeScore:
    return ProbeScore(cut=cut.name, features=1, cv_auroc=value, validation=_score(value), penalty=1.0)


def _score(value: float) -> Score:
    return Score(
        metric="auroc",
        split="val",
        value=value,
        low=value,
        high=value,
        level=0.95,
        images=1,
        patients=1,
        per_class=(value,),
        defined=1,
        method="imagined",
    )


def _point(candidate: Candidate, cut: Cut, behind: float | None, best: str) -> FrontPoint:
    return FrontPoint(
        name=_name(candidate),
        cut=cut.name,
        strategy=candidate[1],
        params=cut.params,
        macs=cut.macs,
        layers=cut.layers,
        params_share=cut.params_share,
        macs_share=cut.macs_share,
        latency_s=None,
        latency_noise_s=None,
        validation=(),
        test=(),
        seeds=(),
        seed_values=(),
        to_best=None
        if behind is None
        else PairedDifference(reference=best, value=behind, low=behind, high=behind, level=0.95),
        on_front=(),
    )
