"""Which cores a measured process runs on, and the variables that keep its libraries to as many threads."""

import os
import time
from pathlib import Path

from ttl_deploy.runtime.contention import read_ticks

_CPUS = Path("/sys/devices/system/cpu")
_LOOK_S = 0.3


def choose_cores(count: int, *, look_s: float = _LOOK_S, cpus: Path = _CPUS) -> tuple[int, ...]:
    """Return the `count` fastest cores that this process may use and that are least busy now, sorted.

    Empty where the system cannot pin a process, or has fewer cores than asked for.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < count:
        return ()
    busy = _look_how_busy(look_s)
    best = sorted(usable, key=lambda core: (-_top_speed(core, cpus), busy.get(core, 0.0), core))
    return tuple(sorted(best[:count]))


def pin(cores: tuple[int, ...]) -> None:
    """Keep this process, and threads it starts from now on, to these cores; none given means all."""
    if cores:
        os.sched_setaffinity(0, cores)


def limit_threads(threads: int) -> dict[str, str]:
    """Return the variables by which maths libraries learn how many threads they may use."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    return {name: str(threads) for name in names}


def _look_how_busy(look_s: float) -> dict[int, float]:
    """Return for each core the share of the next `look_s` seconds it is busy."""
    before = read_ticks()
    time.sleep(look_s)
    after = read_ticks()
    busy = {}
    for name, ticks in after.items():
        if name != "cpu" and name in before and ticks.total_s > before[name].total_s:
            span = ticks.total_s - before[name].total_s
            busy[int(name.removeprefix("cpu"))] = (ticks.busy_s - before[name].busy_s) / span
    return busy


def _top_speed(core: int, cpus: Path) -> int:
    """Return a core's highest clock in kHz: large and small cores differ; 0 where the system does not say."""
    try:
        return int((cpus / f"cpu{core}" / "cpufreq" / "cpuinfo_max_freq").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
