"""Trainings on a real Ray cluster of two nodes on this machine: same results, also when workers and nodes die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

pytest.importorskip("ray")

from ttl_deploy.data.cache import open_cache
from ttl_deploy.data.manifest import prepare
from ttl_deploy.data.manifest_files import save_manifest
from ttl_deploy.errors import StorageError, TargetUnavailableError, UsageError, WeightsError
from ttl_deploy.records.data import DecodeSettings
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import SearchSettings, TrainSettings, Trial, TrialFailure, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.context import Study
from ttl_deploy.search.executors import Place, Where, ray_cluster
from ttl_deploy.search.executors.local import LocalExecutor
from ttl_deploy.search.executors.ray_executor import RayExecutor, _collect, _Sent
from ttl_deploy.search.executors.ray_worker import Started
from ttl_deploy.search.executors.worker import log_path
from ttl_deploy.search.running import run_with_retries
from ttl_deploy.search.tasks import Task
from ttl_deploy.training.loop import Progress

import ray  # isort: skip # after ray_cluster, which makes settings for it
from ray.cluster_utils import Cluster  # isort: skip # as above

SIDE, EPOCHS = 48, 5
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
Facts = dict[int, tuple[str, float | None]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes with one processor each, and a connection with them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        nodes = Cluster(initialize_head=True, head_node_args=NODE)
        nodes.add_node(**NODE)
        ray.init(nodes.address, log_to_driver=False, configure_logging=False)
        yield nodes
        ray.shutdown()
        nodes.shutdown()  # type: ignore[no-untyped-call] # Ray has left it without types


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Return what puts the manifest of a small data set into a run folder; its cache is the value."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TTL_DEPLOY_CACHE", str(tmp_path_factory.mktemp("cache")))
        manifest = prepare(f"phantom:blob?patients=50&size={SIDE}&seed=1")
        cache = open_cache(manifest, DecodeSettings(image_size=SIDE))

    def put(run: Path) -> Path:
        save_manifest(manifest, RunFolder(run).data)
        return cache.path

    return put


def make_tasks(run: Path, cache: Path) -> list[Task]:
    """Describe two trainings of a few seconds."""
    spec = ModelSpec(backbone="resnet18", cut="layer2.1", classes=2, image_size=SIDE)
    settings = TrainSettings(epochs=EPOCHS, batch_size=16, lr=1e-3, patience=0)
    trials = [Trial(model=spec, weights="none", strategy="full", seed=seed, train=settings) for seed in (0, 1)]
    return [
        Task(kind="train", trial=trial, run=str(run), cache=str(cache), device="cpu", cost=1.0, memory_bytes=10**8)
        for trial in trials
    ]


@pytest.fixture
def tasks(data: Callable[[Path], Path], tmp_path: Path) -> list[Task]:
    return make_tasks(tmp_path, data(tmp_path))


@pytest.fixture(scope="module")
def undisturbed(data: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """What the local executor makes of the same trainings."""
    run = tmp_path_factory.mktemp("local")
    with closing(LocalExecutor([Place(device="cpu", workers=1)])) as executor:
        done = list(executor.run(make_tasks(run, data(run)), report=lambda position, progress: None))
    return {one.position: facts_of(one.outcome) for one in done}


def facts_of(outcome: object) -> tuple[str, float | None]:
    """Return what a training came to."""
    assert isinstance(outcome, TrialResult), outcome
    return outcome.weights_sha256, outcome.val_auroc


class Watched(RayExecutor):
    """Keeps what runs at the moment, and the processes of all that ever ran."""

    now: Mapping[int, Any]

    def __init__(self) -> None:
        super().__init__()
        self.pids: set[int] = set()

    def _deliver(self, running: Mapping[int, Any], report: Any) -> None:
        self.now = running
        super()._deliver(running, report)
        self.pids |= {sent.started.pid for sent in running.values() if sent.started}

    def pid_of(self, position: int) -> int:
        (started,) = [sent.started for sent in self.now.values() if sent.position == position]
        return int(started.pid)


@pytest.fixture
def executor(cluster: Cluster) -> Iterator[Watched]:
    with closing(Watched()) as executor:
        yield executor


@dataclass
class Listener:
    """Stands for a reporter; `on_epoch` is called with a task's position and the epoch it has finished."""

    tasks: Sequence[Task]
    on_epoch: Callable[[int, int], None] = lambda position, epoch: None
    epochs: dict[int, list[int]] = field(default_factory=lambda: {0: [], 1: []})
    notes: list[str] = field(default_factory=list)

    def step(self, stage: str, done: int, total: int) -> None:
        pass

    def plan(self, tasks: Sequence[Task]) -> None:
        pass

    def progress(self, task: Task, progress: Progress) -> None:
        if progress.finished:
            position = self.tasks.index(task)
            self.epochs[position].append(progress.epoch)
            self.on_epoch(position, progress.epoch)

    def ended(self, task: Task, outcome: object) -> None:
        assert self.epochs[self.tasks.index(task)][-1] == EPOCHS

    def note(self, text: str) -> None:
        self.notes.append(text)


