"""One search from data to choice: every stage leaves its result on the disk, so the same call resumes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import msgspec
import torch

from ttl_deploy import plugins
from ttl_deploy.data.cache import PixelCache, open_cache
from ttl_deploy.data.manifest import limit_train, prepare, share_train
from ttl_deploy.data.manifest_files import fingerprint, load_manifest, save_manifest
from ttl_deploy.errors import DataError, TtlDeployError
from ttl_deploy.evidence.choice import choose
from ttl_deploy.models.cuts import list_cuts, resolve_cuts
from ttl_deploy.records import codec
from ttl_deploy.records.data import Manifest
from ttl_deploy.records.models import FULL, Cut, ModelSpec
from ttl_deploy.records.scores import Choice, Front
from ttl_deploy.records.trials import Profile, SearchSettings, TestOpening, Trial, TrialFailure, TrialResult
from ttl_deploy.runs.folder import RunFolder, differences, refuse_differences
from ttl_deploy.runs.ledger import Event
from ttl_deploy.search import environment, findings
from ttl_deploy.search.executors import Executor
from ttl_deploy.search.executors.memory import default_workers, estimate_task, find_budget
from ttl_deploy.search.feasibility import keep_feasible, refuse_by_size
from ttl_deploy.search.findings import Found, Outcome
from ttl_deploy.search.next_steps import write_next_steps
from ttl_deploy.search.policies import StudyState
from ttl_deploy.search.profile import describe_profile, profile_cuts
from ttl_deploy.search.profile_key import ProfilePlan
from ttl_deploy.search.tasks import Task
from ttl_deploy.training.devices import pick_device
from ttl_deploy.training.loop import Progress
from ttl_deploy.training.strategies import find_strategy

_ATTEMPTS = 3


class Reporter(Protocol):
    """Hears how a study goes on; shows it, or not."""

    def step(self, stage: str, done: int, total: int) -> None:
        """A stage outside training has done some of its units."""

    def plan(self, tasks: Sequence[Task]) -> None:
        """A round of tasks begins."""

    def progress(self, task: Task, progress: Progress) -> None:
        """A task has got on."""

    def ended(self, task: Task, outcome: Outcome | None) -> None:
        """A task has ended."""

    def note(self, text: str) -> None:
        """Something a user should know, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Study:
    settings: SearchSettings
    run: RunFolder
    device: torch.device
    executor: Executor
    reporter: Reporter


def run_study(
    settings: SearchSettings,
    run: RunFolder,
    *,
    command: str,
    device: str = "auto",
    workers: int | None = None,
    reporter: Reporter,
) -> Found:
    """Search, or go on with the search that lies in `run`; returns the front with test scores, and the choice.

    `workers` are trainings side by side, as far as their memory allows: by default one per core, on a GPU
    at most `MOST_ON_GPU`. Raises `TtlDeployError` for what the user must mend; everything done before is kept.
    """
    place = pick_device(device)
    workers = workers or default_workers(place)
    budget = find_budget(place) if workers > 1 else None
    study = _Study(
        settings=settings,
        run=run,
        device=place,
        executor=plugins.load("executors", "local")(workers, memory_bytes=budget),
        reporter=reporter,
    )
    # Names are checked before the folder is touched; the number of classes is not known yet.
    _candidates(settings, classes=2)
    for table, name in (
        ("policies", settings.policy),
        ("targets", settings.profile_target),
    ):
        plugins.load(table, name)
    find_strategy(settings.strategy)
    with run.owned(), closing(study.executor):
        resumed = not run.claim(settings, command)
        feeding = environment.check_environment(run, settings, study.device)
        if resumed:
            reporter.note(f"resuming {run.path}: {len(findings.outcomes(run))} trials are done")
        manifest = _read_data(study)
        cuts = _candidates(settings, classes=len(manifest.classes))
        trials = {
            (cut.name, seed): environment.make_trial(
                settings, cut, seed, classes=len(manifest.classes), feeding=feeding
            )
            for cut in cuts
            for seed in settings.seeds
        }
        environment.check_weights(run, settings, cuts, note=reporter.note)
        wanted = _profile(study, manifest, cuts, [trials[cut.name, settings.seeds[0]].model for cut in cuts])
        cache = open_cache(manifest, settings.decode, progress=reporter.step)
        known = _train(study, wanted, trials, cache, images=_image_counts(manifest))
        front = _confirm(study, trials, known, cache, command=command, images=_image_counts(manifest))
        return _conclude(study, front)


