"""Energy counters, where this machine has some that we may read.

* Linux powercap (RAPL): `intel-rapl:N/energy_uj`, one per package, microjoules; AMD's processors use the same names.
  It starts anew from 0 at `max_energy_range_uj`. Since 2020 only root may read it.
* NVML: millijoules since the driver was loaded, one per GPU (`nvidia-ml-py`).
* Jetson's INA3221: no energy but voltage (mV) and current (mA) of each rail in `hwmon`; a thread reads them
  ten times a second and adds up.
"""

import importlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SYS = Path("/sys")
_EVERY_S = 0.1


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
class Rail:
    """One supply of a board, as `hwmon` shows it."""

    name: str
    voltage: Path
    current: Path

    def read_w(self) -> float:
        """Return the power drawn now."""
        return _read_number(self.voltage) / 1e3 * _read_number(self.current) / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What can be read here, and in words why the rest cannot."""

    counters: tuple[Counter, ...]
    rails: tuple[Rail, ...]
    reasons: tuple[str, ...]

    @property
    def note(self) -> str:
        """Say why there is no energy, or nothing where there is some."""
        return "" if self.counters or self.rails else "no energy: " + "; ".join(self.reasons)

    @contextmanager
    def watch(self) -> "Iterator[Spent]":
        """Measure the energy spent within; the record it yields is filled at the end."""
        spent = Spent()
        before = [counter.read_j() for counter in self.counters]
        began_s = time.perf_counter()
        with _Sampler(self.rails) as sampler:
            yield spent
        spent.seconds = time.perf_counter() - began_s
        for counter, start in zip(self.counters, before, strict=True):
            spent.joules[counter.name] = counter.difference_j(start, counter.read_j())
        spent.joules.update(sampler.joules())


@dataclass(slots=True)
class Spent:
    """Joules by counter, and for how long."""

    seconds: float = 0.0
    joules: dict[str, float] = field(default_factory=dict)

    def watts(self) -> dict[str, float]:
        """Return the mean power by counter."""
        return {name: joules / self.seconds for name, joules in self.joules.items()}


def find_counters(root: Path = _SYS) -> Counters:
    """Find every counter that can be read on this machine; `root` stands for `/sys`."""
    rapl, rapl_reason = _find_rapl(root / "class" / "powercap")
    nvml, nvml_reason = _find_nvml()
    rails, rail_reason = _find_rails(root / "class" / "hwmon")
    reasons = tuple(reason for reason in (rapl_reason, nvml_reason, rail_reason) if reason)
    return Counters(counters=(*rapl, *nvml), rails=rails, reasons=reasons)


def idle_watts(counters: Counters, *, seconds: float) -> dict[str, float]:
    """Measure for so long what the machine draws while we do nothing; empty where nothing can be read."""
    if not counters.counters and not counters.rails:
        return {}
    with counters.watch() as spent:
        time.sleep(seconds)
    return spent.watts()


def _find_rapl(powercap: Path) -> tuple[tuple[Counter, ...], str]:
    """Return one counter per package; the zones below a package are parts of it, `psys` holds all of them."""
    zones = sorted(zone for zone in powercap.glob("intel-rapl:*") if zone.name.count(":") == 1)
    packages = [(zone, name) for zone in zones if (name := _read_word(zone / "name")) and name != "psys"]
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


def _find_rails(hwmon: Path) -> tuple[tuple[Rail, ...], str]:
    """Return the rails of every INA3221: `inN_label` names the rail of `inN_input` and `currN_input`."""
    rails = []
    for chip in sorted(hwmon.glob("hwmon*")):
        if _read_word(chip / "name") != "ina3221":
            continue
        for label in sorted(chip.glob("in*_label")):
            number = label.name.removeprefix("in").removesuffix("_label")
            voltage, current = chip / f"in{number}_input", chip / f"curr{number}_input"
            if voltage.is_file() and current.is_file():
                rails.append(Rail(name=f"INA3221 {_read_word(label)}", voltage=voltage, current=current))
    return tuple(rails), "" if rails else "no INA3221 rail in /sys/class/hwmon"


class _Sampler:
    """Reads power rails in a thread and adds up: power times the time since the last reading."""

    def __init__(self, rails: Sequence[Rail]) -> None:
        self._rails = rails
        self._joules = {rail.name: 0.0 for rail in rails}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> "_Sampler":
        if self._rails:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._rails:
            self._thread.join()

    def joules(self) -> dict[str, float]:
        return dict(self._joules)

    def _sample(self) -> None:
        last_s, stopped = time.perf_counter(), False
        while not stopped:
            stopped = self._stop.wait(_EVERY_S)
            now_s = time.perf_counter()
            for rail in self._rails:
                self._joules[rail.name] += rail.read_w() * (now_s - last_s)
            last_s = now_s


def _read_number(path: Path) -> float:
    return float(path.read_text(encoding="utf-8"))


def _read_word(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
