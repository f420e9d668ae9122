"""Energy counters, where this machine has some that we may read, and energy per image from them.

* Linux powercap (RAPL): `intel-rapl:N/energy_uj`, one per package, microjoules; AMD's processors use the same names.
  It starts anew from 0 at `max_energy_range_uj`. Since 2020 only root may read it.
* NVML: millijoules since the driver was loaded, one per GPU (`nvidia-ml-py`); no Jetson has it.
* A Jetson's power rails: no energy but power, which a thread samples and adds up by the trapezoidal rule. From its
  INA3221 chips ten times a second (on Orin each reading is already an average of up to 0.43 s), or else from
  `tegrastats`.
"""

import importlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ttl_deploy.records.benchmarks import Energy, Timing
from ttl_deploy.runtime.power_rails import Rail, find_rails
from ttl_deploy.runtime.power_sampling import EVERY_S, PowerSum, sample_power
from ttl_deploy.runtime.sysfs import read_word

_SYS = Path("/sys")
ENOUGH_S = 30.0
"""Shorter measurements of energy are doubtful: a board's readings are averages, and idle power wanders."""


class Counter:
    """Joules since some moment, by name."""

    def __init__(self, name: str, read_j: Callable[[], float], *, range_j: float | None = None) -> None:
        self.name = name
        self._read_j = read_j
        self._range_j = range_j

    def read_j(self) -> float:
        """Read the counter; raises `OSError` where that is not allowed."""
        return self._read_j()

    def difference_j(self, before_j: float, after_j: float) -> float:
        """Return the joules between two readings, less than one turn of the counter apart."""
        if after_j < before_j and self._range_j is not None:
            return after_j + self._range_j - before_j
        return after_j - before_j


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What can be read here, and in words why the rest cannot; `tegrastats` is a command that prints power."""

    counters: tuple[Counter, ...]
    rails: tuple[Rail, ...]
    reasons: tuple[str, ...]
    tegrastats: tuple[str, ...] = ()

    @property
    def there(self) -> bool:
        """Whether anything can be read."""
        return bool(self.counters or self.rails or self.tegrastats)

    @property
    def note(self) -> str:
        """Say why there is no energy, or nothing where there is some."""
        return "" if self.there else "no energy: " + "; ".join(self.reasons)

    @contextmanager
    def watch(self) -> "Iterator[Spent]":
        """Measure the energy spent within; the record it yields is filled at the end."""
        spent = Spent()
        before = [counter.read_j() for counter in self.counters]
        sum_up = PowerSum(began_s=time.perf_counter())
        with sample_power(self.rails, self.tegrastats, sum_up):
            yield spent
        ended_s = time.perf_counter()
        sum_up.end(ended_s)
        spent.seconds = ended_s - sum_up.began_s
        for counter, start in zip(self.counters, before, strict=True):
            spent.joules[counter.name] = counter.difference_j(start, counter.read_j())
        spent.joules.update(sum_up.joules)
        spent.readings.update(sum_up.readings)


@dataclass(slots=True)
class Spent:
    """Joules by counter, for how long, and how often power was read by rail."""

    seconds: float = 0.0
    joules: dict[str, float] = field(default_factory=dict)
    readings: dict[str, int] = field(default_factory=dict)

    def watts(self) -> dict[str, float]:
        """Return the mean power by counter."""
        return {name: joules / self.seconds for name, joules in self.joules.items()}


def find_counters(root: Path = _SYS, *, find_command: Callable[[str], str | None] = shutil.which) -> Counters:
    """Find every counter that can be read on this machine; `root` stands for `/sys`, `find_command` for the PATH."""
    rapl, rapl_reason = _find_rapl(root / "class" / "powercap")
    nvml, nvml_reason = _find_nvml()
    rails = find_rails(root / "class" / "hwmon")
    program = None if rails else find_command("tegrastats")
    rail_reason = "" if rails or program else "no INA3221 rail in /sys/class/hwmon"
    return Counters(
        counters=(*rapl, *nvml),
        rails=rails,
        reasons=tuple(reason for reason in (rapl_reason, nvml_reason, rail_reason) if reason),
        tegrastats=(program, "--interval", f"{EVERY_S * 1e3:.0f}") if program else (),
    )


def idle_watts(counters: Counters, *, seconds: float) -> dict[str, float]:
    """Measure for so long what the machine draws while we do nothing; empty where nothing can be read."""
    if not counters.there:
        return {}
    with counters.watch() as spent:
        time.sleep(seconds)
    return spent.watts()


def sum_up_energy(timings: Sequence[Timing], *, batch: int, idle_w: Mapping[str, float]) -> tuple[Energy, ...]:
    """Return the energy per image by counter, raw and above idle, of all of a candidate's processes together.

    `idle_w` is what each counter saw of the idle machine just before. Processes that say nothing of energy are left
    out with their images; a counter that saw none of them is left out.
    """
    return tuple(
        _energy_of(counter, [timing for timing in timings if counter in timing.energy_j], batch=batch, idle_w=idle)
        for counter, idle in idle_w.items()
        if any(counter in timing.energy_j for timing in timings)
    )


def _energy_of(counter: str, timings: Sequence[Timing], *, batch: int, idle_w: float) -> Energy:
    images = batch * sum(len(timing.samples_s) for timing in timings)
    joules = sum(timing.energy_j[counter] for timing in timings)
    seconds = sum(_span_s(timing) for timing in timings)
    return Energy(
        counter=counter,
        per_image_j=joules / images,
        per_image_above_idle_j=(joules - idle_w * seconds) / images,
        images=images,
        seconds=seconds,
        idle_w=idle_w,
        readings=sum(timing.energy_readings.get(counter, 0) for timing in timings),
    )


def _span_s(timing: Timing) -> float:
    """Return for how long a process's energy was counted; reports of older versions have the samples' time only."""
    if timing.energy_s is not None:
        return timing.energy_s
    return timing.contention.elapsed_s if timing.contention is not None else sum(timing.samples_s)


def doubt_energy(energies: Sequence[Energy]) -> tuple[str, ...]:
    """Say what makes a row's energy doubtful: too short, or less than the idle machine drew."""
    doubts = []
    seconds = min((energy.seconds for energy in energies), default=ENOUGH_S)
    if seconds < ENOUGH_S:
        doubts.append(f"energy over {seconds:.1f} s only: {ENOUGH_S:g} s or more make it trustworthy (--seconds)")
    below = [energy.counter for energy in energies if energy.per_image_above_idle_j < 0]
    if below:
        doubts.append(f"{', '.join(below)} saw less than the idle machine drew just before: the idle power wandered")
    return tuple(doubts)


