"""What every stage of a search cost and told, read from its run folder. Needs no torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import JOINT
from ttl_deploy.records.probe import Probe
from ttl_deploy.records.scores import Front
from ttl_deploy.records.stages import StageCost, StageCosts
from ttl_deploy.records.trials import Profile, TestOpening, Trial, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import findings
from ttl_deploy.search.costs import cut_macs, epoch_macs
from ttl_deploy.search.findings import Outcome

_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What of a run folder the stages are told from: MACs per image by cut, images by split, trials by key."""

    run: RunFolder
    macs: Mapping[str, int]
    images: Mapping[str, int]
    known: Mapping[str, Outcome]

    def cost(self, key: str, epochs: int) -> float:
        trial = codec.load(Trial, self.run.trial(key) / "trial.json")
        return epochs * epoch_macs(trial, self.macs, self.images)


def describe_stages(run: RunFolder) -> StageCosts | None:
    """Return what the stages of a run have cost so far; None before its profile."""
    if not run.profile.exists():
        return None
    profile = codec.load(Profile, run.profile)
    manifest, settings = load_manifest(run.data), run.settings()
    read = _Read(
        run=run,
        macs={cut.cut: cut.macs for cut in profile.cuts},
        images={split: len(manifest.of_split(split)) for split in ("train", "val", "test")},
        known=findings.outcomes_so_far(run),
    )
    return StageCosts(
        stages=(_profiled(read, profile), *_probed(read), *_joint(read), *_confirmed(read), *_tested(read)),
        full_macs=settings.train.epochs * cut_macs(profile.cuts[-1].macs, read.images),
        exhaustive_macs=settings.train.epochs
        * len(settings.strategies)
        * len(settings.seeds)
        * sum(cut_macs(cut.macs, read.images) for cut in profile.cuts),
    )


def _profiled(read: _Read, profile: Profile) -> StageCost:
    facts = read.run.ledger.of_event("profiled")
    seconds = facts[0].content.get("seconds") if facts else None
    measured = sum(cut.latency_s is not None for cut in profile.cuts)
    told = f"{len(profile.cuts)} cuts, {measured} of them timed on {profile.target}"
    return StageCost(stage="profile", macs=0.0, seconds=seconds, trials=0, told=told)


def _probed(read: _Read) -> Iterator[StageCost]:
    if not read.run.probe.exists():
        return
    probe = codec.load(Probe, read.run.probe)
    scored = [one for one in probe.cuts if one.validation.value is not None]
    best = max(scored, key=lambda one: one.validation.value or 0.0, default=None)
    told = "nothing: every AUROC is undefined" if best is None else f"best {best.cut} ({best.validation.value:.3f})"
    yield StageCost(stage="probe", macs=float(probe.macs), seconds=probe.seconds, trials=0, told=told)


def _joint(read: _Read) -> Iterator[StageCost]:
    for result in _results(read):
        if result.is_joint:
            exits = {key: one for key, one in read.known.items() if one.strategy == JOINT}
            smallest = _smallest_as_good(findings.validation_front(read.run, exits))
            told = f"{len(result.exits)} exits; {smallest} is the smallest that cannot be told from the best"
            macs = read.cost(result.key, result.epochs_run)
            yield StageCost(stage="joint", macs=macs, seconds=result.seconds, trials=1, told=told)


def _confirmed(read: _Read) -> Iterator[StageCost]:
    """Tell of what was trained by itself, to its end or not."""
    alone = [one for one in _results(read) if not one.is_joint and one.strategy != JOINT]
    rests = findings.rested(read.run, read.known)
    if not alone and not rests:
        return
    seconds = {pause.key: pause.seconds for pause in findings.pauses(read.run) if pause.key in rests}
    cuts = list(dict.fromkeys(one.cut for one in alone))
    told = f"{len(cuts)} cuts by themselves: {', '.join(cuts[:_NAMED])}{', …' if len(cuts) > _NAMED else ''}"
    yield StageCost(
        stage="confirm",
        macs=sum(read.cost(one.key, one.epochs_run) for one in alone) + sum(map(read.cost, rests, rests.values())),
        seconds=sum(one.seconds for one in alone) + sum(seconds.values()),
        trials=len(alone) + len(rests),
        told=told + (f"; {len(rests)} trainings were stopped early" if rests else ""),
    )


def _tested(read: _Read) -> Iterator[StageCost]:
    for entry in read.run.ledger.of_event("test_opened"):
        opening = codec.from_builtins(TestOpening, dict(entry.content))
        trials = [codec.load(Trial, read.run.trial(key) / "trial.json") for key in opening.trials]
        macs = float(sum(read.macs[trial.model.cut] for trial in trials) * read.images["test"])
        told = f"{len({trial.candidate for trial in trials})} models on {read.images['test']} images"
        yield StageCost(stage="test", macs=macs, seconds=None, trials=0, told=told)


def _results(read: _Read) -> list[TrialResult]:
    return [one for one in read.known.values() if isinstance(one, TrialResult)]


def _smallest_as_good(front: Front) -> str:
    """Return the smallest cut whose validation AUROC cannot be told from the best one's."""
    good = [point for point in front.points if point.to_best is None or point.to_best.high >= 0]
    return min(good, key=lambda point: point.macs).cut
