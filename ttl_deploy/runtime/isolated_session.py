"""A session whose model is opened and run in a child process: a runtime that crashes or hangs takes that one only.

A child is a fresh interpreter, as in `processes`, but lives as long as its session. Images and
answers travel by pickle between our own two processes, over a socket pair.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ttl_deploy import plugins
from ttl_deploy.errors import TargetUnavailableError, TtlDeployError
from ttl_deploy.plugins import Session
from ttl_deploy.processes import Crashed, TimedOut, die_with_parent, end_child, pack_error, read_tail, unpack_error
from ttl_deploy.runtime.targets.contract import check_answers

_GIVE_UP_S = 5.0
_PRELUDE = (
    "import sys; from multiprocessing.connection import Connection; "
    "line = Connection(int(sys.argv[1])); sys.path[:] = line.recv(); "
    "from ttl_deploy.runtime.isolated_session import serve; serve(line, int(sys.argv[2]))"
)


class IsolatedSession:
    """A model opened on a target in a child process of its own.

    Attributes:
        runtime, precision, layers: as the session in the child says.
    """

    runtime: str
    precision: str
    layers: Mapping[str, int]

    def __init__(
        self,
        target: str,
        model: Path,
        *,
        threads: int,
        precision: str | None,
        open_timeout_s: float,
        call_timeout_s: float,
    ) -> None:
        """Start the child and open the model there."""
        self._model, self._target, self._call_timeout_s = model, target, call_timeout_s
        self._line, far_end = Pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the child
        with far_end:
            self._child = subprocess.Popen(
                [sys.executable, "-c", _PRELUDE, str(far_end.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(far_end.fileno(),),
                start_new_session=True,
            )
        self.close = weakref.finalize(self, _end, self._child, self._line, self._log)
        """End the child; called by itself when the session is forgotten, and at the end of the process."""
        self._send(sys.path)
        question = (target, model, threads, precision)
        try:
            opened = self._ask(question, doing=f"open {model}", timeout_s=open_timeout_s)
        except TtlDeployError:
            self.close()
            raise
        self.runtime, self.precision, self.layers = opened

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Turn uint8 images `(N, H, W, 3)` into probabilities `(N, classes)`.

        Raises `TargetUnavailableError` where the runtime crashes or hangs, and `ArtifactError` where its
        answer is no row of finite numbers per image.
        """
        told_by = f"{self.runtime}, running {self._model},"
        doing = f"run {len(images)} images through {self._model}"
        answers: NDArray[np.float32] = self._ask(images, doing=doing, timeout_s=self._call_timeout_s)
        check_answers(answers, images=len(images), told_by=told_by)
        return answers

    def _ask(self, question: object, *, doing: str, timeout_s: float) -> Any:
        """Send a question and wait for the answer; raises what the child raises, or says how it died."""
        if not self.close.alive:
            raise TargetUnavailableError(f"{self._target} cannot {doing}: its process has ended. Open the model again")
        try:
            self._send(question)
            if not self._line.poll(timeout_s):
                tail = read_tail(self._log)
                self.close()
                raise self._failure(TimedOut(after_s=timeout_s, log_tail=tail), doing)
            kind, *parts = self._line.recv()
        except (EOFError, OSError, pickle.UnpicklingError):  # it died before, or in the middle of, its answer
            raise self._failure(self._crash(), doing) from None
        if kind == "error":
            raise unpack_error(*parts)
        return parts[0]

    def _send(self, question: object) -> None:
        """Send, unless the child is dead already: why it died is asked for when its answer is missing."""
        try:
            self._line.send(question)
        except (BrokenPipeError, ConnectionResetError):
            return

    def _crash(self) -> Crashed:
        """Say how the child died; one that only hung up is ended."""
        try:
            code = self._child.wait(_GIVE_UP_S)
        except subprocess.TimeoutExpired:
            code = 0
        tail = read_tail(self._log)
        self.close()
        return Crashed(signal_number=-code if code < 0 else None, exit_code=code if code >= 0 else None, log_tail=tail)

    def _failure(self, outcome: Crashed | TimedOut, doing: str) -> TargetUnavailableError:
        tail = f". Its last words:\n{outcome.log_tail}" if outcome.log_tail else ""
        return TargetUnavailableError(
            f"{self._target} cannot {doing}: its process {outcome.reason}. "
            f"Use the target onnxruntime-cpu, or another version of the runtime behind {self._target}{tail}"
        )


def serve(line: "Connection[Any, Any]", parent_pid: int) -> NoReturn:
    """Be the child: open the model that is asked for, then answer until the other end hangs up."""
    die_with_parent(parent_pid)
    target, model, threads, precision = line.recv()
    session: Session | None = None

    def open_model() -> tuple[str, str, dict[str, int]]:
        nonlocal session
        session = plugins.load("targets", target)().open(model, threads=threads, precision=precision)
        return session.runtime, session.precision, dict(session.layers)

    def run_next() -> NDArray[np.float32]:
        assert session is not None
        return np.asarray(session.run(line.recv()), dtype=np.float32)

    _answer(line, open_model)
    with contextlib.suppress(EOFError):  # the other end hung up, or is dead
        while session is not None:
            _answer(line, run_next)
    # Native runtimes have been seen to crash in their own clean-up.
    os._exit(0)


def _answer(line: "Connection[Any, Any]", call: Callable[[], object]) -> None:
    """Send a call's value, or one of our errors; any other exception ends the process with its traceback."""
    try:
        line.send(("value", call()))
    except TtlDeployError as error:
        line.send(("error", *pack_error(error)))


def _end(child: "subprocess.Popen[bytes]", line: "Connection[Any, Any]", log: IO[bytes]) -> None:
    line.close()
    end_child(child)
    log.close()
