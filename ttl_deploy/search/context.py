"""What every stage of a study has at hand."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ttl_deploy.errors import OutOfTimeError
from ttl_deploy.records.trials import SearchSettings
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.executors import Executor
from ttl_deploy.search.tasks import Outcome, Task
from ttl_deploy.training.loop import Progress


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
class Study:
    """One call of `run_study`.

    `command` is what was typed; `deadline_s` when trainings are to stop, on the monotonic clock, None for never.
    """

    settings: SearchSettings
    run: RunFolder
    command: str
    device: torch.device
    executor: Executor
    reporter: Reporter
    deadline_s: float | None = None

    def check_time(self) -> None:
        """Raise `OutOfTimeError` after the deadline."""
        if self.deadline_s is not None and time.monotonic() >= self.deadline_s:
            raise OutOfTimeError(
                "--max-hours is over and no training has finished: there is nothing to choose from yet. Type the same "
                "command again to go on where it was, with more time; `--dry-run` estimates how much it takes"
            )
