"""Weight transfusion: loaded weights up to a cut, random ones above it, and everything learns (Raghu et al. 2019)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from torch import nn

from ttl_deploy.errors import UsageError
from ttl_deploy.models.cuts import list_cuts, resolve_cuts
from ttl_deploy.models.truncation import find_place
from ttl_deploy.models.weights.backbone_state import list_prefixes
from ttl_deploy.records.models import FULL, ModelSpec
from ttl_deploy.records.trials import TrainSettings
from ttl_deploy.training.strategies import Phase
from ttl_deploy.training.strategies.full import FullFinetuning
from ttl_deploy.training.strategies.scratch import redraw_trunk


class Transfusion(FullFinetuning):
    """Keep the loaded weights and statistics up to a cut; the rest begins as with `scratch`.

    At cuts no deeper than that everything is kept, and the strategy is the same as `full`.
    """

    options: ClassVar[Mapping[str, str]] = {
        "upto": "the cut up to which loaded weights are kept, such as layer2.3 or layer2 (needed)"
    }

    def __init__(self, given: Mapping[str, str]) -> None:
        """Take the depth."""
        if "upto" not in given:
            raise UsageError(
                "strategy transfusion needs a depth: --strategy 'transfusion?upto=layer2', a cut's name or its module"
            )
        self.depth = given["upto"]

    def prepare(self, model: nn.Module, spec: ModelSpec) -> None:
        """Draw anew what lies above the depth; raises `UnknownNameError`, and `UsageError` as `scratch` does."""
        kept = find_place(replace(spec, cut=self._find_depth(spec))).targets
        redraw_trunk(model, spec, keep=lambda name: not kept.isdisjoint(list_prefixes(name)))

    def phases(self, model: nn.Module, spec: ModelSpec, settings: TrainSettings) -> tuple[Phase, ...]:
        """Return one phase with everything in it; raises `UnknownNameError` for the depth."""
        self._find_depth(spec)
        return super().phases(model, spec, settings)

    def _find_depth(self, spec: ModelSpec) -> str:
        cuts = list_cuts(spec.backbone, image_size=spec.image_size, classes=spec.classes, pool=spec.pool)
        return resolve_cuts([self.depth], [cut for cut in cuts if cut.name != FULL])[-1].name
