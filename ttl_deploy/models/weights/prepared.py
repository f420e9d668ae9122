"""From a weights file's tensors to a network's: prefixes off, fitted to image size and channels, others' refused."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from ttl_deploy.errors import WeightsError
from ttl_deploy.models.backbones import find_backbone
from ttl_deploy.models.backbones.backbone import Backbone
from ttl_deploy.models.graph.tracing import trace_backbone
from ttl_deploy.models.input_conventions import (
    AUTO,
    NAMED,
    TORCHXRAYVISION,
    Feeding,
    fit_channels,
    parse_convention,
)
from ttl_deploy.models.places import find_classifier
from ttl_deploy.models.weights.backbone_state import list_prefixes, read_state
from ttl_deploy.models.weights.first_convolution import adapt_first_convolution, count_file_channels
from ttl_deploy.models.weights.likely_backbone import guess_backbone
from ttl_deploy.models.weights.source import IMAGENET, WeightsSource, find_published, find_weights
from ttl_deploy.records.models import IMAGENET_INPUT, InputConvention

# What a network's own `fit` raises on tensors of another network, which are refused further on.
_FIT_ERRORS = (LookupError, ValueError, TypeError, RuntimeError)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedWeights:
    """A file's tensors under a network's names and in its shapes; `changes` says in words what that took."""

    source: WeightsSource
    tensors: Mapping[str, torch.Tensor]
    changes: tuple[str, ...]


def find_feeding(weights: str, backbone: str, *, image_size: int, normalise: str = AUTO) -> Feeding:
    """Return how images are brought to the network that the weights are from, and to ours.

    With `auto`, published weights bring their convention, which is also taken for files of that
    network; files that a search wrote say theirs, torchxrayvision's are known by their mark; random
    weights get ImageNet's. Raises
    `UsageError` for an unknown `normalise`, `WeightsError` for a file whose convention cannot be known.
    """
    symbolic = trace_backbone(backbone, image_size)
    source = find_weights(weights, backbone)
    channels = None
    if source is not None:
        channels = count_file_channels(remove_prefix(source.tensors, read_state(backbone, image_size)), symbolic)
    channels = channels or symbolic.channels
    if normalise != AUTO:
        given = parse_convention(normalise)
    elif source is None or weights == IMAGENET:
        given = _usual(backbone) if source else IMAGENET_INPUT
    else:
        given = _recognise(source, backbone, channels)
    file = fit_channels(given, channels)
    return Feeding(file=file, network=fit_channels(file, symbolic.channels))


def read_prepared(weights: str, backbone: str, *, image_size: int, feeding: Feeding) -> PreparedWeights | None:
    """Read weights and bring them into the form of a network's; None for `none`.

    Raises `WeightsError` where they cannot be read, are another network's, or cannot be adapted.
    """
    source = find_weights(weights, backbone)
    if source is None:
        return None
    found = find_backbone(backbone)
    reference = found.weights_of or backbone
    named = remove_prefix(source.tensors, read_state(reference, image_size))
    fitted = _fit(found, named, image_size)
    adapted = adapt_first_convolution(fitted, trace_backbone(backbone, image_size), feeding)
    _refuse_foreign(source, adapted.tensors, reference, image_size)
    changes = [
        f"{name} fitted to {image_size} px"
        for name, tensor in fitted.items()
        if name in named and named[name].shape != tensor.shape
    ]
    return PreparedWeights(
        source=source,
        tensors=adapted.tensors,
        changes=tuple([*changes, adapted.note] if adapted.note else changes),
    )


def remove_prefix(tensors: Mapping[str, torch.Tensor], known: Iterable[str]) -> Mapping[str, torch.Tensor]:
    """Remove `model.`, `backbone.encoder.` or whatever all names begin with, if more of them are then known."""
    first = next(iter(tensors), "")
    shared = [f"{prefix}." for prefix in list_prefixes(first)[:-1]]
    shared = [prefix for prefix in shared if all(name.startswith(prefix) for name in tensors)]
    names = set(known)
    best = max(["", *shared], key=lambda prefix: sum(name.removeprefix(prefix) in names for name in tensors))
    return {name.removeprefix(best): tensor for name, tensor in tensors.items()} if best else tensors


def hint_network(source: WeightsSource, backbone: str) -> str:
    """Say what to give instead of weights that do not fit a backbone."""
    likely = guess_backbone(source.tensors)
    if likely is not None and likely != backbone:
        return f"These are weights of {likely}: give --backbone {likely}, or weights of {backbone}"
    return f"Give weights of {backbone}, or --weights none"


def _usual(backbone: str) -> InputConvention:
    published = find_published(backbone)
    return published.convention if published else IMAGENET_INPUT


def _recognise(source: WeightsSource, backbone: str, channels: int) -> InputConvention:
    """Return the convention of a user's file: what it says itself, torchxrayvision's by its mark, or the usual."""
    if source.convention is not None:
        return source.convention
    if channels == 3 and not source.torchxrayvision:
        return _usual(backbone)
    if channels == 1 and source.torchxrayvision:
        return NAMED[TORCHXRAYVISION]
    form = "images of one channel" if channels == 1 else "RGB images, but seems to come from torchxrayvision"
    raise WeightsError(
        f"{source.name} is for a network of {form}, so how that was fed cannot be known: give --normalise with one of "
        f"{', '.join(NAMED)}, or with the MEAN/STD it was trained with, such as 0.5/0.25 for pixel values in 0..1"
    )


def _fit(found: Backbone, tensors: Mapping[str, torch.Tensor], image_size: int) -> Mapping[str, torch.Tensor]:
    try:
        return found.fit(tensors, image_size)
    except _FIT_ERRORS:
        return tensors


def _refuse_foreign(source: WeightsSource, tensors: Mapping[str, torch.Tensor], backbone: str, image_size: int) -> None:
    """Refuse the weights of a relative whose shallow layers would happen to fit.

    ResNet-101's file holds everything that ResNet-50's stages 1 to 3 ask for, but as part of
    another network. Layers that may differ: the classifier part, and modules that only the file
    has, such as auxiliary classifiers.
    """
    state = read_state(backbone, image_size)
    classifier = str(find_classifier(trace_backbone(backbone, image_size)).target).partition(".")[0]
    body = {name.partition(".")[0] for name in state} - {classifier}
    foreign = [
        name
        for name, tensor in tensors.items()
        if name.partition(".")[0] in body and (name not in state or state[name].shape != tensor.shape)
    ]
    if foreign:
        shape = tuple(tensors[foreign[0]].shape)
        raise WeightsError(
            f"{source.name} does not fit {backbone}, which has no {foreign[0]} of shape {shape} "
            f"({len(foreign)} such tensors). {hint_network(source, backbone)}"
        )
