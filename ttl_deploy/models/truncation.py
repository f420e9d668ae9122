"""Build a truncated model from its description: the trunk up to the cut, and a head."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from torch import Tensor, fx, nn

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.models.backbones import build_backbone, find_backbone
from ttl_deploy.models.backbones.meta_device import ParametersOnMeta
from ttl_deploy.models.graph.measured import extract_graph, extract_outputs, extract_rest
from ttl_deploy.models.heads import Head
from ttl_deploy.models.places import Place, find_classifier, find_places
from ttl_deploy.models.width.structure import resize_layers
from ttl_deploy.records.models import FULL, ModelSpec


class TruncatedModel(nn.Module):
    """A backbone up to a cut, and what turns its features into logits.

    `trunk` keeps the backbone's own parameter names and computes bit for bit what the backbone
    computes up to the cut. For `full`, `trunk` ends before the classification layer, and `head` is
    the network's own remainder with that layer resized. `channels` says whether the images are RGB (3)
    or grey (1).
    """

    def __init__(self, trunk: fx.GraphModule, head: nn.Module, *, channels: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        """Turn normalised images `(N, C, H, W)` into logits `(N, classes)`; C is what the backbone takes, 1 or 3."""
        logits: Tensor = self.head(self.trunk(images))
        return logits


class MultiExitModel(nn.Module):
    """A trunk with a head at several cuts: every truncated model of one backbone in a single network.

    `trunk` keeps the backbone's own parameter names, up to the deepest exit; `heads` are in the order
    of `exits`, shallow to deep.
    """

    def __init__(self, trunk: fx.GraphModule, heads: Mapping[str, nn.Module], *, channels: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(heads.values())
        self.exits = tuple(heads)
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        """Turn normalised images `(N, C, H, W)` into the logits of all exits `(N, exits, classes)`."""
        features = self.trunk(images)
        return torch.stack([head(one) for head, one in zip(self.heads, features, strict=True)], dim=1)

    def exit_state(self, cut: str, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the tensors, by these names, of the truncated model at one of the exits."""
        head = f"heads.{self.exits.index(cut)}."
        own = {name.replace(head, "head.", 1): value for name, value in self.state_dict().items()}
        return {name: own[name] for name in names}


Model = TruncatedModel | MultiExitModel
"""What a trial trains."""


def build(spec: ModelSpec) -> TruncatedModel:
    """Build the model that `spec` describes, in training mode, with random weights.

    The backbone draws its weights first and the head last, so under one seed the trunks of all
    cuts start from the same numbers; narrowed layers get small ones. Raises `UnknownNameError` for the
    backbone or the cut.
    """
    place = find_place(spec)
    if spec.classes < 2:
        raise UsageError(f"a classifier needs at least 2 classes, not {spec.classes}")
    backbone = _build_network(spec, place)
    trunk = fx.GraphModule(backbone, extract_graph(place.measured.symbolic, place.node), class_name="Trunk")
    model = TruncatedModel(trunk, _build_head(backbone, place, spec), channels=place.measured.symbolic.channels)
    resize_layers(model, spec.layers)
    return model


def build_on_meta(spec: ModelSpec) -> Model:
    """Build the model that `spec` describes, or its exits, without values; quickly where its backbone allows that.

    Leaves the state of torch's random numbers as it was.
    """
    build_any = build_exits if spec.exits else build
    with torch.random.fork_rng(devices=[]):
        if not find_backbone(spec.backbone).builds_on_meta:
            return build_any(spec).to("meta")
        with ParametersOnMeta():
            return build_any(spec).to("meta")


