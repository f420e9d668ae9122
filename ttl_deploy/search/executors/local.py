"""The local executor: every task in a fresh process of this machine, a few side by side.

A crash, a native one too, ends its own task only. On small machines one-thread processes side by
side are far faster than one process with several threads, whose barriers collapse under any load.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from ttl_deploy.errors import TtlDeployError
from ttl_deploy.files import make_folder
from ttl_deploy.processes import die_with_parent
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.executors import Done
from ttl_deploy.search.tasks import Outcome, Task, execute, failure
from ttl_deploy.training.loop import Progress, TrialError

_REPORT_EVERY_S = 0.2
_LOG = "worker.log"


@dataclass(slots=True)
class _Worker:
    position: int
    task: Task
    process: BaseProcess
    messages: Connection


class LocalExecutor:
    """Runs up to `workers` tasks side by side, each in its own spawned process."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, tasks: Sequence[Task], *, report: Callable[[int, Progress], None]) -> Iterator[Done]:
        """Start the tasks in order as places become free; yield outcomes as they come."""
        waiting = list(enumerate(tasks))
        running: list[_Worker] = []
        try:
            while waiting or running:
                while waiting and len(running) < self.workers:
                    running.append(_start(*waiting.pop(0)))
                for worker in _ready(running):
                    done = _receive(worker, report)
                    if done is not None:
                        running.remove(worker)
                        yield done
        finally:
            for worker in running:
                worker.process.terminate()
            for worker in running:
                worker.process.join()


def _start(position: int, task: Task) -> _Worker:
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    make_folder(log_path(task).parent)
    process = spawn.Process(target=_work, args=(task, sender, os.getpid()), name=f"{task.kind} {task.trial.key}")
    process.start()
    sender.close()
    return _Worker(position, task, process, receiver)


def _ready(running: list[_Worker]) -> list[_Worker]:
    """Wait until some worker has something to say, or has ended."""
    ready = wait([worker.messages for worker in running])
    return [worker for worker in running if worker.messages in ready]


def _receive(worker: _Worker, report: Callable[[int, Progress], None]) -> Done | None:
    """Take one message; returns the end of the task when it is that. Errors the user must mend are raised."""
    try:
        message = worker.messages.recv()
    except EOFError:
        worker.process.join()
        return Done(worker.position, _crash(worker))
    if isinstance(message, Progress):
        report(worker.position, message)
        return None
    worker.process.join()
    if isinstance(message, TtlDeployError):
        raise message
    return Done(worker.position, message)


def _crash(worker: _Worker) -> Outcome:
    code = worker.process.exitcode or 0
    how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
    last = log_path(worker.task).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    reason = f"the worker ended with {how}{': ' + last[0] if last else ''} (see {log_path(worker.task)})"
    return failure(worker.task.trial, TrialError("crash" if code < 0 else "error", reason))


def log_path(task: Task) -> Path:
    """Return where a task's process writes what it prints."""
    return RunFolder(Path(task.run)).trial(task.trial.key) / _LOG


def _work(task: Task, messages: Connection, parent_pid: int) -> None:
    """The worker process: do the task, send throttled progress, then the outcome."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent(parent_pid)
    with open(log_path(task), "a", encoding="utf-8") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    sent_s = 0.0

    def report(progress: Progress) -> None:
        nonlocal sent_s
        now = time.monotonic()
        if progress.finished or now - sent_s >= _REPORT_EVERY_S:
            sent_s = now
            messages.send(progress)

    try:
        outcome: Outcome | TtlDeployError | None = execute(task, report)
    except TtlDeployError as error:
        outcome = error
    messages.send(outcome)
    messages.close()
