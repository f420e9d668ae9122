"""The run folder: where everything of one search lies, who owns it, and whether it may be resumed."""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from ttl_deploy.errors import NoRunError, RunBusyError, RunMismatchError, StorageError
from ttl_deploy.files import make_folder, publish_text, remove_litter, storage_errors
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import Candidate, slug_of
from ttl_deploy.records.scores import Choice, Front
from ttl_deploy.records.trials import SearchSettings
from ttl_deploy.runs import older
from ttl_deploy.runs.ledger import Ledger

CONFIG = "config.json"
_OWN = (".lock", "owner.txt", "ledger.jsonl")
_BEGINNING = (
    *(CONFIG, "env.json", "command.txt", "weights.json"),
    *("data/manifest.csv", "data/fingerprint.json", "data/checks.json", "data/quarantine.csv"),
)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The layout of a run folder (see the module `ttl_deploy.runs`); all paths live below `path`."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.resolve().name

    @property
    def config(self) -> Path:
        """The settings that decide the result."""
        return self.path / CONFIG

    @property
    def environment(self) -> Path:
        """Versions and device; what of it decides the result is compared on resume."""
        return self.path / "env.json"

    @property
    def command(self) -> Path:
        """The command that made the run, to be typed again."""
        return self.path / "command.txt"

    @property
    def data(self) -> Path:
        """Manifest, fingerprint and checks of the data set."""
        return self.path / "data"

    @property
    def profile(self) -> Path:
        """Costs of all candidate cuts."""
        return self.path / "profile.json"

    @property
    def variants(self) -> Path:
        """Which widths and input sizes of which candidates are trained besides."""
        return self.path / "variants.json"

    @property
    def probe(self) -> Path:
        """What a linear classifier reads at every cut."""
        return self.path / "probe.json"

    @property
    def probe_heads(self) -> Path:
        """The probe's linear classifiers, `<cut>.weight` and `<cut>.bias` for every cut."""
        return self.path / "probe.safetensors"

    @property
    def weights(self) -> Path:
        """What the models start from."""
        return self.path / "weights.json"

    @property
    def front(self) -> Path:
        """The front as a record."""
        return self.path / "front.json"

    @property
    def earlier_openings(self) -> Path:
        """What was known of other runs' openings of the same test images, when this one opened them."""
        return self.path / "earlier_openings.json"

    @property
    def chosen(self) -> Path:
        """The choice as a record."""
        return self.path / "chosen.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    @property
    def next_steps(self) -> Path:
        """The exact commands to type next."""
        return self.path / "NEXT_STEPS.txt"

    @property
    def ledger(self) -> Ledger:
        """The run's ledger."""
        return Ledger(self.path / "ledger.jsonl")

    def trial(self, key: str) -> Path:
        """The folder of one trial."""
        return self.path / "trials" / key

    def export(self, candidate: Candidate) -> Path:
        """The folder of the artifact exported for a candidate: its cut's name, and a strategy where that is not clear.

        It is clear where the run has one strategy, and this is it: a teacher may have been trained by another.
        """
        cut, strategy = candidate
        clear = self.settings().strategies == (strategy,)
        return self.path / "exports" / (cut if clear else f"{cut}__{slug_of(strategy)}")

    def exports(self) -> tuple[Path, ...]:
        """All artifact folders, the newest first."""
        found = [manifest.parent for manifest in (self.path / "exports").glob("*/manifest.json")]
        return tuple(sorted(found, key=lambda folder: (folder / "manifest.json").stat().st_mtime_ns, reverse=True))

    @property
    def refusals(self) -> Path:
        """A record for each export that was refused."""
        return self.path / "refusals"

    def bench(self, host: str) -> Path:
        """The folder of the benchmarks measured on one machine."""
        return self.path / "bench" / host

    def settings(self) -> SearchSettings:
        """Read the settings; raises `NoRunError` where the folder is not a run."""
        if not self.config.is_file():
            raise NoRunError(
                f"{self.path} is not a run folder (it has no {CONFIG}): name one that `ttl-deploy search` made"
            )
        return older.upgrade_settings(codec.load(dict, self.config), source=str(self.config))

    def read_front(self) -> Front:
        """Read the stored front."""
        content = codec.load(dict, self.front)
        return older.upgrade_front(content, strategy=self.settings().strategies[0], source=str(self.front))

    def read_choice(self) -> Choice:
        """Read the stored choice."""
        content = codec.load(dict, self.chosen)
        return older.upgrade_choice(content, strategy=self.settings().strategies[0], source=str(self.chosen))

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the run while it is written; raises `RunBusyError` naming the owner."""
        make_folder(self.path)
        owner = self.path / "owner.txt"
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            who = owner.read_text(encoding="utf-8").strip() if owner.exists() else "another process"
            raise RunBusyError(
                f"{self.path} is in use by {who}: wait for it, or name another folder with -o"
            ) from error
        except OSError as error:
            raise StorageError(
                f"cannot write in {self.path}: {error.strerror}. Choose a writable place with -o"
            ) from error
        try:
            publish_text(owner, f"process {os.getpid()} on {socket.gethostname()}\n")
            remove_litter(self.path)
            self.ledger.repair()
            yield
        finally:
            owner.unlink(missing_ok=True)
            lock.release()

    def claim(self, settings: SearchSettings, command: str) -> bool:
        """Write the settings of a new run, or check them against the run that is here; True if it is new.

        A run that was stopped before it had done anything (bad data, wrong weights) may begin anew with
        other settings. Raises `RunMismatchError` naming the fields that differ, and for a folder that
        holds other things.
        """
        if self._is_ours() and not self.ledger.entries() and self._holds_only_a_beginning():
            self._forget()
        if self._is_ours():
            found = differences(msgspec.to_builtins(self.settings()), msgspec.to_builtins(settings))
            refuse_differences(self.path, found)
            return False
        strangers = [entry.name for entry in self.path.iterdir() if entry.name not in _OWN]
        if strangers:
            raise RunMismatchError(
                f"{self.path} is not empty and not a run folder (it holds {', '.join(sorted(strangers)[:3])}): "
                "name a new folder with -o"
            )
        publish_text(self.command, command + "\n")
        codec.save(self.config, settings)
        return True

    def _is_ours(self) -> bool:
        """Tell whether the folder's `config.json` is a search's."""
        return self.config.is_file() and b'"SearchSettings"' in self.config.read_bytes()

    def _holds_only_a_beginning(self) -> bool:
        """Tell whether all that lies here is what a run of ours leaves before its first ledger entry."""
        below = {path.relative_to(self.path).as_posix() for path in self.path.rglob("*")}
        return below <= {*_OWN, *_BEGINNING, "data"}

    def _forget(self) -> None:
        for name in _BEGINNING:
            (self.path / name).unlink(missing_ok=True)
        if self.data.is_dir():
            self.data.rmdir()


def differences(old: Any, new: Any, prefix: str = "") -> tuple[str, ...]:
    """Return the fields in which two nested containers differ, as `a.b: old → new`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = sorted({*old, *new})
        return tuple(line for name in names for line in differences(old.get(name), new.get(name), f"{prefix}{name}."))
    return () if old == new else (f"{prefix.rstrip('.')}: {_show(old)} → {_show(new)}",)


