"""Training from scratch: what the trunk was loaded with is drawn anew (random initialisation, Raghu et al. 2019)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ttl_deploy import plugins
from ttl_deploy.errors import UsageError
from ttl_deploy.models.truncation import build
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.training.strategies.full import FullFinetuning


class Scratch(FullFinetuning):
    """Train everything from random weights, as the network's own construction draws them.

    The same as `--weights none` with `full`, but beside strategies that do use weights in one search.
    """

    def prepare(self, model: nn.Module, spec: ModelSpec) -> None:
        """Draw the trunk anew; raises `UsageError` for an own network that always starts with the same weights."""
        redraw_trunk(model, spec)


@torch.no_grad()
def redraw_trunk(model: nn.Module, spec: ModelSpec, keep: Callable[[str], bool] = lambda name: False) -> None:
    """Put random initial weights and fresh statistics into a model's trunk, but for names that `keep` is true for.

    Names are without `trunk.`. The network is built again, so its own way to begin is kept. An own network
    whose function puts in fixed weights raises `UsageError`: they would not be random.
    """
    start = build(spec).trunk.state_dict()
    if _is_own(spec.backbone):
        _check_random(spec, start)
    for name, tensor in model.get_submodule("trunk").state_dict().items():
        if not keep(name):
            tensor.copy_(start[name])


def _is_own(backbone: str) -> bool:
    prefix, colon, _ = backbone.partition(":")
    return bool(colon) and prefix not in plugins.names("backbones")


def _check_random(spec: ModelSpec, start: Mapping[str, Tensor]) -> None:
    """Refuse a network whose construction gives a convolution or linear layer the same, different, numbers twice."""
    for name, layer in build(spec).trunk.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        varies = bool((layer.weight != layer.weight.flatten()[0]).any())
        if varies and torch.equal(layer.weight, start[f"{name}.weight"]):
            raise UsageError(
                f"{spec.backbone} begins with the same {name}.weight each time: its function puts in weights itself, "
                "so nothing can be trained from scratch. Let it return random weights, and name the file in --weights"
            )
