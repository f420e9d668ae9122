"""How much memory this process holds, and the most it ever held.

`ru_maxrss` is not asked on Linux: it begins with the memory of the process that started us, which a large parent
would pass on to every small child.
"""

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_KIB = 1024


def resident_bytes(status: Path = _STATUS) -> int:
    """Return the resident memory now; where the system has no `/proc`, the most so far."""
    return _from_status(status, "VmRSS") or _most_ever()


def peak_bytes(status: Path = _STATUS) -> int:
    """Return the most resident memory since this program began."""
    return _from_status(status, "VmHWM") or _most_ever()


def _from_status(status: Path, name: str) -> int:
    """Return one size of Linux's table, or 0 where there is none."""
    try:
        lines = status.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    sizes = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return _KIB * int(sizes[0]) if sizes else 0


def _most_ever() -> int:
    """Return `ru_maxrss`: in bytes on macOS, in KiB elsewhere."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else _KIB * most
