"""What a model costs, counted a second time: by hooks with the formulas of a textbook, by torchinfo, by torchvision."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import pytest
import torch
import torchinfo
from torch import Tensor, nn

from ttl_deploy.models.backbones import backbone_names, build_meta_backbone
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.records.models import Cut

CONVOLUTIONAL = (
    *("alexnet", "vgg11_bn", "resnet50", "densenet121", "googlenet", "mobilenet_v2", "shufflenet_v2_x1_0"),
    "squeezenet1_1",
)
"""Of ConvNeXt, whose blocks hold a parameter themselves, torchinfo counts no layers inside a block."""


def full_cut(backbone: str, size: int) -> Cut:
    return list_cuts(backbone, image_size=size, classes=1000)[-1]


@contextmanager
def counting(model: nn.Module, count: Callable[[nn.Module, Tensor], int]) -> Iterator[dict[str, int]]:
    """Count, for every layer without parts that runs, what `count` says of the layer and its output."""
    counts: dict[str, int] = {}
    handles = []
    for path, layer in model.named_modules():
        if not list(layer.children()):

            def note(layer: nn.Module, _given: Any, output: Tensor, path: str = path) -> None:
                counts[path] = counts.get(path, 0) + count(layer, output)

            handles.append(layer.register_forward_hook(note))
    try:
        with torch.no_grad():
            yield counts
    finally:
        for handle in handles:
            handle.remove()


def count_positions(layer: nn.Module, output: Tensor) -> int:
    return output.numel() // output.shape[-1 if isinstance(layer, nn.Linear) else 1]


def count_macs(layer: nn.Module, output: Tensor) -> int:
    """Return one multiplication per weight and output position; a convolution's groups are in its weight already."""
    is_counted = isinstance(layer, nn.Conv2d | nn.Linear)
    return count_positions(layer, output) * layer.weight.numel() if is_counted else 0


def count_like_torchinfo(layer: nn.Module, output: Tensor) -> int:
    """Return what torchinfo counts: biases as well, and a BatchNorm's parameters once for all positions."""
    parameters = sum(parameter.numel() for parameter in layer.parameters())
    return parameters * (count_positions(layer, output) if isinstance(layer, nn.Conv2d) else 1)


IMAGE = torch.empty(1, 3, 224, 224, device="meta")


@pytest.mark.parametrize("backbone", [*CONVOLUTIONAL, "convnext_tiny", "efficientnet_b0", "regnet_y_400mf"])
def test_macs_are_those_that_the_formulas_for_convolutions_and_linear_layers_give(backbone: str) -> None:
    model = build_meta_backbone(backbone, image_size=224)
    with counting(model, count_macs) as counts:
        model(IMAGE)
    full = full_cut(backbone, 224)
    assert full.macs == sum(counts.values())
    assert full.layers == sum(count > 0 for count in counts.values())


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "efficientnet_b0"])
def test_macs_of_a_cut_are_those_of_the_layers_before_it_and_of_its_head(backbone: str) -> None:
    model = build_meta_backbone(backbone, image_size=224)
    cuts = {cut.name: cut for cut in list_cuts(backbone, image_size=224, classes=7)[:-1]}
    reached: dict[str, int] = {}
    with counting(model, count_macs) as counts:
        for name in cuts:
            keep = lambda *_, name=name: reached.update({name: sum(counts.values())})  # noqa: E731 # as elsewhere
            model.get_submodule(name).register_forward_hook(keep)
        model(IMAGE)
    assert {name: cut.macs for name, cut in cuts.items()} == {
        name: macs + 7 * cuts[name].channels for name, macs in reached.items()
    }


@pytest.mark.parametrize("backbone", CONVOLUTIONAL)
def test_torchinfo_counts_as_many_multiplications(backbone: str) -> None:
    """Exactly so with the additions of biases and BatchNorms that it counts too: less than one in a hundred."""
    model = build_meta_backbone(backbone, image_size=224)
    report = torchinfo.summary(model, input_data=IMAGE, device="meta", verbose=0)
    with counting(model, count_macs) as ours, counting(model, count_like_torchinfo) as theirs:
        model(IMAGE)
    full = full_cut(backbone, 224)
    assert full.params == report.total_params
    assert full.macs + sum(theirs.values()) - sum(ours.values()) == report.total_mult_adds
    assert full.macs == pytest.approx(report.total_mult_adds, rel=0.01)


@pytest.mark.parametrize("backbone", ["vit_b_16", "vit_b_32"])
def test_macs_of_a_vision_transformer_follow_from_its_sizes(backbone: str) -> None:
    """Dosovitskiy et al. 2021, table 1: 12 layers, 768 wide, MLP 3072 wide; attention multiplies twice, n · n · 768."""
    patch = int(backbone.rpartition("_")[2])
    patches, width = (224 // patch) ** 2, 768
    tokens = patches + 1
    layer = tokens * (4 * width * width + 2 * width * 3072) + 2 * tokens * tokens * width
    assert full_cut(backbone, 224).macs == patches * prod((3, patch, patch, width)) + 12 * layer + 1000 * width


OTHER_FILES = ("googlenet", "inception_v3", "wide_resnet50_2", "wide_resnet101_2")
"""The published files of the first two hold auxiliary classifiers too; those of the others half-precision weights."""


def count_auxiliary(backbone: str) -> int:
    """Return the parameters of an auxiliary classifier that torchvision's figure holds; we never build it."""
    if backbone != "inception_v3":
        return 0
    with torch.device("meta"):
        model = load_torchvision().models.inception_v3(weights=None, init_weights=False)
    return sum(parameter.numel() for parameter in model.AuxLogits.parameters())


def published(backbone: str) -> Any:
    """Return torchvision's own figures for a network's first weights."""
    return next(iter(load_torchvision().models.get_model_weights(backbone)))


def check_published(backbone: str) -> None:
    """Compare with what torchvision prints: GFLOPS, by which it means 10⁹ MACs, to three digits after the point."""
    weights = published(backbone)
    full = full_cut(backbone, weights.transforms.keywords["crop_size"])
    assert round(full.macs / 1e9, 3) == weights.meta["_ops"]
    assert full.params == weights.meta["num_params"] - count_auxiliary(backbone)
    if backbone not in OTHER_FILES:
        assert full.weights_bytes / 2**20 == pytest.approx(weights.meta["_file_size"], rel=0.03)


FAST = (
    *("alexnet", "vgg16", "resnet18", "resnet50", "densenet121", "mobilenet_v2", "mobilenet_v3_large"),
    *(
        "efficientnet_b0",
        "shufflenet_v2_x1_0",
        "squeezenet1_0",
        "regnet_x_400mf",
        "convnext_tiny",
        "vit_b_16",
        "swin_t",
    ),
)
TORCHVISIONS = [name for name in backbone_names() if ":" not in name]


@pytest.mark.parametrize("backbone", FAST)
def test_costs_are_the_published_ones(backbone: str) -> None:
    check_published(backbone)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", TORCHVISIONS)
def test_costs_of_every_torchvision_network_are_the_published_ones(backbone: str) -> None:
    check_published(backbone)
