"""Truncated models: their sizes, what they hold, how they switch between training and evaluation."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ttl_deploy.errors import UnknownNameError
from ttl_deploy.models.backbones import backbone_names
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.truncation import build, tap
from ttl_deploy.records.models import ModelSpec

HUGE = ("regnet_y_128gf", "vit_h_14")  # gigabytes of weights
SIDE = {"inception_v3": 96, "maxvit_t": 224, "vit_h_14": 56}


def spec(backbone: str, cut: str, classes: int = 2) -> ModelSpec:
    return ModelSpec(backbone=backbone, cut=cut, classes=classes, image_size=SIDE.get(backbone, 64))


def images(backbone: str) -> Tensor:
    side = SIDE.get(backbone, 64)
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def sample_cuts(backbone: str) -> list[str]:
    cuts = [cut.name for cut in list_cuts(backbone, image_size=SIDE.get(backbone, 64), classes=2)][:-1]
    return [cuts[0], cuts[2 * len(cuts) // 3], cuts[-1]]


@pytest.mark.parametrize(
    "backbone", ["densenet121", "mobilenet_v2", "squeezenet1_1", "convnext_tiny", "efficientnet_b0"]
)
def test_params_and_macs_of_a_cut_are_those_of_the_built_model(backbone: str) -> None:
    cuts = {cut.name: cut for cut in list_cuts(backbone, image_size=64, classes=5)}
    for name in [*sample_cuts(backbone), "full"]:
        model = build(spec(backbone, name, classes=5))
        assert sum(parameter.numel() for parameter in model.parameters()) == cuts[name].params
        assert count_with_torch(model, 64) == cuts[name].macs


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [name for name in backbone_names() if ":" not in name and name not in HUGE])
def test_macs_of_every_backbone_are_half_of_torchs_flops(backbone: str) -> None:
    side = SIDE.get(backbone, 64)
    cuts = list_cuts(backbone, image_size=side, classes=2)
    for cut in (cuts[len(cuts) // 2], cuts[-1]):
        model = build(spec(backbone, cut.name))
        assert count_with_torch(model, side) == cut.macs
        assert sum(parameter.numel() for parameter in model.parameters()) == cut.params


def count_with_torch(model: nn.Module, side: int) -> int:
    with FlopCounterMode(display=False) as counter:
        model.to("meta").eval()(torch.empty(1, 3, side, side, device="meta"))
    return counter.get_total_flops() // 2


def test_nothing_past_the_cut_is_held() -> None:
    model = build(spec("densenet121", "features.denseblock3.denselayer12"))
    keys = list(model.state_dict())
    assert "trunk.features.denseblock3.denselayer12.conv2.weight" in keys
    assert not [key for key in keys if "denselayer13" in key and "denseblock3" in key]
    assert not [key for key in keys if "denseblock4" in key or "classifier" in key]
    assert not [name for name, _ in model.named_modules() if "denseblock4" in name]


def test_heads_start_with_batch_norm_and_relu_only_where_the_features_need_it() -> None:
    dense, residual = build(spec("densenet121", "features.transition1")), build(spec("resnet18", "layer1.1"))
    assert [type(layer) for layer in dense.head.norm] == [nn.BatchNorm2d, nn.ReLU]
    assert not list(residual.head.norm.parameters())


def varies(part: nn.Module, given: Tensor, *, training: bool) -> bool:
    """Tell whether two runs on the same input differ; BatchNorm stays in eval mode, its statistics fixed."""
    part.train(training)
    for layer in part.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    with torch.no_grad():
        return not torch.equal(part(given), part(given))


def test_dropout_and_stochastic_depth_still_switch() -> None:
    stochastic_depth = build(spec("efficientnet_b0", "features.7.0")).trunk
    own_dropout = build(spec("squeezenet1_1", "full")).trunk
    head_dropout = build(ModelSpec(backbone="resnet18", cut="maxpool", classes=2, image_size=64, dropout=0.5))
    for part in (stochastic_depth, own_dropout, head_dropout):
        assert varies(part, images(""), training=True)
        assert not varies(part, images(""), training=False)
    assert not varies(build(spec("resnet18", "layer1.1")), images(""), training=True)


def test_one_seed_gives_all_cuts_the_same_random_trunk() -> None:
    states = []
    for cut in ("layer2.0", "full"):
        torch.manual_seed(7)
        states.append(build(spec("resnet18", cut)).trunk.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_two_builds_have_the_same_keys_in_the_same_order() -> None:
    first, second = (build(spec("densenet121", "features.transition1")).state_dict() for _ in range(2))
    assert list(first) == list(second)


def test_gradients_reach_every_parameter_of_a_dense_cut() -> None:
    model = build(spec("densenet121", "features.denseblock1.denselayer3"))
    model(images("")).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_an_unknown_cut_is_refused_with_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown cut 'layer3\.7'"):
        build(spec("resnet18", "layer3.7"))


def test_a_truncated_model_can_be_copied_and_exported() -> None:
    model = build(spec("shufflenet_v2_x0_5", "stage3.3")).eval()
    copied = copy.deepcopy(model)
    exported = torch.export.export(model, (images(""),))
    with torch.no_grad():
        expected = model(images(""))
        assert torch.equal(copied(images("")), expected)
        assert torch.allclose(exported.module()(images("")), expected, atol=1e-5)


@pytest.mark.parametrize("backbone", ["alexnet", "densenet121", "mobilenet_v2", "resnet18", "squeezenet1_1", "swin_t"])
@pytest.mark.parametrize("training", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_taps_return_what_the_trunk_of_every_cut_returns(backbone: str, training: bool) -> None:
    cuts = [cut.name for cut in list_cuts(backbone, image_size=64, classes=2)]
    chosen = [*cuts[:: max(1, len(cuts) // 3)], "full"]
    torch.manual_seed(0)
    whole = build(spec(backbone, "full"))
    for cut, features in zip(
        chosen, run(tap(whole.trunk, spec(backbone, "full"), chosen), backbone, training), strict=True
    ):
        alone = build(spec(backbone, cut)).trunk
        alone.load_state_dict(
            {name: value for name, value in whole.trunk.state_dict().items() if name in alone.state_dict()}
        )
        assert torch.equal(features, run(alone, backbone, training))


def run(module: nn.Module, backbone: str, training: bool) -> Tensor:
    """Run under one seed, and leave no trace in the statistics of BatchNorm."""
    torch.manual_seed(7)
    return copy.deepcopy(module).train(training)(images(backbone))


def test_taps_share_the_trunks_parameters() -> None:
    model = build(spec("resnet18", "layer3.1"))
    taps = tap(model.trunk, spec("resnet18", "layer3.1"), ["layer1.1", "layer3.1"])
    shared = {id(parameter) for parameter in model.trunk.parameters()}
    assert {id(parameter) for parameter in taps.parameters()} == shared
