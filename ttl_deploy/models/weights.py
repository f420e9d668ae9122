"""Weights into models and out of them: pretrained ones into the trunk, trained ones to safetensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from ttl_deploy.errors import WeightsError
from ttl_deploy.files import publish_bytes, sha256_bytes
from ttl_deploy.models.backbones import backbone_names, build_meta_backbone
from ttl_deploy.models.places import Place, find_classifier, find_places
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.models.tracing import trace_backbone
from ttl_deploy.models.truncation import TruncatedModel, find_place
from ttl_deploy.models.weights_source import WeightsSource, find_weights
from ttl_deploy.records.models import Cut, ModelSpec

_RANDOM = "random initial weights"
_USUAL_SIZE = 224


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsNote:
    """What a model started from, in words, and the SHA-256 of the file (empty for random weights)."""

    text: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Whether a weights file holds everything a cut's trunk needs; `reason` says why not."""

    cut: str
    covered: bool
    reason: str = ""


def load_pretrained(model: TruncatedModel, spec: ModelSpec, weights: str) -> WeightsNote:
    """Load `imagenet`, `none` or a file into the trunk of a model built from `spec`; the head stays random.

    The file's classification layer is not used. Layers past the cut may be missing from it; the
    note says which. Anything else that is missing or misshapen raises `WeightsError`, and so do
    weights of another network and files that cannot be read or downloaded.
    """
    source = _read_fitting(weights, spec.backbone, spec.image_size)
    if source is None:
        return WeightsNote(text=_RANDOM, sha256="")
    misfits = _find_misfits(source, spec.backbone, spec.image_size)
    if misfits[spec.cut]:
        raise WeightsError(_explain(source, spec.backbone, spec.cut, misfits, _hint(source, spec.backbone, misfits)))
    _copy(source, model.trunk)
    return WeightsNote(text=_describe(source, find_place(spec)), sha256=source.sha256)


def check_weights(weights: str, backbone: str, cuts: Sequence[Cut], *, image_size: int) -> tuple[Coverage, ...]:
    """Tell for each cut whether the weights cover its trunk, without building a model.

    Raises `WeightsError` where the weights cannot be read or downloaded, or are another network's.
    """
    source = _read_fitting(weights, backbone, image_size)
    if source is None:
        return tuple(Coverage(cut=cut.name, covered=True) for cut in cuts)
    misfits = _find_misfits(source, backbone, image_size)
    hint = _hint(source, backbone, misfits) if any(misfits[cut.name] for cut in cuts) else ""
    return tuple(
        Coverage(cut=cut.name, covered=False, reason=_explain(source, backbone, cut.name, misfits, hint))
        if misfits[cut.name]
        else Coverage(cut=cut.name, covered=True)
        for cut in cuts
    )


def save_weights(model: nn.Module, path: Path) -> str:
    """Publish a model's parameters and buffers as a safetensors file; returns its SHA-256."""
    content = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    )
    publish_bytes(path, content)
    return sha256_bytes(content)


def load_weights(model: nn.Module, path: Path) -> str:
    """Load what `save_weights` wrote, every tensor and no other; returns the file's SHA-256.

    Raises `WeightsError` for a file that is missing, damaged, or of a model with another structure.
    """
    try:
        content = path.read_bytes()
        model.load_state_dict(safetensors.torch.load(content))
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors weights: {error}") from error
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise WeightsError(f"{path} holds the weights of another model: {first}") from error
    return sha256_bytes(content)


@cache
def _state_shapes(backbone: str, image_size: int) -> dict[str, tuple[int, ...]]:
    """Return name and shape of everything in a backbone's state dict."""
    state = build_meta_backbone(backbone, image_size=image_size).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _needed_shapes(backbone: str, image_size: int) -> dict[str, tuple[int, ...]]:
    """Return name and shape of the tensors that a file must hold for a whole backbone.

    Without BatchNorm's step counters, which old files lack and which nothing here computes with.
    """
    shapes = _state_shapes(backbone, image_size)
    return {name: shape for name, shape in shapes.items() if not name.endswith("num_batches_tracked")}


def _prefixes(name: str) -> list[str]:
    """Return `layer1`, `layer1.0`, `layer1.0.conv1` … for a dotted name, itself last."""
    return list(accumulate(name.split("."), "{}.{}".format))


def _is_in_trunk(name: str, place: Place) -> bool:
    return not place.targets.isdisjoint(_prefixes(name))


def _read_fitting(weights: str, backbone: str, image_size: int) -> WeightsSource | None:
    """Read weights, and refuse those of a relative whose shallow layers would happen to fit.

    ResNet-101's file holds everything that ResNet-50's stages 1 to 3 ask for, but as part of
    another network. Layers that may differ: the classifier part, and modules that only the file
    has, such as auxiliary classifiers.
    """
    source = find_weights(weights, backbone)
    if source is None:
        return None
    state = _state_shapes(backbone, image_size)
    classifier = str(find_classifier(trace_backbone(backbone, image_size)).target).partition(".")[0]
    body = {name.partition(".")[0] for name in state} - {classifier}
    foreign = [
        name
        for name, tensor in source.tensors.items()
        if name.partition(".")[0] in body and (name not in state or state[name] != tuple(tensor.shape))
    ]
    if foreign:
        shape = tuple(source.tensors[foreign[0]].shape)
        raise WeightsError(
            f"{source.name} does not fit {backbone}, which has no {foreign[0]} of shape {shape} "
            f"({len(foreign)} such tensors). {_hint_network(source, backbone)}"
        )
    return source