def build_exits(spec: ModelSpec) -> MultiExitModel:
    """Build the network that `spec` describes with a head at each of its exits, the deepest of which is its cut.

    Its trunk draws the weights that `build` would draw, and then each head. Raises `UnknownNameError`
    for the backbone or a cut, `UsageError` where the cut is not the last exit.
    """
    if not spec.exits or spec.exits[-1] != spec.cut:
        raise UsageError(f"the exits {', '.join(spec.exits) or '(none)'} must end with the cut {spec.cut}")
    places = [find_place(replace(spec, cut=cut)) for cut in spec.exits]
    backbone = _build_network(spec, places[-1])
    graph = extract_outputs(places[-1].measured, [place.node for place in places])
    trunk = fx.GraphModule(backbone, graph, class_name="Trunk")
    heads = {place.name: _build_head(backbone, place, spec) for place in places}
    return MultiExitModel(trunk, heads, channels=places[-1].measured.symbolic.channels)


def _build_network(spec: ModelSpec, place: Place) -> nn.Module:
    backbone = build_backbone(spec.backbone, image_size=spec.image_size)
    for path, layer in place.measured.symbolic.added.items():
        backbone.set_submodule(path, copy.deepcopy(layer))
    return backbone


def _build_head(backbone: nn.Module, place: Place, spec: ModelSpec) -> nn.Module:
    if place.name == FULL:
        return _build_own_head(backbone, place, spec.classes)
    return Head(
        place.features,
        spec.classes,
        pool=spec.pool,
        dropout=spec.dropout,
        layout=place.layout,
        normalised=place.normalised,
    )


def find_place(spec: ModelSpec) -> Place:
    """Return the place where `spec` cuts; raises `UnknownNameError`."""
    places = {place.name: place for place in find_places(spec.backbone, spec.image_size)}
    if spec.cut not in places:
        raise UnknownNameError("cut", spec.cut, places)
    return places[spec.cut]


def tap(trunk: fx.GraphModule, spec: ModelSpec, cuts: Sequence[str]) -> fx.GraphModule:
    """Return a module over the trunk's own layers that returns a tuple of the features at these cuts, in their order.

    None of them may lie behind `spec`'s cut, whose trunk it is. Raises `UnknownNameError`.
    """
    places = [find_place(replace(spec, cut=cut)) for cut in cuts]
    return fx.GraphModule(trunk, extract_outputs(places[0].measured, [place.node for place in places]), "Taps")


def trunk_parameter_names(spec: ModelSpec, cut: str) -> frozenset[str]:
    """Return the names, in the trunk, of the parameters up to a cut that may be another than `spec`'s own."""
    place = find_place(replace(spec, cut=cut))
    network = place.measured.symbolic.model
    names = (name for name, _ in network.named_parameters())
    return frozenset(
        name for name in names if not place.targets.isdisjoint(accumulate(name.split("."), "{}.{}".format))
    )


def find_last_layer(model: TruncatedModel, spec: ModelSpec) -> nn.Module:
    """Return the layer that gives the logits."""
    if isinstance(model.head, Head):
        return model.head.linear
    symbolic = find_place(spec).measured.symbolic
    return model.head.get_submodule(str(find_classifier(symbolic).target))


def _build_own_head(backbone: nn.Module, place: Place, classes: int) -> fx.GraphModule:
    """Build a network's own end, from the classification layer on, for another number of classes."""
    symbolic = place.measured.symbolic
    path = str(find_classifier(symbolic).target)
    backbone.set_submodule(path, _resize(backbone.get_submodule(path), classes))
    return fx.GraphModule(backbone, extract_rest(symbolic, place.node), class_name="Head")


def _resize(layer: nn.Module, classes: int) -> nn.Module:
    """Return a new layer of the same kind with another number of outputs."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, classes, bias=layer.bias is not None)
    assert isinstance(layer, nn.Conv2d)
    resized = nn.Conv2d(
        layer.in_channels,
        classes,
        layer.kernel_size,  # type: ignore[arg-type] # as many sizes as the layer has
        stride=layer.stride,  # type: ignore[arg-type] # the same
        padding=layer.padding,  # type: ignore[arg-type] # the same
        bias=layer.bias is not None,
    )
    # SqueezeNet clips its logits at zero; its own small initial weights keep them near there.
    nn.init.normal_(resized.weight, std=0.01)
    if resized.bias is not None:
        nn.init.zeros_(resized.bias)
    return resized
