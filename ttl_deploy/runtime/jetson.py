"""The state of a Jetson: model, power mode, clocks, temperatures, throttling, power rails.

NVML tells nothing of power there. Everything comes from files that any user may read, with `nvpmodel -q` and
`jetson_clocks --show` where they answer: NVIDIA, Jetson Linux Developer Guide (r35 and r36), "Platform Power and
Performance". `root` stands for `/` and `ask` for running a command, so that tests can stand in for a board.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from ttl_deploy.records.hardware import Clock, JetsonState
from ttl_deploy.runtime.commands import Ask, ask
from ttl_deploy.runtime.jetson_clocks import MEMORY, read_clocks
from ttl_deploy.runtime.power_rails import Rail, find_rails
from ttl_deploy.runtime.sysfs import read_number, read_word

ROOT = Path("/")
_JETPACK_OF_L4T = {"34": "5", "35": "5", "36": "6", "38": "7", "39": "7"}
_EVENTS = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
_SENSOR_OFF_C = -100.0
"""A sensor whose part is switched off tells -256 degrees, or refuses to be read."""


def read_jetson(root: Path = ROOT, ask: Ask = ask) -> JetsonState | None:
    """Read the state of the board now; None where this is no Jetson."""
    model = read_word(root / "proc/device-tree/model")
    release = read_word(root / "etc/nv_tegra_release")
    if not release and "jetson" not in model.lower():
        return None
    l4t = _parse_release(release)
    return JetsonState(
        model=model,
        l4t=l4t,
        jetpack=_find_jetpack(root, l4t),
        power_mode=_find_power_mode(root, ask),
        clocks=read_clocks(root, ask),
        temperatures_c=dict(_temperatures(root / "sys/class/thermal")),
        throttle_events=dict(_throttle_events(root / "sys/class/hwmon")),
        held_back=tuple(_held_back(root / "sys/class/thermal")),
        rails_w=dict(_rails_now(find_rails(root / "sys/class/hwmon"))),
    )


def warn_of_state(after: JetsonState, before: JetsonState | None = None) -> tuple[str, ...]:
    """Say what makes figures of this board doubtful; throttling is counted since `before`, or since it started."""
    return tuple(
        warning
        for warning in (
            _warn_of_clocks(after.clocks),
            _warn_of_events(after.throttle_events, before.throttle_events if before else None),
            _warn_of_heat(after.held_back),
        )
        if warning
    )


def _warn_of_clocks(clocks: tuple[Clock, ...]) -> str:
    loose = [clock for clock in clocks if clock.locked is False]
    remedy = "choose the power mode (sudo nvpmodel -m N), then lock them with: sudo jetson_clocks"
    if loose:
        ranges = ", ".join(map(_range_of, loose))
        return f"the clocks are not locked ({ranges}): they follow the load and so do latencies; {remedy}"
    if not any(clock.locked and clock.name != MEMORY for clock in clocks):
        return f"whether the clocks are locked cannot be read here: look with sudo jetson_clocks --show, or {remedy}"
    return ""


def _range_of(clock: Clock) -> str:
    if clock.lowest_hz is None or clock.highest_hz is None:
        return clock.name
    return f"{clock.name} {clock.lowest_hz / 1e6:.0f} to {clock.highest_hz / 1e6:.0f} MHz"


def _warn_of_events(now: dict[str, int], before: dict[str, int] | None) -> str:
    since = "since the board started" if before is None else "meanwhile"
    grown = {name: count - (before or {}).get(name, 0) for name, count in now.items()}
    told = ", ".join(f"{count} of {name}" for name, count in grown.items() if count > 0)
    if not told:
        return ""
    return (
        f"the supply made the hardware lower its clocks {since} ({told}): "
        "use a stronger supply, or a power mode that draws less (sudo nvpmodel -m N)"
    )


def _warn_of_heat(held_back: tuple[str, ...]) -> str:
    if not held_back:
        return ""
    return f"clocks are held back right now ({', '.join(held_back)}): the board is too hot; cool it and measure again"


def _parse_release(text: str) -> str:
    """Turn `# R36 (release), REVISION: 4.3, …` into `36.4.3`."""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"{match[1]}.{match[2]}" if match else ""


def _find_jetpack(root: Path, l4t: str) -> str:
    """Return JetPack's version as its package has it, or the major one that this L4T belongs to."""
    packages = read_word(root / "var/lib/dpkg/status")
    match = re.search(r"^Package: nvidia-jetpack\n(?:.+\n)*?Version: ([^\s+]+)", packages, re.MULTILINE)
    return match[1] if match else _JETPACK_OF_L4T.get(l4t.partition(".")[0], "")


def _find_power_mode(root: Path, ask: Ask) -> str:
    """Return the power mode as `NAME (number)`: by `nvpmodel -q`, or as it was stored with its configuration."""
    answer = re.search(r"NV Power Mode: *(\S+)\s+(\d+)", ask(("nvpmodel", "-q")))
    if answer:
        return f"{answer[1]} ({int(answer[2])})"
    stored = re.search(r"pmode:(\d+)", read_word(root / "var/lib/nvpmodel/status"))
    if not stored:
        return ""
    number = int(stored[1])
    name = re.search(rf"POWER_MODEL +ID=0*{number} +NAME=(\S+)", read_word(root / "etc/nvpmodel.conf"))
    return f"{name[1]} ({number})" if name else f"mode {number}"


def _temperatures(thermal: Path) -> Iterator[tuple[str, float]]:
    for zone in sorted(thermal.glob("thermal_zone*")):
        value = read_number(zone / "temp")
        if value is not None and value / 1e3 > _SENSOR_OFF_C:
            yield read_word(zone / "type"), value / 1e3


def _throttle_events(hwmon: Path) -> Iterator[tuple[str, int]]:
    """Yield how often each of the supply's guards has lowered clocks (Orin and newer: `oc1_event_cnt` …)."""
    for counter in sorted(hwmon.glob("hwmon*/oc*_event_cnt")):
        count, name = read_number(counter), counter.name.removesuffix("_event_cnt")
        if count is not None:
            yield f"{name} ({_EVENTS[name]})" if name in _EVENTS else name, int(count)


def _held_back(thermal: Path) -> Iterator[str]:
    """Yield what lowers clocks for heat right now: a fan is a cooling device too, an alert is not normal."""
    for device in sorted(thermal.glob("cooling_device*")):
        name = read_word(device / "type")
        if name.endswith("-alert") and (read_number(device / "cur_state") or 0) > 0:
            yield name


def _rails_now(rails: tuple[Rail, ...]) -> Iterator[tuple[str, float]]:
    for rail in rails:
        try:
            yield rail.name, rail.read_w()
        except (OSError, ValueError):  # the chip did not answer this time
            continue
