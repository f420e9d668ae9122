"""What a run has found so far: predictions on disk → front → choice. Needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.data.labels import label_array
from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.errors import NoRunError
from ttl_deploy.evidence import choice, front
from ttl_deploy.evidence.answers import are_grades
from ttl_deploy.evidence.front import LabelledSplit
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import Candidate
from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import Choice, Front, PickRule
from ttl_deploy.records.trials import Profile, TrialFailure, TrialPause, TrialResult
from ttl_deploy.runs.folder import RunFolder

Outcome = TrialResult | TrialFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The front and, once made, the choice."""

    front: Front
    choice: Choice | None


def read(run: RunFolder) -> Found:
    """Return what a run has found; an unfinished run's front is computed from the trials finished so far."""
    if run.front.is_file():
        return Found(
            front=run.read_front(),
            choice=run.read_choice() if run.chosen.is_file() else None,
        )
    return Found(front=validation_front(run, outcomes_so_far(run)), choice=None)


def choose_again(
    run: RunFolder,
    *,
    rule: PickRule | None,
    max_latency_s: float | None,
    max_params: int | None,
    max_macs: int | None,
) -> Found:
    """Choose from a run's front by another rule or limits, and store the choice as the run's own."""
    with run.owned():
        found = read(run)
        chosen = choice.choose(
            found.front,
            rule or run.settings().pick,
            max_latency_s=max_latency_s,
            max_params=max_params,
            max_macs=max_macs,
        )
        codec.save(run.chosen, chosen)
    return Found(front=found.front, choice=chosen)


def outcomes(run: RunFolder) -> dict[str, Outcome]:
    """Return the outcome of every trial in the ledger, by key, in the ledger's order.

    Those into which a joint training was divided follow it.
    """
    known: dict[str, Outcome] = {}
    for entry in run.ledger.entries():
        if entry.event == "trial_finished":
            result = codec.from_builtins(TrialResult, dict(entry.content))
            known |= expand(result)
        elif entry.event == "trial_failed":
            known[entry.key] = codec.from_builtins(TrialFailure, dict(entry.content))
    return known


def pauses(run: RunFolder) -> tuple[TrialPause, ...]:
    """Return every rest of a trial, in the ledger's order."""
    entries = run.ledger.of_event("trial_paused")
    return tuple(codec.from_builtins(TrialPause, dict(entry.content)) for entry in entries)


def rested(run: RunFolder, known: Mapping[str, Outcome]) -> dict[str, int]:
    """Return until which epoch each trial without an outcome was trained, by key; none for those never begun."""
    return {pause.key: pause.epoch for pause in pauses(run) if pause.key not in known}


def expand(outcome: Outcome) -> dict[str, Outcome]:
    """Return an outcome, and behind a joint training's those of its exits, by key."""
    exits = outcome.exits if isinstance(outcome, TrialResult) else ()
    return {one.key: one for one in (outcome, *exits)}


def outcomes_so_far(run: RunFolder) -> dict[str, Outcome]:
    """Return the ledger's outcomes, and the results that still wait for their place in it.

    The ledger keeps the order in which trials were planned, so an earlier one that is still running
    holds later ones back.
    """
    known = outcomes(run)
    for path in sorted(run.path.glob("trials/*/result.json")):
        known.setdefault(path.parent.name, codec.load(TrialResult, path))
    return known


def validation_front(run: RunFolder, known: Mapping[str, Outcome]) -> Front:
    """Build the front of all finished trials from their validation predictions."""
    if not run.profile.is_file():
        raise NoRunError(f"{run.path} has no profile yet, so no front: resume it with {run.path / 'command.txt'}")
    return front.build_front(
        codec.load(Profile, run.profile),
        _predictions(run, finished(known), "val"),
        labelled_split(run.data, "val"),
        strategies=run.settings().strategies,
    )


def front_at(run: RunFolder, known: Mapping[str, Outcome], epoch: int, seed: int) -> Front | None:
    """Build the front of one seed's trials that rested after so many epochs, as they were then; None without any.

    Those that had ended by then stand beside them.
    """
    resting = {
        pause.candidate: {seed: _load_probabilities(run.trial(pause.key) / pause.predictions)}
        for pause in pauses(run)
        if (pause.epoch, pause.seed) == (epoch, seed)
    }
    short = {
        key: one
        for key, one in known.items()
        if isinstance(one, TrialResult) and one.epochs_run <= epoch and one.seed == seed
    }
    ended = _predictions(run, finished(short), "val")
    if not resting and not ended:
        return None
    strategies = run.settings().strategies
    profile, split = codec.load(Profile, run.profile), labelled_split(run.data, "val")
    return front.build_front(profile, {**ended, **resting}, split, strategies=strategies)


def front_with_test(run: RunFolder, found: Front, known: Mapping[str, Outcome]) -> Front:
    """Add the test scores of the candidates for which the test split was opened, and their verdicts."""
    wanted = candidates_to_confirm(found)
    opened = {candidate: seeds for candidate, seeds in finished(known).items() if candidate in wanted}
    return front.add_test_scores(
        found,
        _predictions(run, opened, "test"),
        labelled_split(run.data, "test"),
        margin=run.settings().margin,
    )


def candidates_to_confirm(found: Front) -> tuple[Candidate, ...]:
    """Return the candidates whose test scores are stated: the front's members and the reference."""
    reference = [found.reference] if found.reference else []
    names = dict.fromkeys([*front.pareto_members(found), *reference])
    return tuple(found.point(name).candidate for name in names)


def finished(known: Mapping[str, Outcome]) -> dict[Candidate, dict[int, str]]:
    """Return the finished trials' keys by candidate and seed; a joint training is none, its exits are."""
    found: dict[Candidate, dict[int, str]] = {}
    for outcome in known.values():
        if isinstance(outcome, TrialResult) and not outcome.is_joint:
            found.setdefault(outcome.candidate, {})[outcome.seed] = outcome.key
    return {candidate: dict(sorted(seeds.items())) for candidate, seeds in found.items()}


def labelled_split(data: Path, split: Split) -> LabelledSplit:
    """Return labels and patients of one split, in the order of its predictions."""
    manifest = load_manifest(data)
    samples = manifest.samples
    return LabelledSplit(
        split=split,
        labels=label_array([sample for sample in samples if sample.split == split]),
        patients=np.array([sample.patient_id for sample in samples if sample.split == split]),
        patients_known=manifest.patients_known,
        graded=are_grades(manifest.classes),
    )


def read_probabilities(run: RunFolder, key: str, split: Split) -> NDArray[np.float32]:
    """Return a trial's probabilities `(n, C)` on a split, in the manifest's order."""
    return _load_probabilities(run.trial(key) / f"predictions_{split}.npz")


def _load_probabilities(path: Path) -> NDArray[np.float32]:
    with np.load(path, allow_pickle=False) as content:
        predicted: NDArray[np.float32] = content["probabilities"]
    return predicted


def _predictions(
    run: RunFolder, keys: Mapping[Candidate, Mapping[int, str]], split: Split
) -> dict[Candidate, dict[int, NDArray[np.float32]]]:
    return {
        candidate: {seed: read_probabilities(run, key, split) for seed, key in by_seed.items()}
        for candidate, by_seed in keys.items()
    }
