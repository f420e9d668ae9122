"""The Ray executor: tasks on the nodes of a cluster. Ray chooses the node and tells of workers that died."""

import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Self

import torch

from ttl_deploy.errors import TargetUnavailableError, TtlDeployError, UsageError
from ttl_deploy.search.executors import Done, Where, ray_cluster
from ttl_deploy.search.executors.memory import UNKNOWN_BYTES
from ttl_deploy.search.executors.ray_cluster import Resources, interruptible
from ttl_deploy.search.executors.ray_worker import Order, Started, carry_out, manifest_hash, versions_here
from ttl_deploy.search.executors.worker import Refusal, describe_death, log_path
from ttl_deploy.search.tasks import Task, failure
from ttl_deploy.training.loop import Progress, TrialError

# After our own modules: ray_cluster makes settings that Ray reads when it is imported.
import ray  # isort: skip # see above
from ray.exceptions import RayError, RayTaskError  # isort: skip # see above
from ray.util.queue import Queue  # isort: skip # see above
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # isort: skip # see above

_LOOK_EVERY_S = 0.2
_CHECK_EVERY_S = 5.0
_PATIENCE_S = 10.0


@dataclass(slots=True)
class _Sent:
    """A task that was handed to Ray; `started` says who does it, None while it waits for a node."""

    position: int
    task: Task
    number: int
    request: Resources
    answer: "ray.ObjectRef[Any]"
    started: Started | None = None


class RayExecutor:
    """Runs tasks on a Ray cluster, at most `workers` at a time, by default as many as it has room for.

    `address` is what `ray_cluster.connect` takes. A task asks for as many CPUs as its trial has threads, for a
    GPU of its own where its device is one, otherwise for its estimated memory. A worker or a node that dies is
    a crash of its task; Ray itself repeats nothing.
    """

    def __init__(self, *, address: str | None = None, workers: int | None = None) -> None:
        self.workers = workers
        self._connected_here = ray_cluster.connect(address, workers=workers)
        self._numbers = count()
        self._mailbox: Queue | None = None

    @classmethod
    def open(cls, where: Where) -> tuple[Self, torch.device]:
        """Connect with a cluster; returns the executor, and the kind of device that tasks run on there."""
        if where.gpus:
            raise UsageError("--gpus is for this machine alone: leave it out with --executor ray, which finds all GPUs")
        executor = cls(address=where.address, workers=where.workers)
        try:
            return executor, executor.find_device(where.device)
        except TtlDeployError:
            executor.close()
            raise

    def find_device(self, wanted: str) -> torch.device:
        """Return the kind of device that tasks run on for `auto`, `cpu` or `cuda`: a GPU, where some node has one.

        Raises `TargetUnavailableError` where no node has what is wanted.
        """
        has_gpu = any(node.get("GPU", 0) >= 1 for node in ray_cluster.find_nodes())
        if wanted == "auto":
            return torch.device("cuda" if has_gpu else "cpu")
        if wanted not in ("cpu", "cuda"):
            raise UsageError(f"--device {wanted!r} with a Ray cluster: use auto, cpu or cuda; Ray chooses which GPU")
        if wanted == "cuda" and not has_gpu:
            raise TargetUnavailableError("no node of the Ray cluster has a GPU: add one that has, or use --device cpu")
        return torch.device(wanted)

    def run(self, tasks: Sequence[Task], *, report: Callable[[int, Progress], None]) -> Iterator[Done]:
        """Hand the tasks to Ray in order; yield outcomes as they come, a task's progress before its outcome."""
        waiting, running = deque(enumerate(tasks)), dict[int, _Sent]()
        checked_s = time.monotonic()
        try:
            while waiting or running:
                while waiting and (self.workers is None or len(running) < self.workers):
                    sent = self._send(*waiting.popleft())
                    running[sent.number] = sent
                ended = self._look(running, report)
                for sent in ended:
                    del running[sent.number]
                    yield _collect(sent)
                if time.monotonic() - checked_s > _CHECK_EVERY_S:
                    _check_possible(running.values())
                    checked_s = time.monotonic()
                if not ended:
                    time.sleep(_LOOK_EVERY_S)  # not in ray.wait, which a signal does not end
        finally:
            _cancel([sent.answer for sent in running.values()])

    def close(self) -> None:
        """End the connection, and the cluster if it was started here."""
        if self._mailbox is not None:
            self._mailbox.shutdown(force=True)
            self._mailbox = None
        if self._connected_here:
            ray_cluster.disconnect()
            self._connected_here = False

    @interruptible()
    def _send(self, position: int, task: Task) -> _Sent:
        if self._mailbox is None:
            self._mailbox = _open_mailbox()
        order = _make_order(next(self._numbers), task)
        request = ray_cluster.fit_request(_request(order.task), ray_cluster.find_nodes())
        answer = _remote(request).remote(order, self._mailbox)
        return _Sent(position, order.task, order.number, request, answer)

    @interruptible()
    def _look(self, running: Mapping[int, _Sent], report: Callable[[int, Progress], None]) -> list[_Sent]:
        """Return the tasks that have ended, after what was told until then."""
        answers = [sent.answer for sent in running.values()]
        ready, _ = ray.wait(answers, num_returns=len(answers), timeout=0)
        self._deliver(running, report)
        return [sent for sent in running.values() if sent.answer in ready]

    def _deliver(self, running: Mapping[int, _Sent], report: Callable[[int, Progress], None]) -> None:
        """Take what lies in the mailbox; what is from tasks that were stopped is dropped."""
        assert self._mailbox is not None
        for letter in self._mailbox.get_nowait_batch(self._mailbox.qsize()):
            number, message = pickle.loads(letter)
            if number in running and isinstance(message, Started):
                running[number].started = message
            elif number in running:
                report(running[number].position, message)


