"""What every stage of a search cost and told, read from its run folder. Needs no torch."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.errors import DataError
from ttl_deploy.evidence.answers import Floats
from ttl_deploy.evidence.choice import over_limits
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import JOINT
from ttl_deploy.records.models import FULL
from ttl_deploy.records.probe import Probe
from ttl_deploy.records.scores import Front
from ttl_deploy.records.stages import Stage, StageCost, StageCosts
from ttl_deploy.records.trials import Profile, SearchSettings, TestOpening, Trial, TrialFailure, TrialResult
from ttl_deploy.records.variants import is_variant
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import findings
from ttl_deploy.search.costs import cut_macs, epoch_macs
from ttl_deploy.search.findings import Outcome

_NAMED = 5
_LEAST_RANKED = 3
"""A rank correlation of fewer cuts says nothing: that of two is always 1 or -1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Training:
    """A trial that was begun: the epochs it has had, and their time."""

    trial: Trial
    epochs: int
    seconds: float
    macs: float


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What of a run folder the stages are told from: images by split, outcomes by key."""

    run: RunFolder
    settings: SearchSettings
    profile: Profile
    images: Mapping[str, int]
    known: Mapping[str, Outcome]
    finished: bool

    @cached_property
    def macs(self) -> Mapping[str, int]:
        """Return the MACs of one image, by cut."""
        return {cut.cut: cut.macs for cut in self.profile.cuts}

    @cached_property
    def stored(self) -> Front | None:
        """Return the front that a finished search stored."""
        return self.run.read_front() if self.finished and self.run.front.is_file() else None

    @cached_property
    def probe(self) -> Probe | None:
        """Return the probe, where there was one."""
        return codec.load(Probe, self.run.probe) if self.run.probe.exists() else None

    @cached_property
    def trainings(self) -> tuple[_Training, ...]:
        """Return every training that had an epoch; exits are parts of one. Cuts shallow to deep."""
        found = [self._training(path.parent.name) for path in sorted(self.run.path.glob("trials/*/trial.json"))]
        order = list(self.macs)
        return tuple(sorted((one for one in found if one), key=lambda one: order.index(one.trial.cut)))

    def _training(self, key: str) -> _Training | None:
        folder, outcome = self.run.trial(key), self.known.get(key)
        trial = codec.load(Trial, folder / "trial.json")
        if trial.strategy == JOINT or (outcome is None and (folder / "result.json").exists()):
            return None  # an exit; or lies there from elsewhere, and the search did not need it
        if isinstance(outcome, TrialResult):
            epochs, seconds = outcome.epochs_run, outcome.seconds
        else:
            log = folder / "metrics.jsonl"
            lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
            epochs, seconds = len(lines), sum(json.loads(line)["seconds"] for line in lines)
        macs = epochs * epoch_macs(trial, self.macs, self.images)
        return _Training(trial=trial, epochs=epochs, seconds=seconds, macs=macs) if epochs else None

    def front_of(self, wanted: Callable[[Outcome], bool]) -> Front | None:
        """Return the validation front of some outcomes; None without any, or where they cannot be compared."""
        some = {key: one for key, one in self.known.items() if wanted(one)}
        candidates = {candidate: tuple(seeds) for candidate, seeds in findings.finished(some).items()}
        if not candidates:
            return None
        stored = self.stored
        if stored is not None and {point.candidate: point.seeds for point in stored.points} == candidates:
            return stored  # the same models: the same numbers, without resampling them once more
        try:
            return findings.validation_front(self.run, some)
        except (DataError, FileNotFoundError):
            return None


def describe_stages(run: RunFolder, *, tell: bool = True) -> StageCosts | None:
    """Return what the stages of a run have cost so far, and told; None before its profile.

    To tell what was found, the predictions are resampled, which can take seconds; without `tell` those stages tell
    nothing. The joint network counts as its deepest cut, without the other exits' heads; epochs that were begun and
    broken off do not count.
    """
    if not run.profile.exists():
        return None
    read = _read(run)
    stages = (_profiled(read), *_probed(read), *_joint(read, tell=tell), *_confirmed(read, tell=tell), *_tested(read))
    full = cut_macs(read.macs[FULL], read.images)
    return StageCosts(
        stages=stages,
        full_macs=read.settings.train.epochs * full,
        exhaustive_macs=read.settings.train.epochs * len(read.settings.seeds) * _exhaustive_epoch(read),
        finished=read.finished,
    )


def _read(run: RunFolder) -> _Read:
    manifest = load_manifest(run.data)
    finished = bool(run.ledger.of_event("chosen"))
    return _Read(
        run=run,
        settings=run.settings(),
        profile=codec.load(Profile, run.profile),
        images={split: len(manifest.of_split(split)) for split in ("train", "val", "test")},
        known=findings.outcomes(run) if finished else findings.outcomes_so_far(run),
        finished=finished,
    )


def _exhaustive_epoch(read: _Read) -> float:
    """Return the MACs of an epoch of every cut within the limits by every strategy, and of teachers that are none.

    Which strategies have teachers is known from their trials.
    """
    trials = [one.trial for one in read.trainings]
    taught = {trial.strategy for trial in trials if trial.teacher is not None}
    teachers = {trial.teacher for trial in trials}
    extra = {trial.strategy for trial in trials if trial.key in teachers} - set(read.settings.strategies)
    limits = {name: getattr(read.settings, name) for name in ("max_latency_s", "max_params", "max_macs")}
    over = set(over_limits(read.profile.cuts, **limits)) - {FULL}
    per_image = [macs for cut, macs in read.macs.items() if cut not in over and not is_variant(cut)]
    lessons = len(taught & set(read.settings.strategies)) * len(per_image) * read.macs[FULL] * read.images["train"]
    students = len(read.settings.strategies) * sum(cut_macs(macs, read.images) for macs in per_image)
    return students + lessons + len(extra) * cut_macs(read.macs[FULL], read.images)


def _profiled(read: _Read) -> StageCost:
    facts = read.run.ledger.of_event("profiled")
    cuts, full = [row for row in read.profile.cuts if not is_variant(row.cut)], read.profile.cuts[-1]
    timed = "no latency was measured"
    if full.latency_s is not None:
        earlier = ", measured earlier" if full.cached else ""
        timed = f"the full network takes {1e3 * full.latency_s:.3g} ms on {read.profile.target}{earlier}"
    return StageCost(
        stage="profile",
        macs=0.0,
        seconds=facts[0].content.get("seconds") if facts else None,
        trials=0,
        told=f"{len(cuts)} cuts, from {100 * cuts[0].macs_share:.3g} % of the full network's MACs on; {timed}",
    )


def _probed(read: _Read) -> Iterator[StageCost]:
    if (probe := read.probe) is not None:
        told = ". ".join(_tell_probe(read, probe))
        yield StageCost(stage="probe", macs=float(probe.macs), seconds=probe.seconds, trials=0, told=told)


def _tell_probe(read: _Read, probe: Probe) -> Iterator[str]:
    """Say which cut is best, which one the probe alone would choose, and how alike the joint training ranks them."""
    values = {one.cut: one.validation.value for one in probe.cuts if one.validation.value is not None}
    if not values:
        yield "Every AUROC is undefined"
        return
    best = max(values, key=lambda cut: values[cut])
    yield f"The best is {best} ({values[best]:.3f}); alone it would choose {_smallest_probed(read, probe)}"
    for joint in _joint_results(read):
        exits = {one.cut: one.val_auroc for one in joint.exits if one.val_auroc is not None and one.cut in values}
        correlation = rank_correlation([values[cut] for cut in exits], list(exits.values()))
        if correlation is not None:
            yield f"Spearman correlation with the joint exits: {correlation:.2f} ({len(exits)} cuts)"


def _smallest_probed(read: _Read, probe: Probe) -> str:
    """Return the smallest cut whose interval reaches the best value, as the guided policy takes it."""
    scores = {one.cut: one.validation for one in probe.cuts}
    best = max(score.value for score in scores.values() if score.value is not None)
    good = [
        cut for cut, score in scores.items() if score.value is not None and max(score.high or 0, score.value) >= best
    ]
    return min(good, key=lambda cut: read.macs[cut])


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float | None:
    """Return Spearman's correlation of two samples `(n,)`, ties at their mean rank; None where it says nothing."""
    ranks = [_rank(np.asarray(values, dtype=np.float64)) for values in (one, other)]
    if len(ranks[0]) < _LEAST_RANKED or any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _rank(values: Floats) -> Floats:
    """Return how many values are smaller than each, and half of those that equal it; constants do not matter."""
    against = values[:, None] - values
    ranks: Floats = (against > 0).sum(axis=1) + (against == 0).sum(axis=1) / 2
    return ranks


