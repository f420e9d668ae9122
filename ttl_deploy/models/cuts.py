"""A backbone's cuts as records: names, feature shapes, and what a truncated model costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.models.cost.sizes import count_bytes, count_params
from ttl_deploy.models.heads import Head
from ttl_deploy.models.places import Place, find_classifier, find_places
from ttl_deploy.records.models import FULL, Cut, Pool

ALL = "all"
STAGES = "stages"
_FEW_RESOLUTIONS = 3


def list_cuts(backbone: str, *, image_size: int, classes: int, pool: Pool = "avg") -> tuple[Cut, ...]:
    """List a backbone's cuts from shallow to deep; the last one is `full`, the whole network.

    Raises `UnknownNameError` for the backbone, `UsageError` for images that are too small for it.
    """
    if classes < 2:
        raise UsageError(f"a classifier needs at least 2 classes, not {classes}")
    places = find_places(backbone, image_size)
    costs = [_add_head(place, classes=classes, pool=pool) for place in places]
    stages = _find_stages(places, costs)
    full = costs[-1]
    return tuple(
        Cut(
            name=place.name,
            nodes=tuple(place.measured.symbolic.paths[part] for part in place.parts),
            stage=place.name in stages,
            depth=depth,
            channels=place.features[0],
            height=place.features[1],
            width=place.features[2],
            layout=place.layout,
            normalised=place.normalised,
            params=cost.params,
            macs=cost.macs,
            layers=cost.layers,
            params_share=cost.params / full.params,
            macs_share=cost.macs / full.macs,
            weights_bytes=cost.weights_bytes,
            peak_bytes=place.peak_bytes,
            receptive_field=place.receptive_field,
            global_context=place.global_context,
        )
        for depth, (place, cost) in enumerate(zip(places, costs, strict=True), start=1)
    )


def resolve_cuts(names: Sequence[str], cuts: Sequence[Cut]) -> tuple[Cut, ...]:
    """Return the cuts that `names` mean, from shallow to deep, each once.

    A name is a cut's, `all`, `stages`, or a module path such as `layer3`, which means the deepest
    cut inside that module. Raises `UnknownNameError`.
    """
    chosen = {cut.name for name in names for cut in _resolve(name, cuts)}
    return tuple(cut for cut in cuts if cut.name in chosen)


def _resolve(name: str, cuts: Sequence[Cut]) -> list[Cut]:
    if name == ALL:
        return list(cuts)
    if name == STAGES:
        return [cut for cut in cuts if cut.stage]
    exact = [cut for cut in cuts if cut.name == name]
    inside = [cut for cut in cuts if cut.name != FULL and _is_inside(cut, name)]
    if not exact and not inside:
        known = [ALL, STAGES, *(cut.name for cut in cuts)]
        raise UnknownNameError("cut", name, known, "`ttl-deploy cuts` lists them all")
    return exact or inside[-1:]


def _is_inside(cut: Cut, module: str) -> bool:
    return any(path == module or path.startswith(f"{module}.") for path in (cut.name, cut.nodes[-1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """What trunk and head cost together."""

    params: int
    weights_bytes: int
    macs: int
    layers: int


def _add_head(place: Place, *, classes: int, pool: Pool) -> _Cost:
    if place.name == FULL:
        measured = place.measured
        classifier = find_classifier(measured.symbolic)
        layer = measured.symbolic.module(classifier)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        outputs = layer.weight.shape[0]
        params = count_params(layer) * classes // outputs
        weights_bytes = count_bytes(layer) * classes // outputs
        macs = measured.macs[classifier] * classes // outputs
    else:
        with torch.device("meta"):
            head = Head(place.features, classes, pool=pool, layout=place.layout, normalised=place.normalised)
        params, weights_bytes, macs = count_params(head), count_bytes(head), head.linear.in_features * classes
    return _Cost(
        params=place.params + params,
        weights_bytes=place.weights_bytes + weights_bytes,
        macs=place.macs + macs,
        layers=place.layers + 1,
    )


def _find_stages(places: Sequence[Place], costs: Sequence[_Cost]) -> set[str]:
    """Name the last place at each resolution, in the middle of a block only where no block ends there.

    A network with fewer than three resolutions (a Vision Transformer has one) is divided by depth too,
    after each quarter of its blocks. A place that costs exactly what `full` costs is the full network
    under another name (ResNet's `layer4.2` with average pooling): `full` stands for it.
    """
    last: dict[int, int] = {}
    for position, place in enumerate(places[:-1]):
        resolution = place.features[1] * place.features[2]
        if not place.inside_block or resolution not in last or places[last[resolution]].inside_block:
            last[resolution] = position
    chosen = set(last.values())
    if len(last) < _FEW_RESOLUTIONS:
        whole = [position for position, place in enumerate(places[:-1]) if place.ends_block]
        chosen |= {whole[len(whole) * quarter // 4 - 1] for quarter in (1, 2, 3) if len(whole) >= 4}
    return {places[position].name for position in chosen if costs[position] != costs[-1]}
