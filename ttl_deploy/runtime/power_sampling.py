"""Power read again and again while something runs, and added up into energy."""

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ttl_deploy.runtime.power_rails import Rail, parse_tegrastats

EVERY_S = 0.1
_END_S = 5.0


class PowerSum:
    """Adds up readings of power (W) into energy (J) by rail, from `began_s` until `end`, by the trapezoidal rule.

    Before the first reading and after the last one the power is taken to be that of the nearest.
    """

    def __init__(self, *, began_s: float) -> None:
        self.began_s = began_s
        self.joules: dict[str, float] = {}
        self.readings: Counter[str] = Counter()
        self._last: dict[str, tuple[float, float]] = {}

    def add(self, at_s: float, watts: Mapping[str, float]) -> None:
        """Take one reading; a rail that is missing from it is bridged by its next one."""
        for name, now_w in watts.items():
            last_s, last_w = self._last.get(name, (self.began_s, now_w))
            self.joules[name] = self.joules.get(name, 0.0) + (last_w + now_w) / 2 * (at_s - last_s)
            self._last[name] = (at_s, now_w)
            self.readings[name] += 1

    def end(self, at_s: float) -> None:
        """Let the last readings count until now."""
        for name, (last_s, last_w) in self._last.items():
            self.joules[name] += last_w * (at_s - last_s)


@contextmanager
def sample_power(rails: Sequence[Rail], tegrastats: Sequence[str], sum_up: PowerSum) -> Iterator[None]:
    """Read power in a thread while this is open: from rails, else from a command that prints lines; else nothing."""
    if rails:
        with _sampled_rails(rails, sum_up):
            yield
    elif tegrastats:
        with _read_lines(tegrastats, sum_up):
            yield
    else:
        yield


@contextmanager
def _sampled_rails(rails: Sequence[Rail], sum_up: PowerSum) -> Iterator[None]:
    """Read rails at the begin, at the end, and ten times a second in between."""
    stop = threading.Event()
    thread = threading.Thread(target=_sample_rails, args=(rails, sum_up, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _sample_rails(rails: Sequence[Rail], sum_up: PowerSum, stop: threading.Event) -> None:
    _read_rails(rails, sum_up)
    while not stop.wait(EVERY_S):
        _read_rails(rails, sum_up)
    _read_rails(rails, sum_up)


def _read_rails(rails: Sequence[Rail], sum_up: PowerSum) -> None:
    for rail in rails:
        try:
            watts = rail.read_w()
        except (OSError, ValueError):  # the chip did not answer this time; the next reading bridges it
            continue
        sum_up.add(time.perf_counter(), {rail.name: watts})


@contextmanager
def _read_lines(command: Sequence[str], sum_up: PowerSum) -> Iterator[None]:
    """Read what `tegrastats` prints, line by line, until this is closed."""
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, errors="replace"
    ) as child:
        thread = threading.Thread(target=_sum_up_lines, args=(child, sum_up), daemon=True)
        thread.start()
        try:
            yield
        finally:
            child.terminate()
            try:
                child.wait(_END_S)
            except subprocess.TimeoutExpired:
                child.kill()
            thread.join()


def _sum_up_lines(child: "subprocess.Popen[str]", sum_up: PowerSum) -> None:
    for line in child.stdout or ():
        sum_up.add(time.perf_counter(), parse_tegrastats(line))
