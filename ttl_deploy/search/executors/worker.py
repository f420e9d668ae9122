"""What a worker process does with a task, whoever has started it; and what is told of one that died."""

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttl_deploy.errors import TtlDeployError
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.executors.memory import give_back_memory
from ttl_deploy.search.tasks import Outcome, Task, execute
from ttl_deploy.training.loop import Progress

_REPORT_EVERY_S = 0.2
_LOG = "worker.log"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that the user must mend, in parts: pickle would call its constructor, which has a shape of its own."""

    kind: type[TtlDeployError]
    arguments: tuple[object, ...]
    state: dict[str, Any]

    @classmethod
    def of(cls, error: TtlDeployError) -> "Refusal":
        """Take an error apart."""
        return cls(type(error), error.args, dict(error.__dict__))

    def restore(self) -> TtlDeployError:
        """Return the error as it was raised."""
        error = self.kind.__new__(self.kind, *self.arguments)
        error.__dict__.update(self.state)
        return error


def do_task(task: Task, send: Callable[[Progress], None]) -> Outcome | Refusal | None:
    """Do one task and leave no memory behind; progress is sent a few times a second, the ends of epochs always."""
    sent_s = 0.0

    def report(progress: Progress) -> None:
        nonlocal sent_s
        now = time.monotonic()
        if progress.finished or now - sent_s >= _REPORT_EVERY_S:
            sent_s = now
            send(progress)

    try:
        return execute(task, report)
    except TtlDeployError as error:
        return Refusal.of(error)
    finally:
        give_back_memory()


def log_path(task: Task) -> Path:
    """Return where a task's process writes what it prints."""
    return RunFolder(Path(task.run)).trial(task.trial.key) / _LOG


def redirect_output(path: Path) -> None:
    """Send what this process prints, from native code too, to a log: standard output and errors by their numbers."""
    sys.stdout.flush()
    sys.stderr.flush()
    with open(path, "a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def describe_death(task: Task, how: str) -> str:
    """Say how a task's process ended, what it printed last, and where all of it stands."""
    log = log_path(task)
    printed = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return f"the worker {how}{': ' + printed[-1] if printed else ''} (see {log})"
