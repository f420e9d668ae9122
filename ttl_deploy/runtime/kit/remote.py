"""The round trip over plain ssh and scp: copy a kit to another machine, run its script there, bring the results back.

Host keys, ports, users and identities are those of the user's own ssh configuration; nothing is ever asked for.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ttl_deploy.errors import DataError, GateError, StorageError, TargetUnavailableError, TtlDeployError, UsageError
from ttl_deploy.runtime.kit.writing import SCRIPT

Say = Callable[[str], None]
RESULTS = "results.tar.gz"
_HOST = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.-]*")
_FOLDER = re.compile(r"/[A-Za-z0-9._/-]*ttl-deploy\.[A-Za-z0-9]+")
_OPTIONS = ("BatchMode=yes", "ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=4")
_SHORT_S = 120.0
_NO_CONNECTION = 255
_KEPT_LINES = 12
_ERRORS: dict[int, type[TtlDeployError]] = {
    2: UsageError,
    3: DataError,
    4: GateError,
    6: TargetUnavailableError,
    74: StorageError,
}
_MAKE = 'mktemp -d "${TMPDIR:-/tmp}/ttl-deploy.XXXXXXXXXX"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Another machine, as `host`, `user@host` or a name of the ssh configuration; `timeout_s` is for copy and run."""

    name: str
    timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.name):
            raise UsageError(
                f"--ssh {self.name!r} is no host: give HOST or USER@HOST; port, identity and jump hosts belong into "
                "~/.ssh/config"
            )


def fetch_results(kit: Path, host: Host, into: Path, *, arguments: Sequence[str] = (), say: Say) -> Path:
    """Copy the folder `kit` to a host, run its script with `arguments`, and bring the archive into the folder `into`.

    The folder there is removed again, whatever happens. Raises `TargetUnavailableError` where ssh or scp is missing,
    the host cannot be reached, or time is over; and where the script fails, the error of its exit code with its last
    lines.
    """
    for command in ("ssh", "scp"):
        if shutil.which(command) is None:
            raise TargetUnavailableError(f"there is no {command} here: install OpenSSH's client")
    with _folder_there(host, say) as place:
        say(f"copying {kit.name} to {host.name}")
        _run(_scp(str(kit), f"{host.name}:{place}/kit"), host, doing="cannot copy the kit", timeout_s=host.timeout_s)
        command = shlex.join(["sh", f"{place}/kit/{SCRIPT}", "--out", f"{place}/{RESULTS}", *arguments])
        _run(_ssh(host, command), host, doing="the kit's script failed", timeout_s=host.timeout_s, say=say)
        say(f"bringing the results from {host.name}")
        fetched = into / RESULTS
        _run(_scp(f"{host.name}:{place}/{RESULTS}", str(fetched)), host, doing="cannot bring the results back")
    if not fetched.is_file():
        raise TargetUnavailableError(f"scp brought no results from {host.name}: try again")
    return fetched


@contextmanager
def _folder_there(host: Host, say: Say) -> Iterator[str]:
    """Make a temporary folder on the host, and remove it at the end; a name that could be another's is refused."""
    told = _run(_ssh(host, _MAKE), host, doing="cannot make a temporary folder")
    place = told[-1] if told else ""
    if not _FOLDER.fullmatch(place) or ".." in place:
        raise TargetUnavailableError(
            f"{host.name} answered {place[:80]!r} where the name of a new folder was expected: its login must print "
            "nothing and TMPDIR must be a plain path"
        )
    try:
        yield place
    finally:
        try:
            _run(_ssh(host, f"rm -rf -- {shlex.quote(place)}"), host, doing="cannot tidy up")
        except TargetUnavailableError as error:
            say(f"{place} was left on {host.name}: {error}")


def _ssh(host: Host, command: str) -> list[str]:
    return ["ssh", "-T", *_settings(), "--", host.name, command]


def _scp(source: str, target: str) -> list[str]:
    return ["scp", "-q", "-r", *_settings(), "--", source, target]


def _settings() -> list[str]:
    return [part for option in _OPTIONS for part in ("-o", option)]


def _run(
    command: Sequence[str], host: Host, *, doing: str, timeout_s: float = _SHORT_S, say: Say = lambda line: None
) -> list[str]:
    """Run a command, telling its lines as they come; returns the last of them, or raises the error of its code."""
    lines: deque[str] = deque(maxlen=_KEPT_LINES)
    over = threading.Event()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # what ssh itself starts ends with it, and lets go of the pipe
    ) as process:

        def stop() -> None:
            over.set()
            _end(process)

        timer = threading.Timer(timeout_s, stop)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip():
                    lines.append(line.strip())
                    say(f"{host.name}: {line.rstrip()}")
            code = process.wait()
        except BaseException:  # an interruption ends ssh too; raised again
            _end(process)
            raise
        finally:
            timer.cancel()
    if over.is_set():
        raise TargetUnavailableError(f"{doing} on {host.name}: no end after {timeout_s:g} s (--timeout allows more)")
    if code:
        raise _error(code, host, doing, tuple(lines))
    return list(lines)


def _end(process: "subprocess.Popen[str]") -> None:
    """End a command and what it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _error(code: int, host: Host, doing: str, lines: tuple[str, ...]) -> TtlDeployError:
    told = " | ".join(lines) or "it said nothing"
    if code == _NO_CONNECTION:
        return TargetUnavailableError(
            f"{doing}: {host.name} cannot be reached by ssh ({told}). `ssh {host.name} true` must work without a "
            "question: add a key to an agent, and the host to known_hosts"
        )
    # A code that is none of ours means a command on the way failed, not the model.
    return _ERRORS.get(code, TargetUnavailableError)(f"{doing} on {host.name} (exit code {code}): {told}")