def _open_mailbox() -> Queue:
    """Open a mailbox on the coordinator's node, with which everything ends anyway."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def _make_order(number: int, task: Task) -> Order:
    """Describe a task so that it means the same on every node."""
    run = Path(task.run).resolve()
    device = torch.device(task.device).type  # a worker sees nothing but the GPU that Ray gives it
    return Order(
        number=number,
        task=replace(task, run=str(run), cache=str(Path(task.cache).resolve()), device=device),
        folder=str(Path.cwd()),
        versions=versions_here(),
        manifest=manifest_hash(run),
    )


def _request(task: Task) -> Resources:
    cpus = {"CPU": float(task.trial.train.threads)}
    if task.device == "cuda":
        return cpus | {"GPU": 1.0}
    return cpus | ({"memory": float(task.memory_bytes)} if 0 < task.memory_bytes < UNKNOWN_BYTES else {})


def _remote(request: Resources) -> Any:
    """Return `carry_out` as a function of Ray's that asks for resources, and is never repeated by Ray."""
    return ray.remote(carry_out).options(
        num_cpus=request["CPU"],
        num_gpus=request.get("GPU", 0.0),
        memory=int(request["memory"]) if "memory" in request else None,
        max_retries=0,
    )


@interruptible()
def _collect(sent: _Sent) -> Done:
    """Return the end of a task; errors the user must mend are raised."""
    fail = partial(failure, sent.task.trial)
    try:
        answer = ray.get(sent.answer)
    except RayTaskError as error:
        reason = str(error).strip().splitlines()[-1]
        if sent.started is None:
            raise TargetUnavailableError(
                f"a node of the Ray cluster cannot run ttl-deploy ({reason}): install it there as it is here"
            ) from error
        with open(log_path(sent.task), "a", encoding="utf-8") as log:
            log.write(f"{error}\n")
        return Done(sent.position, fail(TrialError("error", describe_death(sent.task, _where(sent, "failed")))))
    except RayError as error:
        how = _where(sent, f"died, {type(error).__name__}: {str(error).partition('.')[0].strip()}")
        # The log's last words are Ray's then, a native stack.
        return Done(sent.position, fail(TrialError("crash", f"the worker {how} (see {log_path(sent.task)})")))
    if isinstance(answer, Refusal):
        raise answer.restore()
    return Done(sent.position, answer)


def _where(sent: _Sent, how: str) -> str:
    return f"(process {sent.started.pid} on node {sent.started.host}) {how}" if sent.started else how


@interruptible()
def _check_possible(running: Iterable[_Sent]) -> None:
    """Refuse to wait for what no node has any more, since nodes have died."""
    nodes = ray_cluster.find_nodes()
    for sent in running:
        if sent.started is None and not any(ray_cluster.has(node, sent.request) for node in nodes):
            asked = ", ".join(f"{amount:g} {name}" for name, amount in sent.request.items())
            raise TargetUnavailableError(
                f"no node of the Ray cluster that is left has {asked}, which {sent.task.trial.key} waits for: "
                "start one that has, and give the same command again"
            )


@interruptible()
def _cancel(answers: "Sequence[ray.ObjectRef[Any]]") -> None:
    """Kill what runs, and wait until it is dead."""
    for answer in answers:
        ray.cancel(answer, force=True)
    if answers:
        ray.wait(list(answers), num_returns=len(answers), timeout=_PATIENCE_S)
