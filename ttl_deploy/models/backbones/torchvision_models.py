"""torchvision's classification networks, by their own names."""

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

from torch import Tensor, nn

from ttl_deploy.models.backbones.backbone import Backbone, Published
from ttl_deploy.models.backbones.downloads import download
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.records.models import IMAGENET_INPUT

# Both were trained by another project on inputs scaled to -1..1. `transform_input` turns our
# ImageNet normalisation into that scale, as torchvision itself does with the pretrained weights;
# it stays on for random weights, so that a model's structure does not depend on its weights.
_INCEPTION_OPTIONS = {"aux_logits": False, "transform_input": True, "init_weights": True}
_OPTIONS: dict[str, dict[str, Any]] = {"googlenet": _INCEPTION_OPTIONS, "inception_v3": _INCEPTION_OPTIONS}


class TorchvisionFamily:
    """torchvision's classification networks, convolutional ones and transformers."""

    def names(self) -> tuple[str, ...]:
        """Return all their names, sorted."""
        return _names()

    def find(self, name: str) -> Backbone:
        """Return one of them; `name` must be in `names()`."""
        url = load_torchvision().models.get_model_weights(name).DEFAULT.url
        published = Published(source=url, fetch=partial(download, url), convention=IMAGENET_INPUT)
        return Backbone(
            name=name,
            build=partial(_build, name),
            published=published,
            fit=partial(_fit_positions, name) if name.startswith("vit_") else _as_they_are,
            builds_on_meta=True,
        )


@lru_cache(maxsize=1)
def _names() -> tuple[str, ...]:
    models = load_torchvision().models
    return tuple(sorted(models.list_models(module=models)))


def _build(name: str, image_size: int) -> nn.Module:
    options = dict(_OPTIONS.get(name, {}))
    if name.startswith("vit_"):
        options["image_size"] = image_size
    if name.startswith("maxvit_"):
        options["input_size"] = (image_size, image_size)
    model: nn.Module = load_torchvision().models.get_model(name, weights=None, **options)
    return model


def _as_they_are(tensors: Mapping[str, Tensor], image_size: int) -> Mapping[str, Tensor]:
    return tensors


def _fit_positions(name: str, tensors: Mapping[str, Tensor], image_size: int) -> Mapping[str, Tensor]:
    """Interpolate a Vision Transformer's position embeddings to the grid of another image size."""
    patch_size = int(name.rpartition("_")[2])
    vision_transformer = load_torchvision().models.vision_transformer
    fitted: Mapping[str, Tensor] = vision_transformer.interpolate_embeddings(image_size, patch_size, dict(tensors))
    return fitted