def _joint_results(read: _Read) -> list[TrialResult]:
    return [one for one in read.known.values() if isinstance(one, TrialResult) and one.is_joint]


def _joint(read: _Read, *, tell: bool) -> Iterator[StageCost]:
    trained = [one for one in read.trainings if one.trial.model.exits]
    if trained:
        yield _add_up("joint", trained, told=_tell_joint(read, trained[0].trial) if tell else "")


def _tell_joint(read: _Read, trial: Trial) -> str:
    outcome = read.known.get(trial.key)
    if outcome is None:
        return "Not finished yet"
    if isinstance(outcome, TrialFailure):
        return f"Failed: {outcome.reason}"
    front = read.front_of(lambda one: one.strategy == JOINT)
    found = f"{len(outcome.exits)} exits"
    return found if front is None else f"{found}: {_tell_smallest(front)}"


def _confirmed(read: _Read, *, tell: bool) -> Iterator[StageCost]:
    """Tell of what was trained by itself, to its end or not; and of the variants after it."""
    alone = [one for one in read.trainings if not one.trial.model.exits and not one.trial.variant]
    varied = [one for one in read.trainings if one.trial.variant]
    if alone:
        yield _add_up("confirm", alone, told=". ".join(_tell_confirmed(read, alone)) if tell else "")
    if varied:
        yield _add_up("vary", varied, told=". ".join(_tell_confirmed(read, varied)) if tell else "")


