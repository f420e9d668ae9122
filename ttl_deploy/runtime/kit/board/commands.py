"""Other programs, run with their words kept."""

from __future__ import annotations

import subprocess
from typing import Any

from .refusals import ABSENT, RefusedError

_LAST_LINES = 15


def run_logged(command: list[str]) -> Any:
    """Run a command with its words kept; raises `RefusedError` where it cannot be started."""
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except OSError as error:
        raise RefusedError(ABSENT, f"cannot start {command[0]}: {error}") from error


def last_lines(done: Any) -> str:
    """Return a command's last words: its errors where it marks some."""
    lines = [line.strip() for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "[E]" in line or "error" in line.lower()]
    told = (errors or lines)[-_LAST_LINES:] or ["it said nothing"]
    return f"exit code {done.returncode}; " + " | ".join(told)
