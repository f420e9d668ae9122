"""Who else uses the machine while we measure, as the operating system counts it.

Linux counts for every thread how long it waited for a core while ready to run (`/proc/self/task/*/schedstat`,
second number, nanoseconds), and for the whole machine how long cores were busy and how much of that a
hypervisor took away (`/proc/stat`, ticks). Elsewhere only involuntary switches are known.
"""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

from ttl_deploy.records.benchmarks import Contention

_PROC = Path("/proc")
_IDLE, _IOWAIT, _STEAL, _COUNTED = 3, 4, 7, 8
"""Places in a line of `/proc/stat`; the guests' times after the eighth are already part of the first two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """What the cores did so far, in seconds of all of them: together, busy, taken by the hypervisor."""

    total_s: float
    busy_s: float
    steal_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What this process used so far; differences of two are what it used in between."""

    at_s: float
    cpu_s: float
    waited_s: float | None
    switches: int
    machine: Ticks | None


def read_usage(proc: Path = _PROC) -> Usage:
    """Read all counters now."""
    return Usage(
        at_s=time.perf_counter(),
        cpu_s=time.process_time(),
        waited_s=_read_waiting(proc / "self" / "task"),
        switches=resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw,
        machine=read_ticks(proc / "stat").get("cpu"),
    )


def describe_contention(before: Usage, after: Usage, *, kernel_s: float) -> Contention:
    """Say what happened between two readings; `kernel_s` is the time of the fixed matrix product."""
    cpu_s = after.cpu_s - before.cpu_s
    steal, others = _shares(before.machine, after.machine, cpu_s)
    waited = None
    if before.waited_s is not None and after.waited_s is not None:
        waited = max(0.0, after.waited_s - before.waited_s)
    return Contention(
        elapsed_s=after.at_s - before.at_s,
        cpu_s=cpu_s,
        waited_s=waited,
        involuntary_switches=after.switches - before.switches,
        steal_share=steal,
        others_share=others,
        kernel_s=kernel_s,
    )


def read_ticks(stat: Path = _PROC / "stat") -> dict[str, Ticks]:
    """Return what each core did since the machine started, by the names in `/proc/stat`; empty where it is missing."""
    try:
        lines = stat.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {line.split()[0]: _ticks(line.split()[1:]) for line in lines if line.startswith("cpu")}


def _ticks(columns: list[str]) -> Ticks:
    seconds = [int(column) / os.sysconf("SC_CLK_TCK") for column in columns[:_COUNTED]]
    total = sum(seconds)
    return Ticks(total_s=total, busy_s=total - seconds[_IDLE] - seconds[_IOWAIT], steal_s=seconds[_STEAL])


def _shares(before: Ticks | None, after: Ticks | None, cpu_s: float) -> tuple[float | None, float | None]:
    """Return the shares of all cores' time that the hypervisor took and that other programs used."""
    if before is None or after is None or after.total_s <= before.total_s:
        return None, None
    total = after.total_s - before.total_s
    steal = after.steal_s - before.steal_s
    others = after.busy_s - before.busy_s - steal - cpu_s
    return steal / total, min(1.0, max(0.0, others / total))


def _read_waiting(tasks: Path) -> float | None:
    """Return the seconds that all threads alive waited for a core; None where the system does not count them."""
    waited = []
    for task in tasks.glob("*/schedstat"):
        try:
            waited.append(int(task.read_text(encoding="utf-8").split()[1]))
        except (OSError, ValueError, IndexError):  # a thread that ended meanwhile, or a kernel without the counter
            continue
    return sum(waited) / 1e9 if waited else None