def _find_rapl(powercap: Path) -> tuple[tuple[Counter, ...], str]:
    """Return one counter per package; the zones below a package are parts of it, `psys` holds all of them."""
    zones = sorted(zone for zone in powercap.glob("intel-rapl:*") if zone.name.count(":") == 1)
    packages = [(zone, name) for zone in zones if (name := read_word(zone / "name")) and name != "psys"]
    if not packages:
        return (), "no RAPL counter in /sys/class/powercap"
    try:
        for zone, _ in packages:
            _read_number(zone / "energy_uj")
    except (OSError, ValueError):
        return (), "the RAPL counter may be read by root only"
    return tuple(_rapl_counter(zone, name) for zone, name in packages), ""


def _rapl_counter(zone: Path, name: str) -> Counter:
    return Counter(
        f"RAPL {name}",
        lambda: _read_number(zone / "energy_uj") / 1e6,
        range_j=_read_number(zone / "max_energy_range_uj") / 1e6,
    )


def _find_nvml() -> tuple[tuple[Counter, ...], str]:
    """Return one counter per GPU."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return (), "no NVML (nvidia-ml-py is not installed)"
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        for handle in handles:
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError as error:
        return (), f"NVML cannot be read ({error})"
    return tuple(_gpu_counter(nvml, index, handle) for index, handle in enumerate(handles)), ""


def _gpu_counter(nvml: Any, index: int, handle: Any) -> Counter:
    return Counter(f"NVML GPU {index}", lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3)


def _read_number(path: Path) -> float:
    return float(path.read_text(encoding="utf-8"))
