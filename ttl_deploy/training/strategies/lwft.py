"""Layer-wise finetuning: the bottom is frozen, the rest learns, slower than the head (LWFT, Peng et al. 2023)."""

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from ttl_deploy.errors import UsageError
from ttl_deploy.models.cuts import list_cuts, resolve_cuts
from ttl_deploy.models.truncation import trunk_parameter_names
from ttl_deploy.records.models import FULL, ModelSpec
from ttl_deploy.records.trials import TrainSettings
from ttl_deploy.training.strategies import KeepsStart, Phase, learning_groups, names_of, read_number


class LayerwiseFinetuning(KeepsStart):
    """Freeze the trunk up to a cut; the head learns at `lr`, the trunk above at `lr / decay`.

    In the original code the two rates vanish under data parallelism; here they are really applied.
    Frozen BatchNorm keeps its statistics, which the original's does not (papers' section 1.12, d and h).
    At cuts below the freeze depth, where only the head learns, images are shown without augmentation.
    """

    options: ClassVar[Mapping[str, str]] = {
        "freeze": "the cut up to which the trunk is frozen, such as layer2.3 or layer2 (needed)",
        "decay": "by how much the trunk learns slower than the head, 10",
    }

    def __init__(self, given: Mapping[str, str]) -> None:
        """Take the freeze depth and the decay."""
        if "freeze" not in given:
            raise UsageError("strategy lwft needs a depth: --strategy 'lwft?freeze=layer2', a cut's name or its module")
        self.depth = given["freeze"]
        self.decay = read_number(given, "decay", 10.0)

    def phases(self, model: nn.Module, spec: ModelSpec, settings: TrainSettings) -> tuple[Phase, ...]:
        """Return one phase; at cuts below the freeze depth only the head learns. Raises `UnknownNameError`."""
        frozen = {f"trunk.{name}" for name in trunk_parameter_names(spec, self._find_cut(spec))}
        above = [name for name in names_of(model, "trunk") if name not in frozen]
        rate, decay = settings.lr, settings.weight_decay
        groups = (
            *learning_groups(model, names_of(model, "head"), lr=rate, weight_decay=decay),
            *learning_groups(model, above, lr=rate / self.decay, weight_decay=decay),
        )
        return (Phase(name="finetune", epochs=settings.epochs, groups=groups),)

    def _find_cut(self, spec: ModelSpec) -> str:
        cuts = list_cuts(spec.backbone, image_size=spec.image_size, classes=spec.classes, pool=spec.pool)
        return resolve_cuts([self.depth], [cut for cut in cuts if cut.name != FULL])[-1].name
