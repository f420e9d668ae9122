"""Executors: where tasks run. One file each; `plugins.py` names them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch

from ttl_deploy.search.tasks import Outcome, Task
from ttl_deploy.training.loop import Progress


@dataclass(frozen=True, slots=True)
class Done:
    """A finished task: its position in the sequence given, and what came of it (None for a test task)."""

    position: int
    outcome: Outcome | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A device of this machine that takes up to `workers` tasks side by side.

    Together they need at most `memory_bytes` of its memory; None is no limit.
    """

    device: str
    workers: int
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where a search is to train, as the user has said it.

    `gpus` are numbers of this machine's, instead of `device`; `address` is that of a cluster; `workers` are
    trainings side by side at most, on all devices together, None for what the executor finds right.
    """

    device: str = "auto"
    gpus: tuple[int, ...] = ()
    address: str | None = None
    workers: int | None = None


class Executor(Protocol):
    """Runs tasks and hands their outcomes back in the order in which they finish."""

    @classmethod
    def open(cls, where: Where) -> tuple[Self, torch.device]:
        """Return an executor, and a device such as its tasks run on; raises `TtlDeployError` where it cannot be."""
        ...

    def run(self, tasks: Sequence[Task], *, report: Callable[[int, Progress], None]) -> Iterator[Done]:
        """Yield one `Done` per task; closing the iterator stops what still runs."""
        ...

    def close(self) -> None:
        """Give back what the executor holds."""
        ...