def train(executor: RayExecutor, listener: Listener) -> Facts:
    """Train all tasks of the listener as a search does."""
    study = Study(
        settings=SearchSettings(backbone="resnet18", data="phantom"),
        run=RunFolder(Path(listener.tasks[0].run)),
        command="",
        device=torch.device("cpu"),
        executor=executor,
        reporter=listener,
    )
    return {
        position: facts_of(outcome) for position, outcome in run_with_retries(study, dict(enumerate(listener.tasks)))
    }


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a dead one that its parent has not asked about yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for_end(pids: set[int]) -> None:
    """Wait until none of the processes is alive."""
    deadline = time.monotonic() + 20
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still alive: {pids}"
        time.sleep(0.05)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.slow
def test_trainings_side_by_side_end_as_on_one_machine(executor: Watched, tasks: list[Task], undisturbed: Facts) -> None:
    listener = Listener(tasks)
    assert train(executor, listener) == undisturbed
    assert listener.epochs == {position: list(range(1, EPOCHS + 1)) for position in (0, 1)}
    assert len(executor.pids) == 2
    assert not listener.notes


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_at_most_an_epoch(
    executor: Watched, tasks: list[Task], undisturbed: Facts
) -> None:
    def kill(position: int, epoch: int) -> None:
        if (position, epoch) == (0, 1):
            os.kill(executor.pid_of(position), signal.SIGKILL)

    listener = Listener(tasks, kill)
    assert train(executor, listener) == undisturbed
    assert listener.epochs == {position: list(range(1, EPOCHS + 1)) for position in (0, 1)}
    (note,) = listener.notes
    assert f"{tasks[0].trial.key}: the worker (process " in note
    assert "died, WorkerCrashedError: The worker died unexpectedly while executing this task (see " in note


def rest() -> None:
    time.sleep(100)


@pytest.mark.slow
def test_what_a_signal_raises_comes_out_of_a_call_of_rays_as_it_is(cluster: Cluster) -> None:
    def interrupt(number: int, frame: object) -> NoReturn:
        raise InterruptedError("by the test")

    before = signal.signal(signal.SIGALRM, interrupt)
    answer = ray.remote(rest).remote()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(InterruptedError, match="by the test"), ray_cluster.interruptible():
            ray.wait([answer], timeout=2)
    finally:
        signal.signal(signal.SIGALRM, before)
        ray.cancel(answer, force=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"strategy": "distill"}, UsageError, "needs a teacher"),
        ({"weights": "nowhere.safetensors"}, WeightsError, "does not have the weights"),
    ],
)
def test_what_the_user_must_mend_is_raised_as_it_is(
    executor: Watched, tasks: list[Task], change: dict[str, Any], error: type[Exception], said: str
) -> None:
    task = replace(tasks[0], trial=replace(tasks[0].trial, **change))
    with pytest.raises(error, match=said) as raised:
        list(executor.run([task], report=lambda position, progress: None))
    assert type(raised.value) is error


@pytest.mark.slow
def test_a_node_without_the_files_is_named(executor: Watched, tasks: list[Task], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"node \S+ does not see the pixel cache .*{tmp_path.name}"):
        list(executor.run([replace(tasks[0], cache=str(tmp_path / "none"))], report=lambda position, progress: None))


@pytest.mark.slow
def test_without_a_gpu_there_is_none(executor: Watched, tasks: list[Task]) -> None:
    assert executor.find_device("auto").type == "cpu"
    with pytest.raises(TargetUnavailableError, match="no node of the Ray cluster has a GPU"):
        executor.find_device("cuda")
    with pytest.raises(TargetUnavailableError, match="no node of the Ray cluster has a GPU and a CPU"):
        list(executor.run([replace(tasks[0], device="cuda")], report=lambda position, progress: None))
    with pytest.raises(UsageError, match="Ray chooses which GPU"):
        RayExecutor.open(Where(device="cuda:1"))
    with pytest.raises(UsageError, match="leave it out with --executor ray"):
        RayExecutor.open(Where(gpus=(0, 1)))


