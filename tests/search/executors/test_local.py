"""Which tasks the local executor runs side by side; stub workers in threads stand for its processes."""

import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ttl_deploy.errors import UsageError
from ttl_deploy.records.models import FULL, ModelSpec
from ttl_deploy.records.trials import TrainSettings, Trial
from ttl_deploy.search.executors import Place, Where, local
from ttl_deploy.search.executors.local import LocalExecutor
from ttl_deploy.search.tasks import Task, failure
from ttl_deploy.training.loop import TrialError


class StubProcess:
    """Stands for a worker process; its thread ends when the channel does."""

    exitcode = 0

    def __init__(self) -> None:
        self.ended = False

    def terminate(self) -> None:
        self.ended = True

    def kill(self) -> None:
        self.ended = True

    def join(self, timeout: float | None = None) -> None:
        pass


def serve(channel: Connection) -> None:
    """Answer every task at once."""
    while True:
        try:
            task: Task = channel.recv()
        except (EOFError, OSError):
            return
        channel.send(failure(task.trial, TrialError("error", "a stub")))


class Watched(LocalExecutor):
    """Keeps, for every start, the tasks that run at its place from then on, and how many processes lie idle there."""

    def __init__(self, places: Sequence[Place]) -> None:
        super().__init__(places)
        self.starts: list[tuple[Task, ...]] = []
        self.idle: list[int] = []

    def _assign(self, position: int, task: Task, station: local._Station) -> local._Worker:
        worker = super()._assign(position, task, station)
        self.starts.append(tuple(one.task for one in station.running if one.task))
        self.idle.append(len(station.idle))
        return worker


def cpu(workers: int, memory_bytes: int | None = None, *, number: int | None = None) -> Place:
    """Describe a place on the processor; torch knows it by several numbers."""
    device = "cpu" if number is None else f"cpu:{number}"
    return Place(device=device, workers=workers, memory_bytes=memory_bytes)


@pytest.fixture(autouse=True)
def processes(monkeypatch: pytest.MonkeyPatch) -> list[StubProcess]:
    """The processes that the executor has started."""
    started: list[StubProcess] = []

    def start() -> local._Worker:
        ours, theirs = Pipe()
        threading.Thread(target=serve, args=(theirs,), daemon=True).start()
        started.append(StubProcess())
        return local._Worker(started[-1], ours)  # type: ignore[arg-type] # it has what the executor uses

    monkeypatch.setattr(local, "_start", start)
    return started


def make_tasks(needs: Sequence[int], run: Path) -> list[Task]:
    spec = ModelSpec(backbone="squeezenet1_1", cut=FULL, classes=2, image_size=64)
    trials = [
        Trial(model=spec, weights="none", strategy="full", seed=n, train=TrainSettings()) for n in range(len(needs))
    ]
    return [
        Task(kind="train", trial=trial, run=str(run), cache="", device="cpu", cost=1.0, memory_bytes=need)
        for trial, need in zip(trials, needs, strict=True)
    ]


def run_all(executor: LocalExecutor, tasks: Sequence[Task]) -> dict[int, str]:
    """Run tasks; returns the key of the outcome by position."""
    with closing(executor):
        done = list(executor.run(tasks, report=lambda position, progress: None))
    assert len(done) == len(tasks)
    return {one.position: one.outcome.key for one in done if one.outcome}


def needs_of(tasks: Sequence[Task]) -> list[int]:
    return [task.memory_bytes for task in tasks]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    needs=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    workers=st.integers(1, 4),
    budget=st.integers(1, 100),
)
def test_every_task_runs_in_order_and_those_at_once_fit_the_budget(
    needs: list[int], workers: int, budget: int, tmp_path: Path
) -> None:
    executor, tasks = Watched([cpu(workers, budget)]), make_tasks(needs, tmp_path)
    assert run_all(executor, tasks) == {n: task.trial.key for n, task in enumerate(tasks)}
    assert [running[-1] for running in executor.starts] == tasks
    assert all(len(running) <= workers for running in executor.starts)
    assert all(len(running) == 1 or sum(needs_of(running)) <= budget for running in executor.starts)


def test_tasks_that_fit_run_side_by_side(tmp_path: Path) -> None:
    executor = Watched([cpu(4, 30)])
    run_all(executor, make_tasks([10, 10, 10, 10], tmp_path))
    assert [len(running) for running in executor.starts[:3]] == [1, 2, 3]
    assert max(len(running) for running in executor.starts) == 3


def test_without_a_budget_only_the_workers_count(tmp_path: Path) -> None:
    executor = Watched([cpu(2)])
    run_all(executor, make_tasks([10**12] * 3, tmp_path))
    assert [len(running) for running in executor.starts[:2]] == [1, 2]
    assert max(len(running) for running in executor.starts) == 2


