"""Channel pruning of truncated models, through torch-pruning (Fang et al. 2023, DepGraph).

Channels that depend on each other, by residual additions, concatenations and depthwise convolutions, go together.
Every group loses the same share, the channels with the smallest weights first (L2 norm over the whole group), so
which channels stay depends on the weights, and how many only on the structure: costs are known before any training.
"""

import copy
import warnings
from dataclasses import replace
from functools import lru_cache

import torch
from torch import nn

from ttl_deploy.errors import UsageError
from ttl_deploy.models import truncation
from ttl_deploy.models.places import find_places
from ttl_deploy.models.truncation import TruncatedModel
from ttl_deploy.models.width.structure import describe_layers
from ttl_deploy.records.models import ModelSpec, NarrowLayer

ROUND_TO = 8
"""Numbers of channels are multiples of it, which kernels are made for."""
_CANNOT = (RuntimeError, ZeroDivisionError, IndexError, KeyError, ValueError, AssertionError, AttributeError, TypeError)
"""What torch-pruning, or the model behind it, raises where channels do not follow its rules."""


@lru_cache(maxsize=64)
def narrow_spec(spec: ModelSpec, width: float) -> ModelSpec:
    """Return the description of a model with so much of the channels; raises `UsageError` where it cannot be narrowed.

    `spec` is at full width. Random numbers of torch stay as they are.
    """
    if not 0 < width < 1:
        raise UsageError(f"width {width:g}: give a share of the channels above 0 and below 1, such as 0.5")
    with torch.random.fork_rng(devices=[]):
        wide = truncation.build(spec)
        layers = prune(copy.deepcopy(wide), spec, width=width)
    if not layers:
        raise UsageError(
            f"{spec.backbone} cut at {spec.cut} has no channels to spare at width {width:g}, in steps of {ROUND_TO}: "
            "give a smaller width"
        )
    return replace(spec, width=width, layers=layers)


def prune(model: TruncatedModel, spec: ModelSpec, *, width: float) -> tuple[NarrowLayer, ...]:
    """Take channels out of a model at full width, in place, until a share `width` is left; returns what changed.

    The classes stay. Raises `UsageError` for networks whose channels cannot be taken out one by one: transformers,
    whose graphs hold the number of channels as a constant, and shuffled channels.
    """
    _refuse_transformers(spec)
    wide = copy.deepcopy(model)
    was_training = model.training
    image = torch.zeros(1, model.channels, spec.image_size, spec.image_size)
    try:
        _step(model.eval(), image, ignored=truncation.find_last_layer(model, spec), width=width)
        logits = model(image)
    except _CANNOT as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UsageError(
            f"{spec.backbone} cut at {spec.cut} cannot be narrowed: torch-pruning cannot follow its channels "
            f"({reason}). Leave out --width and --speedup, or choose another backbone"
        ) from error
    model.train(was_training)
    if logits.shape != (1, spec.classes):
        raise UsageError(f"{spec.backbone} cut at {spec.cut} cannot be narrowed: it lost classes")
    return describe_layers(model, wide)


def _step(model: nn.Module, image: torch.Tensor, *, ignored: nn.Module, width: float) -> None:
    import torch_pruning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Its default arguments are mutable, and one pruner would see what another put there: all are given.
        pruner = torch_pruning.pruner.BasePruner(
            model,
            image,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=1 - width,
            pruning_ratio_dict={},
            round_to=ROUND_TO,
            ignored_layers=[ignored],
            in_channel_groups={},
            out_channel_groups={},
            channel_groups={},
            num_heads={},
            customized_pruners={},
            global_pruning=False,
        )
        pruner.step()


def _refuse_transformers(spec: ModelSpec) -> None:
    places = find_places(spec.backbone, spec.image_size)
    kinds = {type(layer).__name__ for layer in places[0].measured.symbolic.model.modules()}
    # torch-pruning would take minutes and gigabytes over Swin's graph before it fails.
    if any(place.layout != "map" for place in places) or any("Attention" in kind for kind in kinds):
        raise UsageError(
            f"{spec.backbone} cannot be narrowed: its graph is that of a transformer, which holds the number of "
            "channels as a constant. Leave out --width and --speedup, or choose a convolutional network"
        )
