"""What runs on the nodes of a Ray cluster: one task, after a look whether the node has what it needs."""

import os
import pickle
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ttl_deploy import __version__
from ttl_deploy.data.cache import PixelCache
from ttl_deploy.errors import StorageError, TargetUnavailableError, TtlDeployError, WeightsError
from ttl_deploy.files import make_folder, sha256_file
from ttl_deploy.models.weights.source import find_weights
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.executors.worker import Refusal, do_task, log_path, redirect_output
from ttl_deploy.search.tasks import Outcome, Task
from ttl_deploy.training.devices import keep_freed_memory

if TYPE_CHECKING:
    from ray.util.queue import Queue

_SHARED = "run folder, cache and weights must lie where all nodes see them under the same path (docs/cluster.md)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A worker has taken a task up: the first thing it says."""

    host: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A task for a node, and what the coordinator goes by: its folder, its versions, its manifest's hash.

    What is said about the task bears its `number`, which no other order of this executor has.
    """

    number: int
    task: Task
    folder: str
    versions: Mapping[str, str]
    manifest: str


def versions_here() -> Mapping[str, str]:
    """Return the versions that must be the same on all nodes: those that decide results."""
    return {"ttl-deploy": __version__, "torch": version("torch"), "torchvision": version("torchvision")}


def manifest_hash(run: Path) -> str:
    """Return the hash of the manifest in a run folder: two folders with the same one are taken for the same."""
    return sha256_file(RunFolder(run).data / "manifest.csv")


def carry_out(order: Order, mailbox: "Queue") -> Outcome | Refusal | None:
    """Do the task of an order in this process of Ray's, telling the mailbox how it gets on.

    Everything is put into the mailbox before this returns, as bytes: the mailbox knows neither torch nor us.
    """

    def send(message: object) -> None:
        mailbox.put(pickle.dumps((order.number, message)))

    send(Started(host=socket.gethostname(), pid=os.getpid()))
    try:
        check_node(order)
    except TtlDeployError as error:
        return Refusal.of(error)
    make_folder(log_path(order.task).parent)
    redirect_output(log_path(order.task))
    keep_freed_memory()
    return do_task(order.task, send)


def check_node(order: Order) -> None:
    """Refuse a node with other versions than the coordinator's, or without its files.

    Raises `TargetUnavailableError`, `StorageError` or `WeightsError`, which name the node.
    """
    host, task = socket.gethostname(), order.task
    for package, wanted in order.versions.items():
        found = versions_here()[package]
        if found != wanted:
            raise TargetUnavailableError(
                f"node {host} has {package} {found}, the coordinator {wanted}: install the same versions on all nodes"
            )
    run = Path(task.run)
    if not (RunFolder(run).data / "manifest.csv").is_file() or manifest_hash(run) != order.manifest:
        raise StorageError(f"node {host} does not see the run folder {run} (or another one): {_SHARED}")
    try:
        PixelCache.load(Path(task.cache))
    except StorageError as error:
        raise StorageError(f"node {host} does not see the pixel cache ({error}): {_SHARED}") from error
    if Path(order.folder).is_dir():
        os.chdir(order.folder)  # paths of weights, and the user's own networks, may start from there
    if task.kind != "test":  # a test loads what was trained
        try:
            find_weights(task.trial.weights, task.trial.model.backbone)
        except WeightsError as error:
            raise WeightsError(f"node {host} does not have the weights ({error}): {_SHARED}") from error
