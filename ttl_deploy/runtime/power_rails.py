"""A board's power rails: by sysfs from INA3221 chips, or from the lines of `tegrastats`.

The chips give voltage (`inN_input`, mV) and current (`currN_input`, mA) of rail N, which `inN_label` names:
Linux, Documentation/hwmon/ina3221.rst; NVIDIA, Jetson Linux Developer Guide, "Power monitor". On Orin `VDD_IN` is
what the whole module draws, and the others are parts of it; boards without it (AGX Orin) show parts only.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from ttl_deploy.runtime.sysfs import read_word

CHIP = "ina3221"
_RAIL_OF_LINE = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/(\d+)(?:mW)?(?= |$)")
"""`VDD_IN 6626mW/6625mW`, before L4T 34 `VDD_IN 3902/3611`: milliwatts now, and on average since the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """One supply of a board, as `hwmon` shows it."""

    name: str
    voltage: Path
    current: Path

    def read_w(self) -> float:
        """Return the power drawn now; raises `OSError` or `ValueError` where the chip does not answer."""
        millivolts = float(self.voltage.read_text(encoding="utf-8"))
        milliamperes = float(self.current.read_text(encoding="utf-8"))
        return millivolts * milliamperes / 1e6


def find_rails(hwmon: Path) -> tuple[Rail, ...]:
    """Return the rails of every INA3221 below `/sys/class/hwmon`; what has no current of its own is no rail."""
    rails = []
    for chip in sorted(hwmon.glob("hwmon*")):
        if read_word(chip / "name") != CHIP:
            continue
        for label in sorted(chip.glob("in*_label")):
            number = label.name.removeprefix("in").removesuffix("_label")
            voltage, current = chip / f"in{number}_input", chip / f"curr{number}_input"
            if voltage.is_file() and current.is_file():
                rails.append(Rail(name=f"INA3221 {read_word(label)}", voltage=voltage, current=current))
    return tuple(rails)


def parse_tegrastats(line: str) -> dict[str, float]:
    """Return the watts of each rail in a line of `tegrastats`; empty for a line without any."""
    return {f"tegrastats {name}": int(now) / 1e3 for name, now, _ in _RAIL_OF_LINE.findall(line)}