def _find_misfits(source: WeightsSource, backbone: str, image_size: int) -> dict[str, dict[str, str]]:
    """Return, per cut, what is wrong with each tensor of its trunk that does not fit; empty where all do."""
    problems = {
        name: problem
        for name, shape in _needed_shapes(backbone, image_size).items()
        if (problem := _find_problem(source.tensors.get(name), shape))
    }
    return {
        place.name: {name: problem for name, problem in problems.items() if _is_in_trunk(name, place)}
        for place in find_places(backbone, image_size)
    }


def _find_problem(tensor: torch.Tensor | None, shape: tuple[int, ...]) -> str:
    if tensor is None:
        return "is missing"
    if tuple(tensor.shape) != shape:
        return f"has shape {tuple(tensor.shape)}, not {shape}"
    if not tensor.is_floating_point():
        return f"holds {tensor.dtype}, not floating-point numbers"
    return "" if bool(torch.isfinite(tensor).all()) else "holds values that are not finite"


@torch.no_grad()
def _copy(source: WeightsSource, trunk: nn.Module) -> None:
    for name, target in trunk.state_dict().items():
        tensor = source.tensors.get(name)
        if tensor is not None and tensor.shape == target.shape:
            target.copy_(tensor)


def _describe(source: WeightsSource, place: Place) -> str:
    backbone, image_size = place.measured.symbolic.name, place.measured.image_size
    own = set(_needed_shapes(backbone, image_size))
    trunk = {name for name in own if _is_in_trunk(name, place)}
    classifier = str(find_classifier(trace_backbone(backbone, image_size)).target)
    absent = [name for name in own - trunk - set(source.tensors) if classifier not in _prefixes(name)]
    text = f"{source.name} covers the trunk"
    if not absent:
        return text
    modules = sorted({_first_module_past(name, trunk) for name in absent})
    shown = ", ".join(f"{module}.*" for module in modules[:4]) + (" …" if len(modules) > 4 else "")
    return f"{text}; {shown}, {len(absent)} tensors past the cut, are not in the file"


def _first_module_past(name: str, trunk: set[str]) -> str:
    """Return the outermost module around `name` that has nothing in the trunk."""
    inside = {prefix for other in trunk for prefix in _prefixes(other)}
    return next((prefix for prefix in _prefixes(name)[:-1] if prefix not in inside), name.rpartition(".")[0])


def _explain(
    source: WeightsSource, backbone: str, cut: str, misfits: Mapping[str, Mapping[str, str]], hint: str
) -> str:
    misfit = misfits[cut]
    first = "; ".join(f"{name} {problem}" for name, problem in list(misfit.items())[:8])
    rest = f"; … {len(misfit)} tensors in all" if len(misfit) > 8 else ""
    return f"{source.name} does not fit {backbone} cut at {cut}: {first}{rest}. {hint}"


def _hint(source: WeightsSource, backbone: str, misfits: Mapping[str, Mapping[str, str]]) -> str:
    covered = [cut for cut, misfit in misfits.items() if not misfit]
    if covered:
        return f"It covers the cuts up to {covered[-1]}: choose among those with --cuts"
    return _hint_network(source, backbone)


def _hint_network(source: WeightsSource, backbone: str) -> str:
    likely = guess_backbone(source)
    if likely is not None and likely != backbone:
        return f"These are weights of {likely}: give --backbone {likely}, or weights of {backbone}"
    return f"Give weights of {backbone}, or --weights none"


def guess_backbone(source: WeightsSource) -> str | None:
    """Return the backbone to which all, or nearly all, tensors of a file belong, or None."""
    likely, most = None, 0.9
    for name in _likely_family(source):
        own = _state_shapes(name, _USUAL_SIZE)
        fitting = sum(own.get(key) == tuple(tensor.shape) for key, tensor in source.tensors.items())
        share = fitting / max(len(source.tensors), 1)
        if share > most:
            likely, most = name, share
    return likely


def _likely_family(source: WeightsSource) -> list[str]:
    """Return the backbones of the torchvision module whose first network shares most names with the file."""
    models = load_torchvision().models
    families: dict[str, list[str]] = {}
    for name in (name for name in backbone_names() if ":" not in name):
        families.setdefault(models.get_model_builder(name).__module__, []).append(name)
    shared = {
        family: len(source.tensors.keys() & _state_shapes(names[0], _USUAL_SIZE).keys())
        for family, names in families.items()
    }
    return families[max(shared, key=lambda family: shared[family])]