def test_a_task_larger_than_the_device_runs_alone(tmp_path: Path) -> None:
    executor = Watched([cpu(4, 30)])
    run_all(executor, make_tasks([10, 10, 999, 10, 10], tmp_path))
    assert needs_of(executor.starts[2]) == [999]
    assert all(needs_of(running) == [999] for running in executor.starts if 999 in needs_of(running))


def test_small_tasks_do_not_overtake_a_large_one_that_waits(tmp_path: Path) -> None:
    """The third would fit beside the first at once, but waits behind the second."""
    executor = Watched([cpu(4, 100)])
    tasks = make_tasks([50, 90, 10, 10], tmp_path)
    run_all(executor, tasks)
    assert [running[-1] for running in executor.starts] == tasks
    assert needs_of(executor.starts[1]) == [90]


def test_idle_processes_are_ended_where_memory_is_short(tmp_path: Path, processes: list[StubProcess]) -> None:
    executor = Watched([cpu(3, 30)])
    run_all(executor, make_tasks([10, 10, 10, 999], tmp_path))
    assert executor.idle[-1] == 0
    assert len(processes) >= 3


def test_processes_go_from_task_to_task_where_memory_suffices(tmp_path: Path, processes: list[StubProcess]) -> None:
    run_all(LocalExecutor([cpu(2, 100)]), make_tasks([10] * 8, tmp_path))
    assert len(processes) <= 2
    assert all(process.ended for process in processes)


def devices_of(executor: Watched) -> list[str]:
    """Return the device of every task, in the order of the starts."""
    return [running[-1].device for running in executor.starts]


def test_tasks_go_to_the_place_with_the_fewest(tmp_path: Path) -> None:
    """All four start before the executor takes notice of an end."""
    executor = Watched([cpu(2, number=0), cpu(2, number=1)])
    run_all(executor, make_tasks([10] * 4, tmp_path))
    assert devices_of(executor) == ["cpu:0", "cpu:1", "cpu:0", "cpu:1"]


def test_a_place_without_memory_does_not_block_one_that_has_room(tmp_path: Path) -> None:
    executor = Watched([cpu(3, 30, number=0), cpu(3, 100, number=1)])
    run_all(executor, make_tasks([25, 25, 25, 25], tmp_path))
    assert devices_of(executor) == ["cpu:0", "cpu:1", "cpu:1", "cpu:1"]


def test_a_task_waits_for_the_place_that_can_hold_it(tmp_path: Path) -> None:
    """The small place is empty all the time; what it cannot hold never runs there."""
    executor = Watched([cpu(4, 100, number=0), cpu(4, 30, number=1)])
    run_all(executor, make_tasks([90, 90, 90, 200], tmp_path))
    assert devices_of(executor) == ["cpu:0"] * 4
    assert all(len(running) == 1 for running in executor.starts)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    needs=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    sizes=st.lists(st.tuples(st.integers(1, 3), st.none() | st.integers(1, 100)), min_size=1, max_size=3),
)
def test_at_every_place_what_runs_at_once_fits(
    needs: list[int], sizes: list[tuple[int, int | None]], tmp_path: Path
) -> None:
    places = {f"cpu:{n}": cpu(*size, number=n) for n, size in enumerate(sizes)}
    executor, tasks = Watched(list(places.values())), make_tasks(needs, tmp_path)
    assert run_all(executor, tasks) == {n: task.trial.key for n, task in enumerate(tasks)}
    assert [running[-1].trial for running in executor.starts] == [task.trial for task in tasks]
    largest = max((sys.maxsize if bytes_ is None else bytes_) for _, bytes_ in sizes)
    for running in executor.starts:
        place = places[running[-1].device]
        assert {task.device for task in running} == {place.device}
        assert len(running) <= place.workers
        memory = sys.maxsize if place.memory_bytes is None else place.memory_bytes
        assert sum(needs_of(running)) <= memory or (len(running) == 1 and memory == largest)


def test_opened_it_has_the_devices_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    executor, device = LocalExecutor.open(Where(gpus=(1, 0), workers=2))
    assert [station.place.device for station in executor._stations] == ["cuda:1", "cuda:0"]
    assert device == torch.device("cuda:1")
    executor, device = LocalExecutor.open(Where(device="cpu", workers=1))
    assert [station.place for station in executor._stations] == [cpu(1)]
    assert device == torch.device("cpu")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (Where(address="auto"), "add --executor ray"),
        (Where(gpus=(0,), device="cpu"), "exclude each other"),
        (Where(gpus=(97,)), "device 'cuda:97' is not available"),
    ],
)
def test_what_goes_not_together_is_refused(where: Where, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        LocalExecutor.open(where)
