"""Weights files: where they come from, how they are read, what is in them. No code in a file ever runs."""

import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from ttl_deploy.errors import WeightsError
from ttl_deploy.files import sha256_file
from ttl_deploy.models.backbones import find_backbone
from ttl_deploy.models.backbones.backbone import Published
from ttl_deploy.models.input_conventions import parse_convention
from ttl_deploy.models.weights.pickled_models import explain_pickle
from ttl_deploy.records.models import InputConvention

IMAGENET = "imagenet"
NONE = "none"
CONVENTION = "ttl_deploy.input"
"""Where files of our own say how images were brought to their model, in a safetensors file's metadata."""
_PLAIN = "Save a plain state_dict with torch.save(model.state_dict(), ...), or use .safetensors"
_SUFFIXES = (".pth", ".pt", ".safetensors")
# DenseNet's published files still have the names from before its layers were renamed.
_OLD_DENSENET_NAME = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
# The thresholds of torchxrayvision's networks, which no other network has.
_TORCHXRAYVISION_MARK = "op_threshs"

# What torch.load and safetensors raise on damaged, truncated or hostile content.
_READ_ERRORS = (
    *(pickle.UnpicklingError, SafetensorError, struct.error, OSError, EOFError, RuntimeError, AssertionError),
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError, ImportError, MemoryError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSource:
    """The tensors of a weights file, and where it is from.

    `url` is empty for the user's own files; `torchxrayvision` tells whether the file bears that library's
    mark; `convention` is how images were brought to its network, where the file says so.
    """

    name: str
    path: Path
    sha256: str
    tensors: Mapping[str, torch.Tensor]
    torchxrayvision: bool
    convention: InputConvention | None
    url: str = ""


def find_weights(weights: str, backbone: str) -> WeightsSource | None:
    """Read the weights that `--weights` names: None for `none`; raises `WeightsError`.

    `imagenet` is torchvision's best set for this network, through torch's own download cache. The
    last file that was read is kept in memory, so that several cuts do not read it again.
    """
    if weights == NONE:
        return None
    if weights == IMAGENET:
        published = find_published(backbone)
        if published is None:
            raise WeightsError(f"{backbone} has no published weights: give --weights FILE, or --weights {NONE}")
        return replace(_open(published.fetch()), url=published.source)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(f"no weights file {weights!r}: --weights takes {IMAGENET}, {NONE} or the path of a file")
    return _open(path)


def find_published(backbone: str) -> Published | None:
    """Return a backbone's published weights, or those of the network it takes its weights from."""
    found = find_backbone(backbone)
    if found.published is None and found.weights_of is not None:
        return find_published(found.weights_of)
    return found.published


def _open(path: Path) -> WeightsSource:
    if path.suffix not in _SUFFIXES:
        raise WeightsError(
            f"{path.name} is not a known kind of weights file: its name must end in {', '.join(_SUFFIXES)}"
        )
    stat = path.stat()
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1)
def _read(path: Path, _modified: int, _size: int) -> WeightsSource:
    try:
        content = _load(path)
        convention = _read_convention(path)
        sha256 = sha256_file(path)
    except _READ_ERRORS as error:
        raise WeightsError(
            f"{path} cannot be read as weights ({type(error).__name__}): it is damaged, or holds more than tensors. "
            + (explain_pickle(path) or _PLAIN)
        ) from error
    tensors = _collect_tensors(content)
    if not tensors:
        raise WeightsError(
            f"{path} holds no weights: a state_dict, alone or under 'state_dict' or 'model', was expected"
        )
    return WeightsSource(
        name=path.name,
        path=path.resolve(),
        sha256=sha256,
        tensors={name: tensor for name, tensor in tensors.items() if not _is_mark(name)},
        torchxrayvision=any(map(_is_mark, tensors)),
        convention=convention,
    )


def _is_mark(name: str) -> bool:
    return name.rpartition(".")[2] == _TORCHXRAYVISION_MARK


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a TorchScript archive warns before it is refused
        return torch.load(path, map_location="cpu", weights_only=True)


def _read_convention(path: Path) -> InputConvention | None:
    """Return the convention that a file of our own names."""
    if path.suffix != ".safetensors":
        return None
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(CONVENTION)
    return parse_convention(text) if text else None


def _collect_tensors(content: Any) -> dict[str, torch.Tensor]:
    """Unwrap a checkpoint; entries that are no tensors are left out."""
    while isinstance(content, dict) and (inner := content.get("state_dict", content.get("model"))) is not None:
        content = inner
    if not isinstance(content, dict):
        return {}
    dense = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided
    }
    if dense and all(name.startswith("module.") for name in dense):  # saved from DataParallel
        dense = {name.removeprefix("module."): value for name, value in dense.items()}
    if any(name.startswith("trunk.") for name in dense):  # saved from a truncated model
        dense = {name.removeprefix("trunk."): value for name, value in dense.items() if name.startswith("trunk.")}
    return {_OLD_DENSENET_NAME.sub(r"\1\2", name): value for name, value in dense.items()}