@pytest.mark.parametrize(
    ("address", "error"),
    [("127.0.0.1:1", TargetUnavailableError), ("ray://127.0.0.1:1", UsageError), ("here", UsageError)],
)
def test_an_address_where_nothing_answers_is_refused(address: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=address):
        RayExecutor(address=address)


def test_more_than_any_node_has_is_asked_of_the_largest() -> None:
    small, large = {"CPU": 8.0, "memory": 10.0}, {"CPU": 2.0, "memory": 50.0, "GPU": 1.0}
    fit = ray_cluster.fit_request
    assert fit({"CPU": 4, "memory": 5}, [small, large]) == {"CPU": 4, "memory": 5}
    assert fit({"CPU": 4, "memory": 20}, [small, large]) == {"CPU": 2, "memory": 20}
    assert fit({"CPU": 1, "memory": 99}, [small, large]) == {"CPU": 1, "memory": 50}
    assert fit({"CPU": 4, "GPU": 1}, [small, large]) == {"CPU": 2, "GPU": 1}
    with pytest.raises(TargetUnavailableError, match="has a CPU"):
        fit({"CPU": 1}, [{"memory": 10.0}])


@pytest.mark.slow
def test_closing_leaves_no_worker(executor: Watched, tasks: list[Task]) -> None:
    long = [replace(one, trial=replace(one.trial, train=replace(one.trial.train, epochs=100))) for one in tasks]

    def stop(position: int, progress: Progress) -> None:
        executor.pids = {sent.started.pid for sent in executor.now.values() if sent.started}
        if len(executor.pids) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        list(executor.run(long, report=stop))
    wait_for_end(executor.pids)


def divide() -> float:
    return 1 / 0


@pytest.mark.slow
def test_an_error_of_our_own_fails_the_trial_with_its_traceback_in_the_log(cluster: Cluster, tasks: list[Task]) -> None:
    log = log_path(tasks[0])
    log.parent.mkdir(parents=True)
    sent = _Sent(0, tasks[0], 0, {}, ray.remote(divide).remote(), Started(host="here", pid=7))
    outcome = _collect(sent).outcome
    assert isinstance(outcome, TrialFailure)
    assert outcome.kind == "error"
    assert (
        outcome.reason == f"the worker (process 7 on node here) failed: ZeroDivisionError: division by zero (see {log})"
    )
    assert "in divide" in log.read_text()
    sent.started = None
    with pytest.raises(TargetUnavailableError, match=r"cannot run ttl-deploy .*ZeroDivisionError"):
        _collect(sent)


ALONE = """
import os, signal
from ttl_deploy.search.executors.ray_executor import RayExecutor
import ray

def end():
    print("never seen")
    os.kill(os.getpid(), signal.SIGKILL)

before = signal.getsignal(signal.SIGTERM)
executor = RayExecutor(workers=2)
assert signal.getsignal(signal.SIGTERM) is before
assert ray.cluster_resources()["CPU"] == 2
try:
    ray.get(ray.remote(end).options(max_retries=0).remote())
except ray.exceptions.WorkerCrashedError:
    print(ray.get_runtime_context().gcs_address)
executor.close()
assert not ray.is_initialized()
"""


@pytest.mark.slow
def test_a_cluster_of_its_own_is_quiet_and_ends_with_the_executor() -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (address,) = done.stdout.split()
    with pytest.raises(TargetUnavailableError, match="nothing answers"):
        RayExecutor(address=address)


@pytest.mark.slow
def test_the_tasks_of_a_node_that_dies_go_to_another(
    executor: Watched, cluster: Cluster, tasks: list[Task], undisturbed: Facts
) -> None:
    """Each node has room for one task; the second is lost in the middle of its own, and stays lost: comes last."""
    lost = cluster.worker_nodes.copy().pop()
    (raylet,) = lost.all_processes["raylet"]

    def lose_node(position: int, epoch: int) -> None:
        if epoch == 1 and parent_of(executor.pid_of(position)) == raylet.process.pid:
            cluster.remove_node(lost, allow_graceful=False)

    listener = Listener(tasks, lose_node)
    assert train(executor, listener) == undisturbed
    assert listener.epochs == {position: list(range(1, EPOCHS + 1)) for position in (0, 1)}
    (note,) = listener.notes
    assert "died, NodeDiedError" in note
