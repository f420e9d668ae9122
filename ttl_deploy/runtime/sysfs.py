"""Files of the kernel that hold one word or one number; any of them may be missing, or refuse to be read."""

from pathlib import Path


def read_word(path: Path) -> str:
    """Return a file's text without what pads it (a NUL in the device tree); nothing where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n\t")
    except OSError:  # missing, for root only, or EAGAIN of a sensor that is switched off
        return ""


def read_number(path: Path) -> float | None:
    """Return the number in a file; None where there is none."""
    try:
        return float(read_word(path))
    except ValueError:
        return None
