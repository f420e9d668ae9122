"""After the training: the test split opened once, and the front and the choice stored."""

from collections.abc import Mapping

from ttl_deploy.data import opened_splits
from ttl_deploy.errors import TtlDeployError
from ttl_deploy.evidence.choice import choose
from ttl_deploy.records import codec
from ttl_deploy.records.scores import Choice, Front
from ttl_deploy.records.trials import TestOpening, Trial
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import findings
from ttl_deploy.search.caches import Caches
from ttl_deploy.search.context import Study
from ttl_deploy.search.findings import Found, Outcome
from ttl_deploy.search.next_steps import write_next_steps
from ttl_deploy.search.running import make_task, run_with_retries


def confirm(study: Study, known: Mapping[str, Outcome], caches: Caches, *, images: Mapping[str, int]) -> Front:
    """Open the test split, once, for the reference and the front's members; returns the front with test scores.

    Where the settings leave that stage out, the test split stays closed.
    """
    run = study.run
    front = findings.validation_front(run, known)
    if "test" in study.settings.skip:
        return front
    keys = findings.finished(known)
    members = [
        codec.load(Trial, run.trial(key) / "trial.json")
        for candidate in findings.candidates_to_confirm(front)
        for key in keys[candidate].values()
    ]
    opening = TestOpening(split="test", command=study.command, trials=tuple(trial.key for trial in members))
    for sentence in opened_splits.open_for_search(run, opening):
        study.reporter.note(sentence)
    missing = [trial for trial in members if not (run.trial(trial.key) / "predictions_test.npz").exists()]
    tasks = [make_task(study, "test", trial, caches, cost=float(images["test"])) for trial in missing]
    if tasks:
        study.reporter.plan(tasks)
        for position, outcome in run_with_retries(study, dict(enumerate(tasks))):
            if outcome is not None:
                raise TtlDeployError(f"{tasks[position].trial.key} cannot be tested: {outcome}")
    return findings.front_with_test(run, front, known)


def conclude(study: Study, front: Front) -> Found:
    """Store the front and the choice by the settings' rule; a choice the user made later is kept."""
    run = study.run
    codec.save(run.front, front)
    if not run.chosen.exists() or not run.ledger.of_event("chosen"):
        chosen = _choose(study, front)
        content = {"cut": chosen.cut, "strategy": chosen.strategy, "seed": chosen.seed, "rule": chosen.rule}
        run.ledger.append("chosen", chosen.cut, content)
    write_next_steps(run)
    return Found(front=front, choice=run.read_choice())


def stop_early(study: Study) -> Found:
    """Store the best front so far, from the validation split alone, and a choice from it; the ledger stays open.

    Raises `OutOfTimeError` where nothing has finished.
    """
    run = study.run
    known = findings.outcomes_so_far(run)
    if not findings.finished(known):
        study.check_time()
    front = findings.validation_front(run, known)
    codec.save(run.front, front)
    _choose(study, front)
    write_next_steps(run)
    study.reporter.note(
        f"--max-hours is over: {len(front.points)} candidates have finished, the others rest. This is the best so "
        "far, on validation alone; the test split stays closed until the search has ended. The same command goes on"
    )
    return Found(front=front, choice=run.read_choice())


def forget_early_choice(run: RunFolder) -> None:
    """Remove front and choice of a search that was stopped early, for it goes on."""
    if not run.ledger.of_event("chosen"):
        run.front.unlink(missing_ok=True)
        run.chosen.unlink(missing_ok=True)


def _choose(study: Study, front: Front) -> Choice:
    settings = study.settings
    chosen = choose(
        front,
        settings.pick,
        max_latency_s=settings.max_latency_s,
        max_params=settings.max_params,
        max_macs=settings.max_macs,
    )
    codec.save(study.run.chosen, chosen)
    return chosen
