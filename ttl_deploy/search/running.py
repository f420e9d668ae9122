"""Running tasks: described for the executor, and taken up again where their process was killed."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from ttl_deploy.records.trials import Trial, TrialFailure
from ttl_deploy.search.caches import Caches
from ttl_deploy.search.context import Study
from ttl_deploy.search.executors.memory import estimate_task
from ttl_deploy.search.tasks import Kind, Outcome, Task
from ttl_deploy.training.loop import Progress

_ATTEMPTS = 4
"""A trial whose process died is taken up again three times at most."""


def make_task(
    study: Study,
    kind: Kind,
    trial: Trial,
    caches: Caches,
    *,
    cost: float,
    begun: int = 0,
    until: int | None = None,
) -> Task:
    """Describe a unit of work for the executor."""
    return Task(
        kind=kind,
        trial=trial,
        run=str(study.run.path),
        cache=str(caches.of(trial.model.image_size).path),
        device=str(study.device),
        cost=cost,
        memory_bytes=estimate_task(kind, trial, study.device),
        begun=begun,
        until=until,
    )


def run_with_retries(
    study: Study, tasks: Mapping[int, Task], *, later: Sequence[Task] = ()
) -> Iterator[tuple[int, Outcome | None]]:
    """Yield position and outcome of every task; one whose process was killed goes on from its checkpoint.

    `later` are the tasks that were planned with these but are run after them. Raises `OutOfTimeError` when the
    study's time is over; what runs is stopped then, and goes on from its last epoch another time.
    """
    left = dict(tasks)
    for attempt in range(1, _ATTEMPTS + 1):
        if not left:
            return
        positions, chosen = list(left), list(left.values())
        if attempt > 1:
            study.reporter.plan([*chosen, *later])
        left = {}
        for done in study.executor.run(chosen, report=partial(_report, study, chosen)):
            task, position = chosen[done.position], positions[done.position]
            if isinstance(done.outcome, TrialFailure) and done.outcome.kind == "crash" and attempt < _ATTEMPTS:
                study.reporter.note(f"{task.trial.key}: {done.outcome.reason}; trying again from its checkpoint")
                left[position] = task
                continue
            study.reporter.ended(task, done.outcome)
            yield position, done.outcome


def _report(study: Study, tasks: Sequence[Task], number: int, progress: Progress) -> None:
    study.reporter.progress(tasks[number], progress)
    study.check_time()
