"""Weights into models and out of them: pretrained ones into the trunk, trained ones to safetensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from ttl_deploy import plugins
from ttl_deploy.errors import WeightsError
from ttl_deploy.files import publish_bytes, sha256_bytes
from ttl_deploy.models.backbones import find_backbone
from ttl_deploy.models.graph.tracing import trace_backbone
from ttl_deploy.models.input_conventions import AUTO, Feeding, describe_convention, format_convention
from ttl_deploy.models.places import Place, find_classifier, find_places
from ttl_deploy.models.truncation import MultiExitModel, TruncatedModel, find_place
from ttl_deploy.models.weights.backbone_state import list_prefixes, read_state
from ttl_deploy.models.weights.prepared import PreparedWeights, find_feeding, hint_network, read_prepared
from ttl_deploy.models.weights.source import CONVENTION
from ttl_deploy.records.models import Cut, InputConvention, ModelSpec
from ttl_deploy.records.weights import Coverage, WeightsUsed


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsNote:
    """What a model started from, in words, and the SHA-256 of the file (empty for random weights)."""

    text: str
    sha256: str


def load_pretrained(
    model: TruncatedModel | MultiExitModel, spec: ModelSpec, weights: str, *, feeding: Feeding | None = None
) -> WeightsNote:
    """Load `imagenet`, `none` or a file into the trunk of a model built from `spec`; the head stays random.

    The file's classification layer is not used. Layers past the cut may be missing from it; the
    note says which. Anything else that is missing or misshapen raises `WeightsError`, and so do
    weights of another network and files that cannot be read or downloaded. Without `feeding`, the
    one that `--normalise auto` finds is taken.
    """
    feeding = feeding or find_feeding(weights, spec.backbone, image_size=spec.image_size)
    prepared = read_prepared(weights, spec.backbone, image_size=spec.image_size, feeding=feeding)
    if prepared is None:
        return WeightsNote(text=_describe_start(spec.backbone), sha256="")
    misfits = _find_misfits(prepared, spec.backbone, spec.image_size)
    if misfits[spec.cut]:
        hint = _hint(prepared, spec.backbone, misfits)
        raise WeightsError(_explain(prepared, spec.backbone, spec.cut, misfits, hint))
    _copy(prepared, model.trunk, spec.backbone)
    return WeightsNote(text=_describe(prepared, find_place(spec)), sha256=prepared.source.sha256)


def check_weights(
    weights: str, backbone: str, cuts: Sequence[Cut], *, image_size: int, normalise: str = AUTO
) -> WeightsUsed:
    """Tell what the weights are, and for each cut whether they cover its trunk, without building a model.

    Raises `WeightsError` where the weights cannot be read or downloaded, or are another network's.
    """
    feeding = find_feeding(weights, backbone, image_size=image_size, normalise=normalise)
    prepared = read_prepared(weights, backbone, image_size=image_size, feeding=feeding)
    source = prepared.source if prepared else None
    return WeightsUsed(
        weights=weights,
        url=source.url if source else "",
        path=str(source.path) if source else "",
        sha256=source.sha256 if source else "",
        changes=prepared.changes if prepared else (),
        file_input=feeding.file,
        input=feeding.network,
        input_in_words=describe_convention(feeding.network),
        note="" if prepared else _describe_start(backbone),
        cuts=_cover(prepared, backbone, cuts, image_size)
        if prepared
        else tuple(Coverage(cut=cut.name, covered=True) for cut in cuts),
    )


def save_weights(model: nn.Module, path: Path, *, convention: InputConvention | None = None) -> str:
    """Publish a model's parameters and buffers as a safetensors file; returns its SHA-256.

    `convention` says in the file how images were brought to the model, so that `--weights` knows it.
    """
    metadata = {CONVENTION: format_convention(convention)} if convention else None
    content = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}, metadata
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


def _cover(prepared: PreparedWeights, backbone: str, cuts: Sequence[Cut], image_size: int) -> tuple[Coverage, ...]:
    misfits = _find_misfits(prepared, backbone, image_size)
    hint = _hint(prepared, backbone, misfits) if any(misfits[cut.name] for cut in cuts) else ""
    places = {place.name: place for place in find_places(backbone, image_size)}
    return tuple(
        Coverage(cut=cut.name, covered=False, reason=_explain(prepared, backbone, cut.name, misfits, hint))
        if misfits[cut.name]
        else Coverage(cut=cut.name, covered=True, tensors=len(_taken(places[cut.name])))
        for cut in cuts
    )


def _list_needed(backbone: str, image_size: int) -> dict[str, torch.Tensor]:
    """Return, without values, the tensors that a file must hold for a whole backbone.

    Without BatchNorm's step counters, which old files lack and which nothing here computes with, and
    without what starts random on purpose.
    """
    takes = find_backbone(backbone).takes
    state = read_state(backbone, image_size)
    return {name: own for name, own in state.items() if takes(name) and not name.endswith("num_batches_tracked")}


def _is_in_trunk(name: str, place: Place) -> bool:
    return not place.targets.isdisjoint(list_prefixes(name))


def _taken(place: Place) -> set[str]:
    """Return what a trunk takes from a file that covers it."""
    needed = _list_needed(place.measured.symbolic.name, place.measured.image_size)
    return {name for name in needed if _is_in_trunk(name, place)}


def _find_misfits(prepared: PreparedWeights, backbone: str, image_size: int) -> dict[str, dict[str, str]]:
    """Return, per cut, what is wrong with each tensor of its trunk that does not fit; empty where all do."""
    problems = {
        name: problem
        for name, own in _list_needed(backbone, image_size).items()
        if (problem := _find_problem(prepared.tensors.get(name), own))
    }
    return {
        place.name: {name: problem for name, problem in problems.items() if _is_in_trunk(name, place)}
        for place in find_places(backbone, image_size)
    }


def _find_problem(tensor: torch.Tensor | None, own: torch.Tensor) -> str:
    """Say what is wrong with a tensor for one of the network's own, which has a shape but no values."""
    if tensor is None:
        return "is missing"
    if tensor.shape != own.shape:
        return f"has shape {tuple(tensor.shape)}, not {tuple(own.shape)}"
    if own.is_floating_point() and not tensor.is_floating_point():
        return f"holds {tensor.dtype}, not floating-point numbers"
    return "" if bool(torch.isfinite(tensor).all()) else "holds values that are not finite"


