"""The local executor: tasks in a few processes of this machine, side by side.

A crash, a native one too, ends its own task only. On small machines one-thread processes side by
side are far faster than one process with several threads, whose barriers collapse under any load.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import NoReturn, Self

import torch

from ttl_deploy.errors import UsageError
from ttl_deploy.files import make_folder
from ttl_deploy.processes import die_with_parent
from ttl_deploy.search.executors import Done, Place, Where
from ttl_deploy.search.executors.memory import find_places
from ttl_deploy.search.executors.worker import Refusal, describe_death, do_task, log_path, redirect_output
from ttl_deploy.search.tasks import Outcome, Task, failure
from ttl_deploy.training.devices import keep_freed_memory, pick_device
from ttl_deploy.training.loop import Progress, TrialError

_PATIENCE_S = 5.0


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    channel: Connection
    position: int = -1
    task: Task | None = None


@dataclass(slots=True)
class _Station:
    """A place with its processes: a process stays with its place, since it holds a context on a GPU."""

    place: Place
    running: list[_Worker] = field(default_factory=list)
    idle: list[_Worker] = field(default_factory=list)

    @property
    def is_free(self) -> bool:
        return len(self.running) < self.place.workers

    def has_memory_for(self, task: Task) -> bool:
        if self.place.memory_bytes is None:
            return True
        taken = sum(worker.task.memory_bytes for worker in self.running if worker.task)
        return taken + task.memory_bytes <= self.place.memory_bytes

    def dismiss(self) -> None:
        """End the idle processes: what they hold, a context each on a GPU, is in nobody's estimate."""
        _stop(self.idle)
        self.idle = []


def pick_devices(where: Where) -> list[torch.device]:
    """Return the devices of this machine that are wanted; raises `UsageError` where they are not here."""
    if where.address is not None:
        raise UsageError(f"--address {where.address} is for a cluster: add --executor ray, or leave it out")
    if where.gpus and where.device not in ("auto", "cuda"):
        raise UsageError(f"--gpus and --device {where.device} exclude each other: give one of them")
    return [pick_device(f"cuda:{number}") for number in where.gpus] or [pick_device(where.device)]


class LocalExecutor:
    """Runs tasks side by side at one or several places, each process taking one task after the other.

    A task starts at the place with the fewest tasks among those that have a worker free and where the needs
    of all tasks, its own included, are within the memory. One that is too large for every place runs alone
    at the largest. A process that crashes takes its own task with it, and is replaced.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._stations = [_Station(place) for place in places]
        sizes = [place.memory_bytes for place in places]
        self._most_bytes = None if None in sizes else max(size for size in sizes if size is not None)

    @classmethod
    def open(cls, where: Where) -> tuple[Self, torch.device]:
        """Return an executor for this machine's devices that are wanted, and the first of them."""
        devices = pick_devices(where)
        return cls(find_places(devices, where.workers)), devices[0]

    def run(self, tasks: Sequence[Task], *, report: Callable[[int, Progress], None]) -> Iterator[Done]:
        """Start the tasks strictly in order, as places and memory become free; yield outcomes as they come.

        No task overtakes another: a large one would otherwise wait as long as there are small ones.
        """
        waiting = list(enumerate(tasks))
        try:
            while waiting or self._running():
                while waiting and (station := self._find_station(waiting[0][1])):
                    self._assign(*waiting.pop(0), station)
                for worker in _ready(self._running()):
                    done = self._receive(worker, report)
                    if done is not None:
                        yield done
        finally:
            _stop(self._running())
            for station in self._stations:
                station.running.clear()

    def close(self) -> None:
        """End the idle processes."""
        for station in self._stations:
            station.dismiss()

    def _running(self) -> list[_Worker]:
        return [worker for station in self._stations for worker in station.running]

    def _find_station(self, task: Task) -> _Station | None:
        """Return where a task may start beside those that run, None where it must wait."""
        free = [station for station in self._stations if station.is_free]
        chosen = [station for station in free if station.has_memory_for(task)]
        if not chosen:
            for station in free:
                station.dismiss()
            chosen = [one for one in free if not one.running and one.place.memory_bytes == self._most_bytes]
        return min(chosen, key=lambda station: len(station.running), default=None)

    def _assign(self, position: int, task: Task, station: _Station) -> _Worker:
        make_folder(log_path(task).parent)
        worker = station.idle.pop() if station.idle else _start()
        worker.position, worker.task = position, replace(task, device=station.place.device)
        station.running.append(worker)
        worker.channel.send(worker.task)
        return worker

    def _receive(self, worker: _Worker, report: Callable[[int, Progress], None]) -> Done | None:
        """Take one message; returns the end of the task when it is that. Errors the user must mend are raised."""
        try:
            message = worker.channel.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            self._station_of(worker).running.remove(worker)
            return Done(worker.position, _crash(worker))
        if isinstance(message, Progress):
            report(worker.position, message)
            return None
        station = self._station_of(worker)
        station.running.remove(worker)
        station.idle.append(worker)
        if isinstance(message, Refusal):
            raise message.restore()
        return Done(worker.position, message)

    def _station_of(self, worker: _Worker) -> _Station:
        return next(station for station in self._stations if worker in station.running)


def _start() -> _Worker:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, os.getpid()), name="trainer")
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _stop(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        worker.process.join(_PATIENCE_S)
        worker.process.kill()
        worker.process.join()
        worker.channel.close()


def _ready(running: Sequence[_Worker]) -> list[_Worker]:
    """Wait until some worker has something to say, or has ended."""
    ready = wait([worker.channel for worker in running])
    return [worker for worker in running if worker.channel in ready]


def _crash(worker: _Worker) -> Outcome:
    assert worker.task is not None
    code = worker.process.exitcode or 0
    how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
    reason = describe_death(worker.task, f"ended with {how}")
    return failure(worker.task.trial, TrialError("crash" if code < 0 else "error", reason))


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
        redirect_output(log_path(task))
        channel.send(do_task(task, channel.send))


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End in order: what the process holds of the system's (semaphores of its libraries) is given back."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)