def _candidates(settings: SearchSettings, *, classes: int) -> tuple[Cut, ...]:
    """Return the wanted cuts, shallow to deep, the full network last."""
    known = list_cuts(settings.backbone, image_size=settings.decode.image_size, classes=classes, pool=settings.pool)
    wanted = {cut.name for cut in resolve_cuts(settings.cuts, known)} | {FULL}
    return tuple(cut for cut in known if cut.name in wanted)


def _read_data(study: _Study) -> Manifest:
    """Read, check and split the data, or compare them with the stored ones; no image is decoded yet."""
    settings, run = study.settings, study.run
    found = prepare(
        settings.data,
        label_col=settings.label_col,
        val_fraction=settings.val_fraction,
        test_fraction=settings.test_fraction,
        split_seed=settings.split_seed,
        progress=study.reporter.step,
    )
    if settings.limit_train is not None:
        found = limit_train(found, settings.limit_train, seed=settings.split_seed)
    if settings.train_fraction is not None:
        found = share_train(found, settings.train_fraction, seed=settings.split_seed)
    _check_learnable(found)
    if (run.data / "manifest.csv").exists():
        old, new = fingerprint(load_manifest(run.data)), fingerprint(found)
        refuse_differences(run.path, differences(msgspec.to_builtins(old), msgspec.to_builtins(new), "data."))
    else:
        save_manifest(found, run.data)
    for warning in found.warnings:
        study.reporter.note(f"data: {warning.message}")
    return found


def _check_learnable(manifest: Manifest) -> None:
    """Refuse data that nothing can be learned or chosen on: a split with a single class has no AUROC."""
    for split in ("train", "val"):
        present = {manifest.samples[position].label for position in manifest.of_split(split)}
        if len(present) < 2:
            named = ", ".join(repr(manifest.classes[label]) for label in present) or "no images"
            raise DataError(
                f"the split {split!r} of {manifest.name} holds only {named}: training and validation need at least two "
                "classes each; add images, or leave out the splits so that they are made here"
            )


def _image_counts(manifest: Manifest) -> Mapping[str, int]:
    return {split: len(manifest.of_split(split)) for split in ("train", "val", "test")}


def _profile(study: _Study, manifest: Manifest, cuts: Sequence[Cut], specs: Sequence[ModelSpec]) -> tuple[Cut, ...]:
    """Find what every candidate costs, as far as that is not known yet; return those to train, shallow to deep.

    Where no cut meets the limits, nothing stands in the ledger yet, so the run may begin anew with others.
    """
    run, settings, note = study.run, study.settings, study.reporter.note
    refuse_by_size(settings, cuts)
    known = run.profile.exists()
    profile = codec.load(Profile, run.profile) if known else _measure(study, cuts, specs)
    wanted = keep_feasible(settings, profile, cuts, note=note)
    run.ledger.append("data_prepared", manifest.name, msgspec.to_builtins(fingerprint(manifest)))
    if not known:
        codec.save(run.profile, profile)
    run.ledger.append("profiled", settings.profile_target, {"cuts": [cut.name for cut in cuts]})
    return wanted


def _measure(study: _Study, cuts: Sequence[Cut], specs: Sequence[ModelSpec]) -> Profile:
    plan = ProfilePlan(target=study.settings.profile_target, seconds=study.settings.profile_seconds)
    profile = profile_cuts(cuts, specs, plan=plan, progress=study.reporter.step)
    for text in describe_profile(profile):
        study.reporter.note(text)
    return profile


def _train(
    study: _Study,
    cuts: tuple[Cut, ...],
    trials: Mapping[tuple[str, int], Trial],
    cache: PixelCache,
    *,
    images: Mapping[str, int],
) -> Mapping[str, Outcome]:
    """Let the policy propose trials of `cuts` until it has no more, and record every outcome."""
    policy = plugins.load("policies", study.settings.policy)()
    known = findings.outcomes(study.run)
    macs = {cut.name: cut.macs for cut in cuts}
    allowed = {(cut, seed): trial for (cut, seed), trial in trials.items() if cut in macs}
    while True:
        state = StudyState(cuts=cuts, seeds=study.settings.seeds, trial_of=allowed, outcomes=known)
        proposed = policy.propose(state)
        if not proposed:
            return known
        costs = [macs[trial.model.cut] * _images_seen(trial, images) for trial in proposed]
        tasks = [_task(study, "train", trial, cache, cost) for trial, cost in zip(proposed, costs, strict=True)]
        known = {**known, **_run_round(study, tasks)}


