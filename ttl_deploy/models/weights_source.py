"""Weights files: where they come from, how they are read, what is in them. No code in a file ever runs."""

import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from ttl_deploy.errors import WeightsError
from ttl_deploy.files import sha256_file
from ttl_deploy.models.backbones import find_backbone

IMAGENET = "imagenet"
NONE = "none"
_SUFFIXES = (".pth", ".pt", ".safetensors")
# DenseNet's published files still have the names from before its layers were renamed.
_OLD_DENSENET_NAME = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")

# What torch.load and safetensors raise on damaged, truncated or hostile content.
_READ_ERRORS = (
    *(pickle.UnpicklingError, SafetensorError, struct.error, OSError, EOFError, RuntimeError, AssertionError),
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError, ImportError, MemoryError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsSource:
    """The tensors of a weights file under a network's own names, and the file's SHA-256."""

    name: str
    sha256: str
    tensors: Mapping[str, torch.Tensor]


def find_weights(weights: str, backbone: str) -> WeightsSource | None:
    """Read the weights that `--weights` names: None for `none`; raises `WeightsError`.

    `imagenet` is torchvision's best set for this network, through torch's own download cache. The
    last file that was read is kept in memory, so that several cuts do not read it again.
    """
    if weights == NONE:
        return None
    path = _fetch_published(backbone) if weights == IMAGENET else Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(f"no weights file {weights!r}: --weights takes {IMAGENET}, {NONE} or the path of a file")
    if path.suffix not in _SUFFIXES:
        raise WeightsError(
            f"{path.name} is not a known kind of weights file: its name must end in {', '.join(_SUFFIXES)}"
        )
    stat = path.stat()
    return _read(path, stat.st_mtime_ns, stat.st_size)


def _fetch_published(backbone: str) -> Path:
    published = find_backbone(backbone).published
    if published is None:
        raise WeightsError(f"{backbone} has no published weights: give --weights FILE, or --weights {NONE}")
    return published.fetch()


@lru_cache(maxsize=1)
def _read(path: Path, _modified: int, _size: int) -> WeightsSource:
    try:
        content = _load(path)
        sha256 = sha256_file(path)
    except _READ_ERRORS as error:
        raise WeightsError(
            f"{path} cannot be read as weights ({type(error).__name__}): it is damaged, or holds more than tensors. "
            "Save a plain state_dict with torch.save(model.state_dict(), ...), or use .safetensors"
        ) from error
    tensors = _collect_tensors(content)
    if not tensors:
        raise WeightsError(
            f"{path} holds no weights: a state_dict, alone or under 'state_dict' or 'model', was expected"
        )
    return WeightsSource(name=path.name, sha256=sha256, tensors=tensors)


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a TorchScript archive warns before it is refused
        return torch.load(path, map_location="cpu", weights_only=True)


def _collect_tensors(content: Any) -> dict[str, torch.Tensor]:
    """Unwrap a checkpoint and bring its names into the network's own form; entries that are no tensors are left."""
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
