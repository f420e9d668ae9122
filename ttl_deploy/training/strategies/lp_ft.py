"""LP-FT: first the head alone, then everything from that head on, at a lower rate (Kumar et al. 2022)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from torch import nn

from ttl_deploy.errors import UsageError
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import TrainSettings
from ttl_deploy.training.strategies import KeepsStart, Phase, read_number
from ttl_deploy.training.strategies.full import FullFinetuning
from ttl_deploy.training.strategies.linear_probe import RATE, LinearProbe


class ProbeThenFinetune(KeepsStart):
    """Probe for a share of the epochs, then finetune.

    Probing sees images without augmentation, as `linear-probe` does; finetuning sees them augmented. Which
    ratio of rates Davila et al. took is not known; a tenth is our choice.
    """

    options: ClassVar[Mapping[str, str]] = {
        "probe": "share of the epochs for the head alone, 0.5",
        "rate": f"rate of the head alone as a multiple of --lr, {RATE:g}",
        "ratio": "rate of the second phase as a share of --lr, 0.1",
    }

    def __init__(self, given: Mapping[str, str]) -> None:
        """Take the share of the epochs and the rates."""
        self.share = read_number(given, "probe", 0.5)
        self.ratio = read_number(given, "ratio", 0.1)
        self.probe = LinearProbe({name: text for name, text in given.items() if name == "rate"})
        if self.share >= 1:
            raise UsageError(f"strategy option probe={self.share:g}: give a share below 1")

    def phases(self, model: nn.Module, spec: ModelSpec, settings: TrainSettings) -> tuple[Phase, ...]:
        """Return two phases; raises `UsageError` for a single epoch, which cannot be shared out."""
        if settings.epochs < 2:
            raise UsageError(f"lp-ft needs at least 2 epochs, one for each of its phases, not {settings.epochs}")
        probing = min(settings.epochs - 1, max(1, round(self.share * settings.epochs)))
        first = replace(settings, epochs=probing)
        second = replace(settings, epochs=settings.epochs - probing, lr=self.ratio * settings.lr)
        return (
            *self.probe.phases(model, spec, first),
            *FullFinetuning({}).phases(model, spec, second),
        )