@torch.no_grad()
def _copy(prepared: PreparedWeights, trunk: nn.Module, backbone: str) -> None:
    takes = find_backbone(backbone).takes
    for name, target in trunk.state_dict().items():
        tensor = prepared.tensors.get(name)
        if tensor is not None and takes(name) and tensor.shape == target.shape:
            target.copy_(tensor)


def _describe_start(backbone: str) -> str:
    """Describe a start without a file: the user's own function may have put in weights itself."""
    prefix, colon, _ = backbone.partition(":")
    return f"as built by {backbone}" if colon and prefix not in plugins.names("backbones") else "random initial weights"


def _describe(prepared: PreparedWeights, place: Place) -> str:
    backbone, image_size = place.measured.symbolic.name, place.measured.image_size
    taken = _taken(place)
    state = read_state(backbone, image_size)
    random = {name for name in state if _is_in_trunk(name, place) and not find_backbone(backbone).takes(name)}
    text = f"{prepared.source.name} covers the trunk"
    if random:
        text = f"{prepared.source.name} gave {len(taken)} tensors of the trunk, the rest starts random"
    return "; ".join([text, *prepared.changes, *_list_absent(prepared, place, taken | random)])


def _list_absent(prepared: PreparedWeights, place: Place, trunk: set[str]) -> list[str]:
    """Name the modules past the cut that the file does not hold, without the classification layer."""
    backbone, image_size = place.measured.symbolic.name, place.measured.image_size
    classifier = str(find_classifier(trace_backbone(backbone, image_size)).target)
    past = _list_needed(backbone, image_size).keys() - trunk - prepared.tensors.keys()
    absent = [name for name in past if classifier not in list_prefixes(name)]
    if not absent:
        return []
    modules = sorted({_first_module_past(name, trunk) for name in absent})
    shown = ", ".join(f"{module}.*" for module in modules[:4]) + (" …" if len(modules) > 4 else "")
    return [f"{shown}, {len(absent)} tensors past the cut, are not in the file"]


def _first_module_past(name: str, trunk: set[str]) -> str:
    """Return the outermost module around `name` that has nothing in the trunk."""
    inside = {prefix for other in trunk for prefix in list_prefixes(other)}
    return next((prefix for prefix in list_prefixes(name)[:-1] if prefix not in inside), name.rpartition(".")[0])


def _explain(
    prepared: PreparedWeights, backbone: str, cut: str, misfits: Mapping[str, Mapping[str, str]], hint: str
) -> str:
    misfit = misfits[cut]
    first = "; ".join(f"{name} {problem}" for name, problem in list(misfit.items())[:8])
    rest = f"; … {len(misfit)} tensors in all" if len(misfit) > 8 else ""
    return f"{prepared.source.name} does not fit {backbone} cut at {cut}: {first}{rest}. {hint}"


def _hint(prepared: PreparedWeights, backbone: str, misfits: Mapping[str, Mapping[str, str]]) -> str:
    covered = [cut for cut, misfit in misfits.items() if not misfit]
    if covered:
        return f"It covers the cuts up to {covered[-1]}: choose among those with --cuts"
    return hint_network(prepared.source, backbone)
