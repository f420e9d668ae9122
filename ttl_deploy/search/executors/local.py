"""The local executor: tasks in a few processes of this machine, side by side.

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
from types import FrameType
from typing import NoReturn

from ttl_deploy.errors import TtlDeployError
from ttl_deploy.files import make_folder
from ttl_deploy.processes import die_with_parent
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.executors import Done
from ttl_deploy.search.executors.memory import give_back_memory
from ttl_deploy.search.tasks import Outcome, Task, execute, failure
from ttl_deploy.training.devices import keep_freed_memory
from ttl_deploy.training.loop import Progress, TrialError

_REPORT_EVERY_S = 0.2
_PATIENCE_S = 5.0
_LOG = "worker.log"


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    channel: Connection
    position: int = -1
    task: Task | None = None


class LocalExecutor:
    """Runs up to `workers` tasks side by side, each process taking one task after the other.

    A task starts only where the needs of all running ones, its own included, are within `memory_bytes`;
    alone it always runs, and None is no limit. A process that crashes takes its own task with it, and is
    replaced.
    """

    def __init__(self, workers: int, *, memory_bytes: int | None = None) -> None:
        self.workers, self.memory_bytes = workers, memory_bytes
        self._idle: list[_Worker] = []

    def run(self, tasks: Sequence[Task], *, report: Callable[[int, Progress], None]) -> Iterator[Done]:
        """Start the tasks strictly in order, as places and memory become free; yield outcomes as they come.

        No task overtakes another: a large one would otherwise wait as long as there are small ones.
        """
        waiting = list(enumerate(tasks))
        running: list[_Worker] = []
        try:
            while waiting or running:
                while waiting and self._admits(waiting[0][1], running):
                    running.append(self._assign(*waiting.pop(0)))
                for worker in _ready(running):
                    done = self._receive(worker, report)
                    if done is not None:
                        running.remove(worker)
                        yield done
        finally:
            _stop(running)

    def close(self) -> None:
        """End the idle processes."""
        _stop(self._idle)
        self._idle = []

    def _admits(self, task: Task, running: Sequence[_Worker]) -> bool:
        """Tell whether a task may start beside those that run."""
        if len(running) >= self.workers:
            return False
        needed = task.memory_bytes + sum(worker.task.memory_bytes for worker in running if worker.task)
        if self.memory_bytes is None or needed <= self.memory_bytes:
            return True
        self.close()  # what idle processes hold, a context each on a GPU, is in nobody's estimate
        return not running

    def _assign(self, position: int, task: Task) -> _Worker:
        make_folder(log_path(task).parent)
        worker = self._idle.pop() if self._idle else _start()
        worker.position, worker.task = position, task
        worker.channel.send(task)
        return worker

    def _receive(self, worker: _Worker, report: Callable[[int, Progress], None]) -> Done | None:
        """Take one message; returns the end of the task when it is that. Errors the user must mend are raised."""
        try:
            message = worker.channel.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            return Done(worker.position, _crash(worker))
        if isinstance(message, Progress):
            report(worker.position, message)
            return None
        self._idle.append(worker)
        if isinstance(message, TtlDeployError):
            raise message
        return Done(worker.position, message)


def _start() -> _Worker:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, os.getpid()), name="trainer")
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(_PATIENCE_S)
        worker.process.kill()
        worker.process.join()
        worker.channel.close()


def _ready(running: list[_Worker]) -> list[_Worker]:
    """Wait until some worker has something to say, or has ended."""
    ready = wait([worker.channel for worker in running])
    return [worker for worker in running if worker.channel in ready]


def _crash(worker: _Worker) -> Outcome:
    assert worker.task is not None
    code, log = worker.process.exitcode or 0, log_path(worker.task)
    how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
    printed = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    reason = f"the worker ended with {how}{': ' + printed[-1] if printed else ''} (see {log})"
    return failure(worker.task.trial, TrialError("crash" if code < 0 else "error", reason))


def log_path(task: Task) -> Path:
    """Return where a task's process writes what it prints."""
    return RunFolder(Path(task.run)).trial(task.trial.key) / _LOG


def _serve(channel: Connection, parent_pid: int) -> None:
    """The worker process: do one task after the other, as long as there is someone to work for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    die_with_parent(parent_pid)
    keep_freed_memory()
    while True:
        try:
            task: Task = channel.recv()
        except EOFError:
            return
        _redirect_output(log_path(task))
        outcome = _outcome(task, channel)
        give_back_memory()
        channel.send(outcome)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End in order: what the process holds of the system's (semaphores of its libraries) is given back."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _redirect_output(path: Path) -> None:
    """Send what this process prints, from native code too, to the log of its task."""
    sys.stdout.flush()
    sys.stderr.flush()
    with open(path, "a", encoding="utf-8") as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())


def _outcome(task: Task, channel: Connection) -> Outcome | TtlDeployError | None:
    """Do one task with throttled progress; an error the user must mend is an outcome too."""
    sent_s = 0.0

    def report(progress: Progress) -> None:
        nonlocal sent_s
        now = time.monotonic()
        if progress.finished or now - sent_s >= _REPORT_EVERY_S:
            sent_s = now
            channel.send(progress)

    try:
        return execute(task, report)
    except TtlDeployError as error:
        return error
