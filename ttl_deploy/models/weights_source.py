"""Weights files: where they come from, how they are read, what is in them. No code in a file ever runs."""

import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import safetensors.torch
import torch
from safetensors import SafetensorError

from ttl_deploy.errors import StorageError, WeightsError
from ttl_deploy.files import make_folder, sha256_file
from ttl_deploy.models.torchvision_border import load_torchvision

IMAGENET = "imagenet"
NONE = "none"
_SUFFIXES = (".pth", ".pt", ".safetensors")
_REMEDIES = "or give a file you have with --weights FILE, or start from random weights with --weights none"

# torchvision's file names end in the first digits of their SHA-256.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.pth$")
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
    path = _fetch_imagenet(backbone) if weights == IMAGENET else Path(weights).expanduser()
    if not path.is_file():
        raise WeightsError(f"no weights file {weights!r}: --weights takes {IMAGENET}, {NONE} or the path of a file")
    if path.suffix not in _SUFFIXES:
        raise WeightsError(
            f"{path.name} is not a known kind of weights file: its name must end in {', '.join(_SUFFIXES)}"
        )
    stat = path.stat()
    source = _read(path, stat.st_mtime_ns, stat.st_size)
    if weights == IMAGENET:
        _check_published_hash(path, source.sha256)
    return source


def _fetch_imagenet(backbone: str) -> Path:
    """Return the path of torchvision's weights file in torch's cache, downloading it where it is missing."""
    url = load_torchvision().models.get_model_weights(backbone).DEFAULT.url
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(urlparse(url).path).name
    if path.exists():
        return path
    expected = _HASH_IN_NAME.search(path.name)
    try:
        make_folder(folder)
        torch.hub.download_url_to_file(url, str(path), expected and expected.group(1), progress=False)
    except (OSError, HTTPException, RuntimeError, StorageError) as error:
        raise WeightsError(
            f"could not download {path.name} ({error}): fetch {url} on another machine "
            f"and put it into {folder}, {_REMEDIES}"
        ) from error
    return path


def _check_published_hash(path: Path, sha256: str) -> None:
    expected = _HASH_IN_NAME.search(path.name)
    if expected and not sha256.startswith(expected.group(1)):
        raise WeightsError(
            f"{path} is damaged: its SHA-256 is not the one in its name. Delete it and try again, {_REMEDIES}"
        )


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
