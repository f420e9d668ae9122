"""What a run keeps of an export that was refused: what was asked for, and which check failed with which numbers."""

from dataclasses import dataclass

from ttl_deploy.records.artifacts import Attempt, Parity


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a check that failed had measured: the tries at lower precision in their order, and how the last file did."""

    parity: Parity | None = None
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an export was asked for. `artifact` is the name that the file would have had."""

    artifact: str
    format: str
    precision: str
    cut: str
    strategy: str
    seed: int
    max_drop: float
    qat_epochs: int
    operating_rule: str
    calibrate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedExport:
    """An export that published nothing.

    Attributes:
        asked: what was wanted.
        kind: the name of the error's class, such as `GateError`.
        reason: the error's message: which check failed, its numbers, what was allowed, what to do.
        measured: the same numbers as records; None where nothing was measured before it failed.
        command: what was typed; empty where a program asked.
        time: UTC, ISO 8601.
    """

    asked: Asked
    kind: str
    reason: str
    measured: Measured | None
    command: str
    time: str
