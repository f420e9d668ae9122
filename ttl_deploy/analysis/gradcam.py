"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) of a truncated or full model, at the last map before its pooling.

Hooks on modules would not do: that map is the value of a node of the trunk's graph, which no module need return.
"""

from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from ttl_deploy.errors import UsageError
from ttl_deploy.models.places import Place, find_places
from ttl_deploy.models.truncation import TruncatedModel
from ttl_deploy.records.models import ModelSpec


def find_last_map(spec: ModelSpec) -> Place | None:
    """Return the deepest place of a model where its features are a map; None where they are tokens throughout."""
    places = find_places(spec.backbone, spec.image_size)
    depth = next(number for number, place in enumerate(places) if place.name == spec.cut)
    maps = (place for place in places[depth::-1] if place.layout != "tokens" and place.features[1] > 1)
    return next(maps, None)


def draw_cam(model: TruncatedModel, place: Place, images: Tensor, classes: Tensor) -> Tensor:
    """Return the maps `(N, h, w)`, not negative, of normalised images `(N, C, H, W)` for one class number each.

    The model must be in evaluation mode. Maps are of the size of the features at `place`.
    """
    watch = _Watch(model.trunk, place.node.name)
    logits = model.head(watch.run(images))
    if watch.seen is None:
        raise UsageError(f"{place.name} lies behind the model's own cut: name a place before it")
    wanted = logits.gather(1, classes[:, None]).sum()
    (slopes,) = torch.autograd.grad(wanted, watch.seen)
    features, slopes = _channels_first(watch.seen.detach(), place), _channels_first(slopes, place)
    weights = slopes.mean(dim=(2, 3), keepdim=True)  # equation 1
    return functional.relu((weights * features).sum(dim=1))  # equation 2


class _Watch(fx.Interpreter):
    """Runs a trunk and keeps one node's value; a copy goes on, so that no later layer changes it in place."""

    def __init__(self, trunk: fx.GraphModule, node: str) -> None:
        super().__init__(trunk)
        self._node = node
        self.seen: Tensor | None = None

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name != self._node:
            return value
        self.seen = value
        return value.clone()


def _channels_first(features: Tensor, place: Place) -> Tensor:
    return features.permute(0, 3, 1, 2) if place.layout == "map-last" else features
