"""Published weights files: downloaded once into torch's own cache folder, and checked against their names."""

import re
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlparse

import torch

from ttl_deploy.errors import StorageError, WeightsError
from ttl_deploy.files import make_folder, sha256_file

REMEDIES = "or give a file you have with --weights FILE, or start from random weights with --weights none"

# torchvision's file names end in the first digits of their SHA-256.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,})\.pth$")


def download(url: str) -> Path:
    """Return the path of a file in torch's cache (`TORCH_HOME`), downloading it where it is missing.

    Raises `WeightsError` where it cannot be had, or is not the file that its name says.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    path = folder / Path(urlparse(url).path).name
    expected = _HASH_IN_NAME.search(path.name)
    if path.exists():
        if expected and not sha256_file(path).startswith(expected.group(1)):
            raise WeightsError(
                f"{path} is damaged: its SHA-256 is not the one in its name. Delete it and try again, {REMEDIES}"
            )
        return path
    try:
        make_folder(folder)
        torch.hub.download_url_to_file(url, str(path), expected and expected.group(1), progress=False)
    except (OSError, HTTPException, RuntimeError, StorageError) as error:
        raise WeightsError(
            f"could not download {path.name} ({error}): fetch {url} on another machine "
            f"and put it into {folder}, {REMEDIES}"
        ) from error
    return path
