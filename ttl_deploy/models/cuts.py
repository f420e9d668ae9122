"""A backbone's cuts as records: names, feature shapes, and what a truncated model costs."""

from collections.abc import Sequence

import torch
from torch import nn

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.models.cost import count_params
from ttl_deploy.models.heads import Head
from ttl_deploy.models.places import Place, find_classifier, find_places
from ttl_deploy.records.models import FULL, Cut, Pool

ALL = "all"
STAGES = "stages"


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
            normalised=place.normalised,
            params=params,
            macs=macs,
            layers=layers,
            params_share=params / full[0],
            macs_share=macs / full[1],
        )
        for depth, (place, (params, macs, layers)) in enumerate(zip(places, costs, strict=True), start=1)
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


def _add_head(place: Place, *, classes: int, pool: Pool) -> tuple[int, int, int]:
    """Return parameters, MACs and layers of a place's trunk with its head."""
    if place.name == FULL:
        measured = place.measured
        classifier = find_classifier(measured.symbolic)
        layer = measured.symbolic.module(classifier)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        outputs = layer.weight.shape[0]
        params = count_params(layer) * classes // outputs
        macs = measured.macs[classifier] * classes // outputs
    else:
        with torch.device("meta"):
            head = Head(place.features, classes, pool=pool, normalised=place.normalised)
        params, macs = count_params(head), head.linear.in_features * classes
    return place.params + params, place.macs + macs, place.layers + 1


def _find_stages(places: Sequence[Place], costs: Sequence[tuple[int, int, int]]) -> set[str]:
    """Name the last place at each resolution, in the middle of a block only where no block ends there.

    A place that costs exactly what `full` costs is the full network under another name (ResNet's
    `layer4.2` with average pooling): `full` stands for it.
    """
    last: dict[tuple[int, ...], int] = {}
    for position, place in enumerate(places[:-1]):
        resolution = place.features[1:]
        if not place.inside_block or resolution not in last or places[last[resolution]].inside_block:
            last[resolution] = position
    return {places[position].name for position in last.values() if costs[position] != costs[-1]}
