"""Every error a user can meet, one tree; each class knows the exit code of the command line.

::

    TtlDeployError                    1
    ├── UsageError                    2   a flag, a name or a file on the command line is wrong
    │   ├── UnknownNameError              no such backbone, cut, target, strategy, policy …
    │   ├── WeightsError                  a weights file does not fit, or could not be downloaded
    │   ├── RunMismatchError              the run folder belongs to another configuration
    │   └── NoRunError                    no run folder (or artifact) where one was looked for
    ├── DataError                     3   the data cannot be used as they are
    │   ├── LabelError                    a table or its labels cannot be understood
    │   ├── UnreadableImageError          a file is missing or does not decode
    │   └── LeakageError                  a patient or an identical image stands in two splits
    ├── GateError                     4   a check that guards publication failed
    │   └── ArtifactError                 an artifact is damaged, or is not one
    ├── InfeasibleError               5   no cut meets the given constraints
    │   └── OutOfTimeError                the time given is over before anything was finished
    ├── TargetUnavailableError        6   the target cannot run here
    │   └── MissingExtraError             an optional part of the installation is missing
    ├── InconclusiveError             7   the measurement was too unstable to report
    ├── StorageError                 74   disk full, read-only, or otherwise not writable
    ├── RunBusyError                 75   another process works in the run folder
    └── RunInterruptedError              130   Ctrl-C (143 for SIGTERM); carries the resume command

Messages say what was given, what is allowed and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class TtlDeployError(Exception):
    """The root; raised itself only for faults of our own."""

    exit_code = 1

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes as what it is, without its constructor, which may have a shape of its own."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[TtlDeployError], arguments: tuple[object, ...], state: dict[str, object]) -> TtlDeployError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


class UsageError(TtlDeployError):
    """Something on the command line or in the config file cannot be used."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name is not in its table; suggests the nearest ones."""

    def __init__(self, kind: str, given: str, allowed: Iterable[str], remedy: str = "") -> None:
        names = sorted(allowed)
        near = get_close_matches(given, names, n=3, cutoff=0.5)
        if near:
            hint = f"did you mean {', '.join(near)}?"
        elif len(names) <= 30:
            hint = f"known: {', '.join(names)}."
        else:
            hint = f"{len(names)} are known, such as {', '.join(names[:8])} …"
        super().__init__(f"unknown {kind} {given!r}: {hint}{' ' + remedy if remedy else ''}")


class WeightsError(UsageError):
    """A weights file is unreadable, fits another network, or could not be downloaded."""


class RunMismatchError(UsageError):
    """The run folder holds a run with another configuration, other data or other code."""


class NoRunError(UsageError):
    """No run folder or artifact where one was looked for."""


class DataError(TtlDeployError):
    """The data cannot be used as they are."""

    exit_code = 3


class LabelError(DataError):
    """A label table, or a label in it, cannot be understood."""


class UnreadableImageError(DataError):
    """An image file is missing or does not decode."""


class LeakageError(DataError):
    """A patient or an identical image stands in more than one split."""


class GateError(TtlDeployError):
    """A check that guards publication failed; nothing was published.

    `measured` is the record of what the check measured (`records.refusals.Measured`); None where it measured nothing.
    """

    exit_code = 4

    def __init__(self, *arguments: object, measured: object = None) -> None:
        super().__init__(*arguments)
        self.measured = measured


class ArtifactError(GateError):
    """An artifact is damaged, incomplete, or not an artifact at all."""


class InfeasibleError(TtlDeployError):
    """No cut meets the given constraints; the message names the nearest."""

    exit_code = 5


class OutOfTimeError(InfeasibleError):
    """The time that was given is over, and nothing has been finished in it."""


class TargetUnavailableError(TtlDeployError):
    """The target cannot run on this machine."""

    exit_code = 6


class MissingExtraError(TargetUnavailableError):
    """An optional part of the installation is missing."""

    def __init__(self, extra: str, need: str) -> None:
        super().__init__(f"{need} needs the extra [{extra}]: pip install 'ttl-deploy[{extra}]'")


class InconclusiveError(TtlDeployError):
    """The measurement was too unstable to be reported as a number."""

    exit_code = 7


class StorageError(TtlDeployError):
    """A file or folder could not be written."""

    exit_code = 74


class RunBusyError(TtlDeployError):
    """Another process works in this run folder."""

    exit_code = 75


class RunInterruptedError(TtlDeployError):
    """The user or the system asked us to stop; everything done so far is kept."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
