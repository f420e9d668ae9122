"""Other programs that are asked a question: their answer, or nothing."""

import subprocess
from collections.abc import Callable, Sequence

Ask = Callable[[Sequence[str]], str]
"""Called with a command line; returns what it printed, or nothing where it failed."""

_PATIENCE_S = 10.0


def ask(command: Sequence[str]) -> str:
    """Return what a command prints; nothing where it is missing, fails, or gives no answer in time."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