def _tell_confirmed(read: _Read, alone: list[_Training]) -> Iterator[str]:
    cuts = list(dict.fromkeys(one.trial.cut for one in alone))
    named = f"{', '.join(cuts[:_NAMED])}{', …' if len(cuts) > _NAMED else ''}"
    later = bool(alone[0].trial.variant)
    front = read.front_of(lambda one: one.strategy != JOINT and (later or not is_variant(one.cut)))
    counted = f"{len(cuts)} cut{'s' if len(cuts) > 1 else ''} ({named})"
    yield counted if front is None else f"{counted}: {_tell_smallest(front)}"
    failed = sum(isinstance(read.known.get(one.trial.key), TrialFailure) for one in alone)
    ended = sum(isinstance(read.known.get(one.trial.key), TrialResult) for one in alone)
    if failed:
        yield f"{failed} training{'s' if failed > 1 else ''} failed"
    if stopped := len(alone) - failed - ended:
        what = "stopped early" if read.finished else "not finished"
        yield f"{stopped} training{'s were' if stopped > 1 else ' was'} {what}"


def _tell_smallest(front: Front) -> str:
    """Say which is the smallest candidate whose validation AUROC cannot be told from the best one's."""
    good = [point for point in front.points if point.to_best is None or point.to_best.high >= 0]
    smallest = min(good, key=lambda point: point.macs).name
    if smallest == front.best:
        return f"{smallest} is the best, and no smaller one as good"
    return f"{smallest} is the smallest that cannot be told from the best, {front.best}"


def _add_up(stage: Stage, trainings: list[_Training], *, told: str) -> StageCost:
    return StageCost(
        stage=stage,
        macs=sum(one.macs for one in trainings),
        seconds=sum(one.seconds for one in trainings),
        trials=len(trainings),
        told=told,
    )


def _tested(read: _Read) -> Iterator[StageCost]:
    for entry in read.run.ledger.of_event("test_opened"):
        if entry.key != "search":
            continue  # `compare` reads what the search's own opening has predicted, and runs no model
        opening = codec.from_builtins(TestOpening, dict(entry.content))
        trials = [codec.load(Trial, read.run.trial(key) / "trial.json") for key in opening.trials]
        macs = float(sum(read.macs[trial.cut] for trial in trials) * read.images["test"])
        candidates = len({trial.candidate for trial in trials})
        told = f"{candidates} candidate{'s' if candidates > 1 else ''} scored on {read.images['test']} images"
        yield StageCost(stage="test", macs=macs, seconds=None, trials=0, told=told)
