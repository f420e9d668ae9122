"""Training in rounds: what the policy proposes is planned, run in waves, and recorded in the plan's order."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import msgspec

from ttl_deploy import plugins
from ttl_deploy.errors import DataError
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import JOINT
from ttl_deploy.records.models import Cut
from ttl_deploy.records.scores import Front
from ttl_deploy.records.trials import Trial, TrialPause, TrialResult
from ttl_deploy.records.weights import WeightsUsed
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runs.ledger import Event
from ttl_deploy.search import findings
from ttl_deploy.search.caches import Caches
from ttl_deploy.search.candidates import TrialOf, make_joint, make_warm
from ttl_deploy.search.context import Study
from ttl_deploy.search.costs import epoch_macs
from ttl_deploy.search.findings import Outcome
from ttl_deploy.search.first_look import find_probe
from ttl_deploy.search.policies import Proposal, StudyState
from ttl_deploy.search.running import make_task, run_with_retries
from ttl_deploy.search.tasks import Task
from ttl_deploy.search.waves import next_wave, plan_trials


def train(
    study: Study, cuts: tuple[Cut, ...], trials: TrialOf, caches: Caches, *, images: Mapping[str, int]
) -> Mapping[str, Outcome]:
    """Let the policy propose trials of `cuts` until it has no more, and record every outcome.

    Raises `OutOfTimeError` when the study's time is over.
    """
    policy = plugins.load("policies", study.settings.policy)()
    known: Mapping[str, Outcome] = findings.outcomes(study.run)
    macs = {cut.name: cut.macs for cut in cuts}
    allowed = {place: trial for place, trial in trials.items() if place[0] in macs}
    covered = _covered(study.run, cuts)
    joint = make_joint(allowed, covered, study.settings)
    allowed = {**allowed, **make_warm(allowed, joint, study.settings)}
    deepest = allowed[cuts[-1].name, study.settings.strategies[0], study.settings.seeds[0]]
    while True:
        study.check_time()
        rested = findings.rested(study.run, known)
        state = StudyState(
            cuts=cuts,
            strategies=study.settings.strategies,
            seeds=study.settings.seeds,
            trial_of=allowed,
            outcomes=known,
            rested=rested,
            joint=joint,
            confirms="confirm" not in study.settings.skip,
            find_probe=partial(find_probe, study, deepest, covered, caches, images=images),
            find_exits_front=partial(_find_front, study.run, known, joint=True),
            find_front=partial(_find_front, study.run, known, joint=False),
            find_front_at=partial(findings.front_at, study.run, known),
        )
        proposed = policy.propose(state)
        if not proposed:
            return known
        trials_known = [*allowed.values(), *([joint] if joint else [])]
        known = run_proposals(study, proposed, trials_known, caches, known, macs=macs, images=images)


def run_proposals(
    study: Study,
    proposed: Sequence[Proposal],
    trials: Sequence[Trial],
    caches: Caches,
    known: Mapping[str, Outcome],
    *,
    macs: Mapping[str, int],
    images: Mapping[str, int],
) -> Mapping[str, Outcome]:
    """Train what is proposed, and what of `trials` it needs; returns all outcomes.

    `macs` are those of an image by the cuts' names, `images` the numbers of images by split.
    """
    plan = plan_trials(proposed, trials, known)
    rested = findings.rested(study.run, known)
    tasks = list(_make_tasks(study, plan, caches, rested=rested, macs=macs, images=images))
    return {**known, **_run_round(study, tasks, known)}


def _make_tasks(
    study: Study,
    plan: Sequence[Proposal],
    caches: Caches,
    *,
    rested: Mapping[str, int],
    macs: Mapping[str, int],
    images: Mapping[str, int],
) -> Iterator[Task]:
    """Describe the trainings of a plan; each is measured without being run, which takes a moment per cut."""
    for number, proposal in enumerate(plan, start=1):
        trial, begun = proposal.trial, rested.get(proposal.trial.key, 0)
        epochs = (proposal.until or trial.train.epochs) - begun
        cost = epochs * epoch_macs(trial, macs, images)
        yield make_task(study, "train", trial, caches, cost=cost, begun=begun, until=proposal.until)
        study.reporter.step("measuring what trainings need", number, len(plan))


def _covered(run: RunFolder, cuts: tuple[Cut, ...]) -> tuple[Cut, ...]:
    """Return the cuts whose trunk the weights hold; all of them where nothing is known about that."""
    used = codec.load(WeightsUsed, run.weights).cuts if run.weights.exists() else ()
    uncovered = {one.cut for one in used if not one.covered}
    return tuple(cut for cut in cuts if cut.name not in uncovered)


def _find_front(run: RunFolder, known: Mapping[str, Outcome], *, joint: bool) -> Front | None:
    """Return the front of the joint training's exits, or of the trials trained by themselves; None without any."""
    wanted = {key: one for key, one in known.items() if (one.strategy == JOINT) == joint}
    return findings.validation_front(run, wanted) if findings.finished(wanted) else None


def _run_round(study: Study, tasks: Sequence[Task], known: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """Run training tasks; ledger lines are written in the order of the tasks, whichever ends first."""
    outcomes: dict[int, Outcome | TrialPause] = {}
    written = 0
    for position, outcome in _run_waves(study, tasks, known):
        outcomes[position] = outcome
        while written in outcomes:
            _record(study.run, outcomes[written])
            written += 1
    ended = (outcome for outcome in outcomes.values() if not isinstance(outcome, TrialPause))
    return {key: one for outcome in ended for key, one in findings.expand(outcome).items()}


def _run_waves(
    study: Study, tasks: Sequence[Task], known: Mapping[str, Outcome]
) -> Iterator[tuple[int, Outcome | TrialPause]]:
    """Yield position and outcome of every task, running it once its teacher has an outcome."""
    known = dict(known)
    left = dict(enumerate(tasks))
    study.reporter.plan(tasks)
    while left:
        wave = next_wave({position: task.trial for position, task in left.items()}, known)
        failed = {position: left.pop(position) for position in wave.failed}
        ready = {position: left.pop(position) for position in wave.ready}
        for position, task in failed.items():
            known[task.trial.key] = wave.failed[position]
            study.reporter.ended(task, wave.failed[position])
            yield position, wave.failed[position]
        for position, outcome in run_with_retries(study, ready, later=tuple(left.values())):
            if outcome is None:
                raise DataError(f"the training of {tasks[position].trial.key} ended without a result")
            if not isinstance(outcome, TrialPause):
                known |= findings.expand(outcome)
            yield position, outcome


def _record(run: RunFolder, outcome: Outcome | TrialPause) -> None:
    if isinstance(outcome, TrialPause):
        run.ledger.append("trial_paused", outcome.fact, msgspec.to_builtins(outcome))
        return
    event: Event = "trial_finished" if isinstance(outcome, TrialResult) else "trial_failed"
    run.ledger.append(event, outcome.key, msgspec.to_builtins(outcome))
