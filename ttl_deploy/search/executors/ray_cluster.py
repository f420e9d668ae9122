"""The connection with a Ray cluster, and what its nodes have."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

# Ray reads these when it is imported: nothing about its use is sent away, and what it has to say of its
# processes, which it prints to standard output, is dropped; the executor tells what matters in its own words.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".?")

import ray

from ttl_deploy.errors import TargetUnavailableError, UsageError
from ttl_deploy.processes import Finished, TimedOut, run_isolated
from ttl_deploy.runtime.machine import usable_cores

Resources = Mapping[str, float]
"""Amounts by Ray's names: CPU, GPU, memory (bytes)."""
_STORE_BYTES = 100 * 2**20
"""Memory of a local cluster's object store, Ray's smallest but for a little: only descriptions go through it."""
_ANSWER_S = 5.0
_CONNECT_S = 45.0
_HOW = "start a cluster with `ray start --head` and give its address, or --address local (docs/cluster.md)"
_TOKEN = "it wants a token: copy ~/.ray/auth_token of its head to this machine and set RAY_AUTH_MODE=token"
_KINDS = "--address takes auto, local, or HOST:PORT of a cluster's head"


def connect(address: str | None, *, workers: int | None) -> bool:
    """Connect this process with a cluster; returns whether `disconnect` is ours to call.

    None and `local` start a cluster of this machine with `workers` CPUs, by default all; `auto` finds the one
    that this machine is a node of. A connection that the process already has is used as it is. Raises
    `UsageError` for an address that is none, and `TargetUnavailableError` where nothing answers.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    if address not in (None, "auto", "local"):
        _check_address(address)
    if ray.is_initialized():
        return False
    if address in (None, "local"):
        _initialise("local", num_cpus=workers or usable_cores(), object_store_memory=_STORE_BYTES)
    else:
        _join(address)
    return True


def disconnect() -> None:
    """End the connection; a cluster that `connect` has started ends with it."""
    ray.shutdown()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let what a signal's handler raises during a call of Ray's come out as itself: Ray's native code wraps it."""
    try:
        yield
    except SystemError as error:
        raise (error.__cause__ or error) from None


def find_nodes() -> tuple[Resources, ...]:
    """Return what each node that is alive has."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call] # Ray has left it without types
    return tuple(node["Resources"] for node in nodes if node["Alive"])


def has(node: Resources, request: Resources) -> bool:
    """Tell whether a node has what is asked for, were it idle."""
    return all(node.get(name, 0) >= amount for name, amount in request.items())


def fit_request(wanted: Resources, nodes: Sequence[Resources]) -> Resources:
    """Return a request that some node can meet: `wanted`, or as much of it as the largest node has.

    Ray would wait for ever for what no node has. CPUs and memory can be had in part, a GPU cannot: raises
    `TargetUnavailableError` where no node has one.
    """
    able = [node for node in nodes if node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= wanted.get("GPU", 0)]
    if not able:
        what = "a GPU and a CPU" if wanted.get("GPU", 0) else "a CPU"
        raise TargetUnavailableError(f"no node of the Ray cluster has {what} ({len(nodes)} alive): add one that has")
    if any(has(node, wanted) for node in able):
        return wanted
    largest = max(able, key=lambda node: (node.get("memory", 0), node["CPU"]))
    return {name: min(amount, largest.get(name, 0)) for name, amount in wanted.items()}


def _check_address(address: str) -> None:
    """Refuse an address where nothing listens, which Ray would try for long."""
    if "://" in address:
        raise UsageError(f"--address {address!r} is not possible: {_KINDS}; run the search on a node of the cluster")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UsageError(f"--address {address!r} is no address: {_KINDS}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except OSError as error:
        raise TargetUnavailableError(f"nothing answers at --address {address!r} ({error}): {_HOW}") from error


def _join(address: str) -> None:
    """Connect with a running cluster; a child process tries it first, since Ray has no time limit of its own."""
    tried = run_isolated(_call_ray, address, timeout_s=_CONNECT_S)
    if not isinstance(tried, Finished):
        remedy = _TOKEN if "InvalidAuthToken" in tried.log_tail else _HOW
        said = tried.reason if isinstance(tried, TimedOut) else tried.log_tail.rpartition("\n")[2]
        raise TargetUnavailableError(f"no connection with the Ray cluster {address!r} ({said}): {remedy}")
    _initialise(address)


def _initialise(address: str, **options: Any) -> None:
    """Connect this process; raises `TargetUnavailableError` with Ray's reason."""
    try:
        with _own_signals(), interruptible():
            _call_ray(address, **options)
    except (RuntimeError, OSError) as error:
        ray.shutdown()
        reason = str(error).strip().partition("\n")[0]
        raise TargetUnavailableError(f"Ray does not work here, with the address {address!r}: {reason}") from error


def _call_ray(address: str, **options: Any) -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)
    ray.init(address, include_dashboard=False, log_to_driver=False, configure_logging=False, **options)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what SIGTERM does here: Ray puts a handler of its own in its place."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