def _show(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def refuse_differences(path: Path, found: tuple[str, ...]) -> None:
    """Raise `RunMismatchError` unless nothing differs."""
    if found:
        raise RunMismatchError(
            f"{path} holds a run that differs in {'; '.join(found)}. Type its own command ({path / 'command.txt'}) "
            "to resume it, or name a new folder with -o"
        )


def find_runs(here: Path) -> tuple[RunFolder, ...]:
    """Return the run folders at, directly below, and in `runs/` below `here`, the newest first.

    The newest is the one whose ledger (or config) changed last.
    """
    candidates = {here, *_folders(here), *_folders(here / "runs")}
    runs = [RunFolder(path) for path in candidates if (path / CONFIG).is_file() and (path / "data").is_dir()]
    return tuple(sorted(runs, key=lambda run: (_changed_ns(run), str(run.path)), reverse=True))


def newest_run(here: Path) -> RunFolder:
    """Return the newest run here; raises `NoRunError` if there is none."""
    runs = find_runs(here)
    if not runs:
        raise NoRunError(f"no run folder in {here} or {here / 'runs'}: name one, or make one with `ttl-deploy search`")
    return runs[0]


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with storage_errors(folder):
        return [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]


def _changed_ns(run: RunFolder) -> int:
    ledger = run.ledger.path
    return (ledger if ledger.exists() else run.config).stat().st_mtime_ns
