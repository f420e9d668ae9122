"""This machine, described as ttl-deploy does as far as that can be read without it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any


def describe_machine(load_before: float) -> dict[str, Any]:
    """Describe this machine as ttl-deploy does, as far as it can be read without it."""
    model = read("/proc/device-tree/model").strip("\0\n ")
    found = re.search(r"^model name\s*:\s*(.+)$", read("/proc/cpuinfo"), re.M)
    jetson = Path("/etc/nv_tegra_release").exists() or "jetson" in model.lower()
    warnings = ["clocks and power mode were not read: set them by nvpmodel and jetson_clocks"] if jetson else []
    return {
        "host": platform.node() or "unknown",
        "system": platform.platform(),
        "processor": ", ".join(part for part in (model, found.group(1) if found else platform.machine()) if part),
        "cores": os.cpu_count() or 1,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or "unknown",
        "load_before": load_before,
        "load_after": os.getloadavg()[0],
        "warnings": warnings,
    }


def read(path: str) -> str:
    """Return a file's text, or nothing where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
