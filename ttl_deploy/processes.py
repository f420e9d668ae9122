"""Crash isolation's one owner: call a function in a fresh child process that may crash or hang alone.

The child is a new interpreter, not a fork: no thread pool, no CUDA context and no `__main__` of the
parent's lives on in it. Function, arguments and value travel by pickle between our own two
processes, through unnamed temporary files, so that nothing is left on the disk whoever is killed.
"""

import ctypes
import errno
import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any, Generic, NoReturn, TypeVar

from ttl_deploy.errors import StorageError, TtlDeployError

T = TypeVar("T")
_TAIL_LINES = 30
_TAIL_BYTES = 8_000
_PR_SET_PDEATHSIG = 1
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_WATCH_S = 1.0
_PRELUDE = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from ttl_deploy.processes import serve_call; serve_call(int(sys.argv[1]), int(sys.argv[2]))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Generic[T]):
    """The function returned."""

    value: T


@dataclass(frozen=True, slots=True, kw_only=True)
class Crashed:
    """The child died before it returned: by a signal (then `exit_code` is None), or with an exit code."""

    signal_number: int | None
    exit_code: int | None
    log_tail: str

    @property
    def reason(self) -> str:
        """Say in a few words how the child died."""
        if self.signal_number is None:
            return f"exited with code {self.exit_code}"
        return f"was killed by signal {self.signal_number} ({signal.Signals(self.signal_number).name})"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    """The child was still running after `after_s` seconds and was killed."""

    after_s: float
    log_tail: str = ""

    @property
    def reason(self) -> str:
        """Say in a few words what happened."""
        return f"gave no answer within {self.after_s:g} s"


Outcome = Finished[T] | Crashed | TimedOut


def run_isolated(
    function: Callable[..., T],
    *arguments: object,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> Outcome[T]:
    """Call a module-level function in a fresh child process and say what became of it.

    What the child prints goes to `log_tail` and nowhere else. A `TtlDeployError` raised in the child
    is raised here as it was, and a full disk as `StorageError`; any other exception is a crash with its
    traceback in the tail.
    `environment` adds to the child's variables. The child and what it started die at the timeout,
    at an interrupt of the parent, and when the parent dies.
    """
    _refuse_unreachable(function)
    with tempfile.TemporaryFile() as call, tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as log:
        pickle.dump(sys.path, call)
        pickle.dump((function.__module__, function.__qualname__, arguments), call)
        call.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-c", _PRELUDE, str(answer.fileno()), str(os.getpid())],
            stdin=call,
            stdout=log,
            stderr=log,
            pass_fds=(answer.fileno(),),
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return TimedOut(after_s=timeout_s, log_tail=read_tail(log))
        finally:
            end_child(child)
        return _outcome(code, answer, log)


def value_of(outcome: Outcome[T], *, error: type[TtlDeployError], doing: str) -> T:
    """Return a finished call's value; raises `error` with the reason and the log's end otherwise."""
    if isinstance(outcome, Finished):
        return outcome.value
    tail = f"; its last words:\n{outcome.log_tail}" if outcome.log_tail else ""
    raise error(f"{doing}: the child process {outcome.reason}{tail}")


def die_with_parent(parent_pid: int) -> None:
    """Make this process end at once when the process `parent_pid`, which started it, ends.

    On Linux the kernel does it, and counts the *thread* that started us as the parent: start
    children from a thread that outlives them. Elsewhere a daemon thread watches.
    """
    by_kernel = sys.platform == "linux" and _ask_kernel_to_kill_us()
    if os.getppid() != parent_pid:
        os._exit(1)
    if not by_kernel:
        threading.Thread(target=_watch_parent, args=(parent_pid,), daemon=True).start()


def serve_call(answer_fd: int, parent_pid: int) -> NoReturn:
    """Be the child: read a call from stdin, make it, write the answer, exit."""
    die_with_parent(parent_pid)
    module, name, arguments = pickle.load(sys.stdin.buffer)
    function: Any = importlib.import_module(module)
    for part in name.split("."):
        function = getattr(function, part)
    try:
        answer: tuple[Any, ...] = ("value", function(*arguments))
    except TtlDeployError as error:
        answer = ("error", *pack_error(error))
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        where = f" {error.filename}" if error.filename else ""
        answer = ("error", *pack_error(StorageError(f"cannot write{where}: {error.strerror}. Free some space")))
    with open(answer_fd, "wb") as file:
        pickle.dump(answer, file)
    sys.stdout.flush()
    sys.stderr.flush()
    # Native runtimes have been seen to crash in their own clean-up; the answer is safe by now.
    os._exit(0)


def pack_error(error: TtlDeployError) -> tuple[type[TtlDeployError], tuple[object, ...], dict[str, object]]:
    """Take one of our errors apart for its journey between processes."""
    return type(error), error.args, error.__dict__


def unpack_error(kind: type[TtlDeployError], arguments: tuple[object, ...], state: dict[str, object]) -> TtlDeployError:
    """Put an error together again; constructors, which have a shape of their own each, are not called."""
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


def _refuse_unreachable(function: Callable[..., Any]) -> None:
    """Refuse what the child could not import by name."""
    if function.__module__ == "__main__" or "<" in function.__qualname__:
        raise TypeError(f"{function!r} must be a module-level function of an importable module")


def _outcome(code: int, answer: IO[bytes], log: IO[bytes]) -> Outcome[Any]:
    answer.seek(0)
    content = answer.read()
    if code != 0 or not content:
        died_by = -code if code < 0 else None
        return Crashed(signal_number=died_by, exit_code=None if died_by else code, log_tail=read_tail(log))
    kind, *parts = pickle.loads(content)
    if kind == "value":
        return Finished(value=parts[0])
    raise unpack_error(*parts)


def read_tail(log: IO[bytes]) -> str:
    """Return the last lines of what a child printed."""
    end = log.seek(0, os.SEEK_END)
    log.seek(max(0, end - _TAIL_BYTES))
    lines = log.read().decode(errors="replace").strip().splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


def end_child(child: "subprocess.Popen[bytes]") -> None:
    """Kill the child's whole process group and reap the child."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS says "not permitted" of a group of zombies
        child.kill()
    child.wait()


def _ask_kernel_to_kill_us() -> bool:
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) == 0)
    except (OSError, AttributeError):  # a libc without prctl
        return False


def _watch_parent(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_WATCH_S)
    os._exit(1)
