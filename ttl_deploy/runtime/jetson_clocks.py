"""The clocks of a Jetson's processor, GPU and memory: what they run at, and whether they are locked.

From sysfs, in which JetPack 5 and 6 name the GPU differently; the memory's clock is for root only there, and so is
`jetson_clocks --show`, which is asked for what sysfs does not tell. `jetson_clocks` locks a clock by setting its
lowest frequency to its highest, and the memory's by an override: NVIDIA, Jetson Linux Developer Guide, "Clocks".
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ttl_deploy.records.hardware import Clock
from ttl_deploy.runtime.commands import Ask
from ttl_deploy.runtime.sysfs import read_number, read_word

MEMORY = "emc"
_GPU = re.compile(r"^(?:[0-9a-f]+\.(?:gpu|ga10b|gv11b|gp10b)|gpu-gpc-\d+)$")
"""JetPack 6: `17000000.gpu`; JetPack 5: `17000000.ga10b` (Orin), `.gv11b` (Xavier); JetPack 7 on Thor: `gpu-gpc-0`."""

_SHOWN = re.compile(
    r"^(?P<name>[\w-]+):? .*?MinFreq=(?P<low>\d+) MaxFreq=(?P<high>\d+) CurrentFreq=(?P<now>\d+)"
    r"(?:.*?FreqOverride=(?P<override>\d))?",
    re.MULTILINE,
)


def read_clocks(root: Path, ask: Ask) -> tuple[Clock, ...]:
    """Read every clock that can be read; `root` stands for `/`."""
    found = [*_cpu_clocks(root / "sys"), *_gpu_clocks(root / "sys"), *_memory_clock(root / "sys")]
    kinds = {_kind(clock.name) for clock in found}
    if kinds >= {"cpu", "gpu", MEMORY}:
        return tuple(found)
    shown = parse_show(ask(("jetson_clocks", "--show")))
    return (*found, *(clock for clock in shown if _kind(clock.name) not in kinds))


def parse_show(text: str) -> tuple[Clock, ...]:
    """Return the clocks in the output of `jetson_clocks --show`: CPUs in kHz there, all others in Hz."""
    return tuple(_shown_clock(match) for match in _SHOWN.finditer(text) if "Online=0" not in match.group())


def _shown_clock(match: "re.Match[str]") -> Clock:
    name = match["name"].lower()
    unit = 1e3 if name.startswith("cpu") else 1.0
    low, high = int(match["low"]) * unit, int(match["high"]) * unit
    overridden = match["override"] == "1"
    return Clock(
        name=name,
        current_hz=int(match["now"]) * unit,
        lowest_hz=low,
        highest_hz=high,
        locked=overridden or low == high,
    )


def _kind(name: str) -> str:
    return name if name == MEMORY else name[:3]


def _cpu_clocks(sys: Path) -> Iterator[Clock]:
    """Yield one clock per group of cores that share it, in kHz in the files."""
    for policy in sorted((sys / "devices/system/cpu/cpufreq").glob("policy*")):
        cores = read_word(policy / "related_cpus").split()
        if cores:
            name = f"cpu{cores[0]}-{cores[-1]}" if len(cores) > 1 else f"cpu{cores[0]}"
            files = (policy / f"scaling_{which}_freq" for which in ("cur", "min", "max"))
            yield _governed(name, *files, unit=1e3)


def _gpu_clocks(sys: Path) -> Iterator[Clock]:
    for device in sorted((sys / "class/devfreq").glob("*")):
        if _GPU.match(device.name):
            name = device.name if device.name.startswith("gpu") else "gpu"
            yield _governed(name, device / "cur_freq", device / "min_freq", device / "max_freq", unit=1.0)


def _governed(name: str, current: Path, lowest: Path, highest: Path, *, unit: float) -> Clock:
    now, low, high = (
        None if (value := read_number(path)) is None else value * unit for path in (current, lowest, highest)
    )
    locked = None if low is None or high is None else low == high
    return Clock(name=name, current_hz=now, lowest_hz=low, highest_hz=high, locked=locked)


def _memory_clock(sys: Path) -> Iterator[Clock]:
    """Yield the memory's clock where the kernel's debugging files may be read; its range is the hardware's."""
    folder = sys / "kernel/debug/bpmp/debug/clk/emc"
    now, low, high, override = (
        read_number(folder / name) for name in ("rate", "min_rate", "max_rate", "mrq_rate_locked")
    )
    if now is not None:
        locked = None if override is None else override == 1
        yield Clock(name=MEMORY, current_hz=now, lowest_hz=low, highest_hz=high, locked=locked)
