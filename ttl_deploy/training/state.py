"""Where a trial stands after an epoch: what its checkpoint holds besides the tensors."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from ttl_deploy.records import codec
from ttl_deploy.records.trials import EpochRecord
from ttl_deploy.training.recovery import Setbacks

_WORST = (-math.inf, -math.inf)


@dataclass(slots=True)
class State:
    """The epochs so far, the best of them, the phase that is on, and what went wrong on the way.

    Ranks are validation AUROC, then the negative validation loss: larger is better.
    """

    history: list[EpochRecord] = field(default_factory=list)
    best_epoch: int = 0
    best_rank: tuple[float, float] = _WORST
    seconds: float = 0.0
    phase: int = 0
    phase_began: int = 0  # after so many epochs
    phase_best_epoch: int = 0
    phase_best_rank: tuple[float, float] = _WORST
    setbacks: Setbacks = field(default_factory=Setbacks)

    @property
    def epoch(self) -> int:
        """How many epochs are over."""
        return len(self.history)

    def add(self, record: EpochRecord) -> bool:
        """Take in a finished epoch; tells whether it is the best so far."""
        self.history.append(record)
        self.seconds += record.seconds
        rank = (-math.inf if record.val_auroc is None else record.val_auroc, -record.val_loss)
        if rank > self.phase_best_rank:
            self.phase_best_rank, self.phase_best_epoch = rank, record.epoch
        best = rank > self.best_rank
        if best:
            self.best_rank, self.best_epoch = rank, record.epoch
        return best

    def phase_is_over(self, *, epochs: int, patience: int) -> bool:
        """Tell whether the phase has had all its epochs, or `patience` of them without a better score."""
        waited = self.epoch - self.phase_best_epoch
        return self.epoch - self.phase_began >= epochs or bool(patience and waited >= patience)

    def begin_next_phase(self) -> None:
        """Go on to the next phase, whose best epoch is still to come."""
        self.phase += 1
        self.phase_began = self.phase_best_epoch = self.epoch
        self.phase_best_rank = _WORST

    def to_builtins(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the epochs and the rest as plain values."""
        rest = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return [msgspec.to_builtins(epoch) for epoch in rest.pop("history")], rest

    @classmethod
    def from_builtins(cls, history: list[Any], rest: Mapping[str, Any]) -> "State":
        """Return the state that `to_builtins` described."""
        ranks = {name: tuple(rest[name]) for name in ("best_rank", "phase_best_rank")}
        setbacks = Setbacks(**rest["setbacks"])
        epochs = [codec.from_builtins(EpochRecord, epoch) for epoch in history]
        return cls(epochs, **{**rest, **ranks, "setbacks": setbacks})
