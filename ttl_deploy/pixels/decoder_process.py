"""A process in which native codecs decode, so that a crash, a hang or a flood of memory costs one file only.

One per thread that needs it, a fresh interpreter that lives as long as its thread: many files cost
one start. It is sent coded pixels and numbers, never a header's texts.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import weakref
from multiprocessing.connection import Connection, Pipe
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.pixels.dicom_codecs import CodedFrame, decode_frame
from ttl_deploy.pixels.dicom_tables import DicomFaultError
from ttl_deploy.pixels.limits import DECODER_ERRORS
from ttl_deploy.processes import Crashed, TimedOut, die_with_parent, end_child

_START_S = 120.0
_GIVE_UP_S = 5.0
_MEMORY_BYTES = 6 << 30
_PRELUDE = (
    "import sys; from multiprocessing.connection import Connection; "
    "line = Connection(int(sys.argv[1])); sys.path[:] = line.recv(); "
    "from ttl_deploy.pixels.decoder_process import serve; serve(line, int(sys.argv[2]))"
)
_OF_THREAD = threading.local()


def decode_apart(frame: CodedFrame, *, timeout_s: float) -> NDArray[np.integer]:
    """Decode in this thread's own process; raises `DicomFaultError` where it refuses, crashes or takes too long."""
    process: DecoderProcess | None = getattr(_OF_THREAD, "process", None)
    if process is None or not process.usable:
        process = _OF_THREAD.process = DecoderProcess()
    return process.decode(frame, timeout_s=timeout_s)


class DecoderProcess:
    """The parent's end."""

    def __init__(self) -> None:
        self._line, far_end = Pipe()
        self._owner = os.getpid()
        self._waiting = False
        with far_end:
            self._child = subprocess.Popen(
                [sys.executable, "-c", _PRELUDE, str(far_end.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(far_end.fileno(),),
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self._close = weakref.finalize(self, _end, self._child, self._line, self._owner)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # told of when the first answer is missing
            self._line.send(sys.path)
        self._ask(timeout_s=_START_S)

    @property
    def usable(self) -> bool:
        """Whether the process lives and is this process's own, not that of one it was forked from.

        One whose answer was not waited for, because of an interrupt, is not: it would come as the next file's.
        """
        mine = self._owner == os.getpid() and not self._waiting
        return mine and self._close.alive and self._child.poll() is None

    def decode(self, frame: CodedFrame, *, timeout_s: float) -> NDArray[np.integer]:
        """Have a frame decoded; after a crash or at the timeout the process is not `usable` any more."""
        self._waiting = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._line.send(frame)
        kind, value = self._ask(timeout_s=timeout_s)
        self._waiting = False
        if kind == "refused":
            raise DicomFaultError(f"its pixels do not decode: {value}")
        decoded: NDArray[np.integer] = value
        return decoded

    def _ask(self, *, timeout_s: float) -> tuple[str, Any]:
        try:
            if self._line.poll(timeout_s):
                answer: tuple[str, Any] = self._line.recv()
                return answer
            outcome: TimedOut | Crashed = TimedOut(after_s=timeout_s)
        except (EOFError, OSError, pickle.UnpicklingError):
            outcome = self._crash()
        self._close()
        raise DicomFaultError(f"its pixels do not decode: the decoder's process {outcome.reason}")

    def _crash(self) -> Crashed:
        try:
            code = self._child.wait(_GIVE_UP_S)
        except subprocess.TimeoutExpired:
            code = 0
        return Crashed(signal_number=-code if code < 0 else None, exit_code=code if code >= 0 else None, log_tail="")


def _end(child: "subprocess.Popen[bytes]", line: "Connection[Any, Any]", owner: int) -> None:
    if owner == os.getpid():
        line.close()
        end_child(child)


def serve(line: "Connection[Any, Any]", parent_pid: int) -> NoReturn:
    """Be the child: decode frames until the other end hangs up."""
    die_with_parent(parent_pid)
    _limit_memory()
    import warnings

    import pydicom.pixels  # noqa: F401  # before the first frame, whose time is limited

    warnings.simplefilter("ignore")
    line.send(("ready", None))
    with contextlib.suppress(EOFError):
        while True:
            line.send(_answer(line.recv()))
    os._exit(0)


def _answer(frame: CodedFrame) -> tuple[str, Any]:
    try:
        return "decoded", decode_frame(frame)
    except DECODER_ERRORS as error:
        return "refused", " ".join((str(error) or type(error).__name__).split())


def _limit_memory() -> None:
    """Make what would fill the machine's memory a `MemoryError` here."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has none
        return
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some limits
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
