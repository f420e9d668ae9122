"""A third party's target that breaks as its model file's text says: `open segfault`, `run nan`, or `well`."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from ttl_deploy.errors import ArtifactError


class _UnpicklableError(Exception):
    def __reduce__(self):
        raise TypeError("not to be sent")


def _hold_the_interpreter():
    """Hang in native code without letting any other Python thread run, as a compiler does."""
    ctypes.PyDLL(None).pause()


def _raise(error):
    raise error


FAULTS = {
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "illegal": lambda: os.kill(os.getpid(), signal.SIGILL),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
    "quiet-exit": lambda: sys.exit(0),
    "hang": lambda: time.sleep(600),
    "native-hang": _hold_the_interpreter,
    "hang-up": lambda: os.closerange(3, 64),
    "raise": lambda: _raise(RuntimeError("the plug-in is of another version")),
    "odd-raise": lambda: _raise(_UnpicklableError("odd")),
    "refuse": lambda: _raise(ArtifactError("model.txt is of another version")),
}
ANSWERS = {
    "nan": lambda n: np.full((n, 2), np.nan, np.float32),
    "infinity": lambda n: np.full((n, 2), np.inf, np.float32),
    "too-few": lambda n: np.zeros((n - 1, 2), np.float32),
    "flat": lambda n: np.zeros(2 * n, np.float32),
    "nothing": lambda n: None,
}


class FaultySession:
    runtime = "faulty 1.0"
    precision = "fp32"
    layers = {"fp32": 1}  # noqa: RUF012  # the Session protocol has it on the instance

    def __init__(self, fault):
        self.fault = fault

    def run(self, images):
        if self.fault in FAULTS:
            FAULTS[self.fault]()
        answer = ANSWERS.get(self.fault, lambda n: np.full((n, 2), 0.5, np.float32))
        return answer(len(images))


class FaultyTarget:
    runtime = "faulty 1.0"

    def precisions(self):
        return ("fp32",)

    def build(self, model: Path, folder: Path) -> Path:
        return model

    def open(self, model: Path, *, threads: int, precision: str | None = None):
        moment, _, fault = model.read_text().partition(" ")
        if moment == "open":
            FAULTS[fault]()
        return FaultySession(fault)
