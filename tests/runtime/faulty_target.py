"""A third party's target that breaks as its model file's text says: `open segfault`, `run nan`, or `well`.

Where the file is a real one, the target's name says it: `run_segfault` is made by the module for whoever asks for
it. Moments are `build` (the target itself is made), `open`, `run` and `fiftieth` (the fiftieth call).
"""

import ctypes
import functools
import mmap
import os
import re
import resource
import signal
import sys
import tempfile
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


def _backtrack():
    """Keep a core busy in a native loop for longer than anyone waits: 2^60 ways to match."""
    re.match("(a+)+b", "a" * 60)


def _new(size):
    """Ask C++ for memory; std::bad_alloc, which nobody catches, ends the process."""
    allocate = ctypes.CDLL("libstdc++.so.6")._Znwm
    allocate.argtypes, allocate.restype = [ctypes.c_size_t], ctypes.c_void_p
    allocate(size)


def _limited(allocate):
    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
    allocate(2**36)


def _read_past_the_file():
    with tempfile.TemporaryFile() as file:
        file.truncate(mmap.PAGESIZE)
        pages = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        file.truncate(0)
        pages[0]


def _free_twice():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    memory = ctypes.c_void_p(libc.malloc(64))
    for _ in range(2):
        libc.free(memory)


FAULTS = {
    "segfault": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "illegal": lambda: os.kill(os.getpid(), signal.SIGILL),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
    "quiet-exit": lambda: sys.exit(0),
    "bad-alloc": lambda: _new(2**62),
    "memory-limit": lambda: _limited(lambda size: np.ones(size, np.uint8)),
    "memory-limit-cpp": lambda: _limited(_new),
    "bus": _read_past_the_file,
    "free-twice": _free_twice,
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "busy-hang": _backtrack,
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

    def __init__(self, fault, calls=1):
        self.fault, self.calls_left = fault, calls

    def run(self, images):
        self.calls_left -= 1
        if self.fault in FAULTS and self.calls_left <= 0:
            FAULTS[self.fault]()
        answer = ANSWERS.get(self.fault, lambda n: np.full((n, 2), 0.5, np.float32))
        return answer(len(images))


class FaultyTarget:
    runtime = "faulty 1.0"

    def __init__(self, told=None):
        self.told = told
        self._break_at("build")

    def precisions(self):
        return ("fp32",)

    def build(self, model: Path, folder: Path) -> Path:
        return model

    def open(self, model: Path, *, threads: int, precision: str | None = None):
        self.told = self.told or model.read_text()
        self._break_at("open")
        moment, _, fault = self.told.partition(" ")
        return FaultySession(fault, calls=50 if moment == "fiftieth" else 1)

    def _break_at(self, moment):
        if self.told and self.told.startswith(f"{moment} "):
            FAULTS[self.told.partition(" ")[2]]()


def __getattr__(name):
    """Make the target `open_bad_alloc`, which breaks by `bad-alloc` when it opens a file."""
    moment, _, fault = name.partition("_")
    if fault.replace("_", "-") not in FAULTS:
        raise AttributeError(name)
    return functools.partial(FaultyTarget, f"{moment} {fault.replace('_', '-')}")
