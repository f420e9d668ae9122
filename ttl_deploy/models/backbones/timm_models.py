"""Networks of the timm library, by its names, where it is installed."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ttl_deploy import plugins
from ttl_deploy.errors import UnknownNameError, WeightsError
from ttl_deploy.models.backbones.backbone import Backbone, Published
from ttl_deploy.models.backbones.downloads import REMEDIES, download
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.records.models import InputConvention


class TimmFamily:
    """timm's networks: `timm:resnet18`, `timm:resnet18.a1_in1k` for particular weights."""

    def names(self) -> tuple[str, ...]:
        """Return nothing: there are over a thousand, which timm lists itself."""
        return ()

    def find(self, name: str) -> Backbone:
        """Return one of them; raises `UnknownNameError`, and `MissingExtraError` without timm."""
        timm = _load_timm()
        if not timm.is_model(name):
            raise UnknownNameError("timm network", name, timm.list_models())
        return Backbone(
            name=f"timm:{name}", build=partial(_build, name), published=_find_published(timm, name), fit=_fit_positions
        )


def _load_timm() -> Any:
    load_torchvision()  # timm imports torchvision
    return plugins.import_part("timm", need="a backbone timm:NAME")


def _build(name: str, image_size: int) -> nn.Module:
    """Build with random weights; networks with position embeddings are told the image size."""
    create: Callable[..., nn.Module] = partial(_load_timm().create_model, name, pretrained=False)
    try:
        return create(img_size=image_size)
    except TypeError:
        return create()


def _fit_positions(tensors: Mapping[str, Tensor], image_size: int) -> Mapping[str, Tensor]:
    """Interpolate a Vision Transformer's position embeddings to the grid of another image size."""
    embedding, patches = tensors.get("pos_embed"), tensors.get("patch_embed.proj.weight")
    if embedding is None or patches is None or embedding.ndim != 3:
        return tensors
    side = image_size // patches.shape[-1]
    prefix = embedding.shape[1] - math.isqrt(embedding.shape[1]) ** 2  # class and register tokens
    if embedding.shape[1] - prefix == side**2:
        return tensors
    layers = plugins.import_part("timm.layers", need="weights of timm")
    fitted: Tensor = layers.resample_abs_pos_embed(embedding, [side, side], num_prefix_tokens=prefix)
    return {**tensors, "pos_embed": fitted}


def _find_published(timm: Any, name: str) -> Published | None:
    weights = timm.get_pretrained_cfg(name)
    if weights is None or not (weights.url or weights.hf_hub_id):
        return None
    return Published(
        source=weights.url or f"https://huggingface.co/{weights.hf_hub_id}",
        fetch=partial(_fetch, weights),
        convention=InputConvention(mean=tuple(weights.mean), std=tuple(weights.std)),
    )


def _fetch(weights: Any) -> Path:
    """Return the file, from the hub's cache or downloaded."""
    if not weights.hf_hub_id:
        return download(weights.url)
    hub = plugins.import_part("huggingface_hub", need="weights of timm")
    try:
        return Path(hub.hf_hub_download(weights.hf_hub_id, weights.hf_hub_filename or "model.safetensors"))
    except (OSError, ValueError, hub.errors.HfHubHTTPError, hub.errors.LocalEntryNotFoundError) as error:
        raise WeightsError(
            f"could not download {weights.hf_hub_id} ({type(error).__name__}): fetch model.safetensors of "
            f"https://huggingface.co/{weights.hf_hub_id} on another machine, {REMEDIES}"
        ) from error
