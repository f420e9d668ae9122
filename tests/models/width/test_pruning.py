"""Narrowed models: the right channels are gone everywhere, and the structure comes back from plain numbers."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ttl_deploy.errors import DataError, UsageError
from ttl_deploy.models import truncation, weights
from ttl_deploy.models.truncation import TruncatedModel
from ttl_deploy.models.width import pruning
from ttl_deploy.models.width.pruning import ROUND_TO, narrow_spec, prune
from ttl_deploy.models.width.structure import resize_layers
from ttl_deploy.records import codec
from ttl_deploy.records.models import ModelSpec, NarrowLayer

FAMILIES = [
    ("resnet18", "layer3.1"),
    ("densenet121", "features.denseblock2"),
    ("mobilenet_v2", "features.9"),
    ("efficientnet_b0", "features.4.2"),
    ("vgg11_bn", "features.10"),
    ("googlenet", "inception4c"),
    ("regnet_y_400mf", "trunk_output.block2"),
    ("resnext50_32x4d", "layer2.3"),
    ("squeezenet1_1", "features.5"),
]


def spec_of(backbone: str, cut: str) -> ModelSpec:
    return ModelSpec(backbone=backbone, cut=cut, classes=3, image_size=64)


def build_lively(spec: ModelSpec) -> TruncatedModel:
    """Build a model in evaluation mode whose every number is another: no two slices of a weight are the same."""
    torch.manual_seed(3)
    model = truncation.build(spec).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.add_(0.1 * torch.rand_like(buffer))
    return model


def find_slices(narrow: Tensor, wide: Tensor, dim: int) -> list[int]:
    """Return which slices of `wide` along `dim` those of `narrow` are parts of, as the only ones with their values."""
    mine, theirs = (one.detach().movedim(dim, 0).flatten(1).numpy() for one in (narrow, wide))
    order = np.argsort(theirs, axis=None)
    values, owners = theirs.flatten()[order], order // theirs.shape[1]
    found = []
    for slice_ in mine:
        looked_up = slice_[:8]
        left, right = (np.searchsorted(values, looked_up, side) for side in ("left", "right"))
        holders = [set(owners[one:other]) for one, other in zip(left, right, strict=True)]
        (owner,) = set.intersection(*holders)
        found.append(int(owner))
    return found


@pytest.mark.parametrize(("backbone", "cut"), FAMILIES)
def test_a_narrowed_model_does_what_the_wide_one_does_that_reads_the_same_channels_only(
    backbone: str, cut: str
) -> None:
    """A wide model whose layers have zeros for the missing inputs computes the same.

    So additions, concatenations and depthwise convolutions all lost the same channels. Without LayerNorm, which looks
    at all channels at once.
    """
    spec = spec_of(backbone, cut)
    wide = build_lively(spec)
    narrow = copy.deepcopy(wide)
    assert prune(narrow, spec, width=0.5)

    masked = copy.deepcopy(wide)
    for name, layer in masked.named_modules():
        if not isinstance(layer, nn.Conv2d | nn.Linear) or layer.weight.shape[1] == 1:
            continue  # depthwise: one input each
        own = narrow.get_submodule(name).weight
        if own.shape[1] == layer.weight.shape[1]:
            continue
        kept = find_slices(own, layer.weight, 1)
        with torch.no_grad():
            gone = [i for i in range(layer.weight.shape[1]) if i not in kept]
            layer.weight[:, gone] = 0
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(narrow(images), masked(images), rtol=1e-3, atol=1e-4)
        assert not torch.allclose(narrow(images), wide(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("backbone", "cut"), [*FAMILIES[:3], ("convnext_tiny", "features.3.2")])
def test_the_structure_does_not_depend_on_the_weights_and_comes_back_from_json_and_safetensors(
    backbone: str, cut: str, tmp_path: Path
) -> None:
    spec = spec_of(backbone, cut)
    planned = narrow_spec(spec, 0.5)
    pruned = build_lively(spec)
    assert prune(pruned, spec, width=0.5) == planned.layers
    weights.save_weights(pruned, tmp_path / "w.safetensors")
    codec.save(tmp_path / "spec.json", planned)

    again = truncation.build(codec.load(ModelSpec, tmp_path / "spec.json")).eval()
    weights.load_weights(again, tmp_path / "w.safetensors")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(images), pruned(images))


def test_half_the_channels_are_about_a_quarter_of_the_parameters_in_round_numbers_and_all_classes() -> None:
    spec = spec_of("densenet121", "features.transition1")
    wide, narrow = truncation.build(spec), truncation.build(narrow_spec(spec, 0.5))
    share = sum(p.numel() for p in narrow.parameters()) / sum(p.numel() for p in wide.parameters())
    assert 0.2 < share < 0.3
    for name, layer in narrow.named_modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.out_channels % ROUND_TO == 0, name
    assert isinstance(narrow.head.linear, nn.Linear)
    assert narrow.head.linear.out_features == 3


def test_channels_with_the_smallest_weights_go() -> None:
    """In the first convolution of VGG, whose channels nobody shares, every second filter is made tiny."""
    spec = spec_of("vgg11", "features.2")
    wide = build_lively(spec)
    first = next(layer for layer in wide.trunk.modules() if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        first.weight[::2] *= 1e-3
        wide.head.linear.weight[:, ::2] *= 1e-3
    narrow = copy.deepcopy(wide)
    prune(narrow, spec, width=0.5)
    kept = next(layer for layer in narrow.trunk.modules() if isinstance(layer, nn.Conv2d)).weight
    assert find_slices(kept, first.weight, 0) == list(range(1, 64, 2))


def test_narrowing_leaves_random_numbers_and_training_mode_alone() -> None:
    torch.manual_seed(0)
    narrow_spec(spec_of("resnet18", "layer1.1"), 0.25)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    model = truncation.build(spec_of("resnet18", "layer1.1")).train()
    prune(model, spec_of("resnet18", "layer1.1"), width=0.25)
    assert model.training


@pytest.mark.parametrize(
    ("backbone", "size", "why"),
    [("swin_t", 64, "transformer"), ("vit_b_16", 224, "transformer"), ("shufflenet_v2_x1_0", 64, "torch-pruning")],
)
def test_what_cannot_be_narrowed_is_refused_by_name(backbone: str, size: int, why: str) -> None:
    spec = ModelSpec(backbone=backbone, cut="full", classes=3, image_size=size)
    with pytest.raises(UsageError, match=f"{backbone}.*cannot be narrowed.*{why}"):
        narrow_spec(spec, 0.5)


@pytest.mark.parametrize("width", [0.0, 1.0, -0.5, 2.0])
def test_a_width_is_a_share(width: float) -> None:
    with pytest.raises(UsageError, match="above 0 and below 1"):
        narrow_spec(spec_of("resnet18", "layer1.1"), width)


def test_a_width_that_takes_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "ROUND_TO", 64)  # as many channels as every layer up to there has
    with pytest.raises(UsageError, match=r"no channels to spare at width 0\.55, in steps of 64"):
        narrow_spec(spec_of("resnet18", "layer1.1"), 0.55)


def test_the_structure_of_another_model_is_refused_by_the_layer_name() -> None:
    model = truncation.build(spec_of("resnet18", "layer1.1"))
    with pytest.raises(DataError, match=r"'trunk\.nothing'"):
        resize_layers(model, [NarrowLayer(name="trunk.nothing", sizes={"in_channels": 8})])


def test_a_spec_knows_what_it_was_narrowed_from() -> None:
    spec = spec_of("resnet18", "layer1.1")
    assert narrow_spec(spec, 0.5).at_full_width == spec
    assert replace(spec, width=0.5).at_full_width == spec
    assert np.isclose(narrow_spec(spec, 0.5).width, 0.5)