def _images_seen(trial: Trial, images: Mapping[str, int]) -> float:
    """Count the forward passes a trial is worth: a training step costs about three."""
    return trial.train.epochs * (3.0 * images["train"] + images["val"])


def _task(study: _Study, kind: Any, trial: Trial, cache: PixelCache, cost: float) -> Task:
    return Task(
        kind=kind,
        trial=trial,
        run=str(study.run.path),
        cache=str(cache.path),
        device=str(study.device),
        cost=cost,
        memory_bytes=estimate_task(kind, trial, study.device),
    )


def _run_round(study: _Study, tasks: Sequence[Task]) -> dict[str, Outcome]:
    """Run training tasks; ledger lines are written in the order of the tasks, whichever ends first."""
    outcomes: dict[int, Outcome] = {}
    written = 0
    for position, outcome in _run_with_retries(study, tasks):
        if outcome is None:
            raise DataError(f"the training of {tasks[position].trial.key} ended without a result")
        outcomes[position] = outcome
        while written in outcomes:
            _record(study.run, outcomes[written])
            written += 1
    return {outcome.key: outcome for outcome in outcomes.values()}


def _run_with_retries(study: _Study, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome | None]]:
    """Yield position and outcome of every task; one whose process was killed goes on from its checkpoint."""
    left = dict(enumerate(tasks))
    for attempt in range(1, _ATTEMPTS + 1):
        positions, chosen = list(left), list(left.values())
        study.reporter.plan(chosen)
        left = {}
        for done in study.executor.run(chosen, report=partial(_report, study.reporter, chosen)):
            task, position = chosen[done.position], positions[done.position]
            if isinstance(done.outcome, TrialFailure) and done.outcome.kind == "crash" and attempt < _ATTEMPTS:
                study.reporter.note(f"{task.trial.key}: {done.outcome.reason}; trying again from its checkpoint")
                left[position] = task
                continue
            study.reporter.ended(task, done.outcome)
            yield position, done.outcome
        if not left:
            return


def _report(reporter: Reporter, tasks: Sequence[Task], number: int, progress: Progress) -> None:
    reporter.progress(tasks[number], progress)


def _record(run: RunFolder, outcome: Outcome) -> None:
    event: Event = "trial_finished" if isinstance(outcome, TrialResult) else "trial_failed"
    run.ledger.append(event, outcome.key, msgspec.to_builtins(outcome))


def _confirm(
    study: _Study,
    trials: Mapping[tuple[str, int], Trial],
    known: Mapping[str, Outcome],
    cache: PixelCache,
    *,
    command: str,
    images: Mapping[str, int],
) -> Front:
    """Open the test split, once, for the reference and the front's members; returns the front with test scores."""
    run = study.run
    front = findings.validation_front(run, known)
    keys = findings.finished(known)
    members = [
        trials[cut, seed]
        for cut in findings.cuts_to_confirm(front)
        for seed in study.settings.seeds
        if seed in keys.get(cut, {})
    ]
    opening = TestOpening(split="test", command=command, trials=tuple(trial.key for trial in members))
    run.ledger.append("test_opened", "search", msgspec.to_builtins(opening))
    missing = [trial for trial in members if not (run.trial(trial.key) / "predictions_test.npz").exists()]
    tasks = [_task(study, "test", trial, cache, float(images["test"])) for trial in missing]
    for position, outcome in _run_with_retries(study, tasks) if tasks else ():
        if outcome is not None:
            raise TtlDeployError(f"{tasks[position].trial.key} cannot be tested: {outcome}")
    return findings.front_with_test(run, front, known)


def _conclude(study: _Study, front: Front) -> Found:
    """Store the front and the choice by the settings' rule; a choice the user made later is kept."""
    run, settings = study.run, study.settings
    codec.save(run.front, front)
    if not run.chosen.exists() or not run.ledger.of_event("chosen"):
        chosen = choose(
            front,
            settings.pick,
            max_latency_s=settings.max_latency_s,
            max_params=settings.max_params,
            max_macs=settings.max_macs,
        )
        codec.save(run.chosen, chosen)
        run.ledger.append("chosen", chosen.cut, {"cut": chosen.cut, "seed": chosen.seed, "rule": chosen.rule})
    write_next_steps(run)
    return Found(front=front, choice=codec.load(Choice, run.chosen))
