"""Truncated models against the full network: the same numbers up to the cut, and nothing past it."""

import copy
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ttl_deploy.errors import UnknownNameError
from ttl_deploy.models.backbones import backbone_names
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.models.truncation import build
from ttl_deploy.records.models import ModelSpec

SIDE = {"inception_v3": 96}
FAMILIES = (
    *("resnet18", "densenet121", "mobilenet_v2", "squeezenet1_1", "vgg11_bn", "shufflenet_v2_x0_5", "googlenet"),
    *("convnext_tiny", "regnet_y_400mf", "efficientnet_b0", "mnasnet0_5", "inception_v3", "mobilenet_v3_small"),
    *("alexnet",),
)
# Their linear layers take seconds to draw.
LARGE = ("alexnet", "vgg11_bn")


def spec(backbone: str, cut: str, classes: int = 2) -> ModelSpec:
    return ModelSpec(backbone=backbone, cut=cut, classes=classes, image_size=SIDE.get(backbone, 64))


def build_full_network(backbone: str) -> nn.Module:
    """Build torchvision's own network, with normalisation layers that do something."""
    inception = {"aux_logits": False, "init_weights": True, "transform_input": True}
    options = inception if backbone in ("googlenet", "inception_v3") else {}
    torch.manual_seed(0)
    model: nn.Module = load_torchvision().models.get_model(backbone, weights=None, **options)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.2)
            nn.init.normal_(layer.bias, 0.0, 0.2)
            nn.init.normal_(layer.running_mean, 0.0, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return model


def images(backbone: str) -> Tensor:
    side = SIDE.get(backbone, 64)
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def record_features(model: nn.Module, cuts: Iterable[str], given: Tensor) -> dict[str, Tensor]:
    """Return what the full network holds at each cut, through hooks on its own modules.

    Inside a dense block that is what the next layer is given, a list of tensors to be joined.
    """
    seen: dict[str, Tensor] = {}
    hooks = []
    for cut in cuts:
        block, _, last = cut.rpartition(".")
        if last.startswith("denselayer"):
            following = model.get_submodule(f"{block}.denselayer{int(last.removeprefix('denselayer')) + 1}")
            keep = lambda _, parts, cut=cut: seen.update({cut: torch.cat(parts[0], 1).clone()})  # noqa: E731
            hooks.append(following.register_forward_pre_hook(keep))
        else:
            keep = lambda _, __, output, cut=cut: seen.update({cut: output.clone()})  # noqa: E731
            hooks.append(model.get_submodule(cut).register_forward_hook(keep))
    with torch.no_grad():
        torch.manual_seed(2)
        model(given)
    for hook in hooks:
        hook.remove()
    return seen


def compare_with_full_network(backbone: str, cuts: list[str]) -> None:
    network = build_full_network(backbone)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    given = images(backbone)
    expected = {training: record_features(network.train(training), cuts, given) for training in (False, True)}
    for cut in cuts:
        truncated = build(spec(backbone, cut))
        truncated.trunk.load_state_dict({key: state[key] for key in truncated.trunk.state_dict()})
        for training in (False, True):
            with torch.no_grad():
                torch.manual_seed(2)
                features = truncated.train(training).trunk(given)
            assert torch.equal(features, expected[training][cut]), f"{backbone} {cut} training={training}"
        assert truncated(given).shape == (2, 2)


def sample_cuts(backbone: str) -> list[str]:
    cuts = [cut.name for cut in list_cuts(backbone, image_size=SIDE.get(backbone, 64), classes=2)][:-1]
    if backbone in LARGE:
        return [cuts[2 * len(cuts) // 3]]
    return [cuts[0], cuts[2 * len(cuts) // 3], cuts[-1]]


@pytest.mark.parametrize("backbone", FAMILIES)
def test_a_trunk_computes_bit_for_bit_what_the_full_network_does(backbone: str) -> None:
    compare_with_full_network(backbone, sample_cuts(backbone))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", FAMILIES)
def test_every_cut_of_every_family_is_exact(backbone: str) -> None:
    cuts = list_cuts(backbone, image_size=SIDE.get(backbone, 64), classes=2)[:-1]
    compare_with_full_network(backbone, [cut.name for cut in cuts])


@pytest.mark.parametrize(
    "backbone", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in FAMILIES]
)
def test_full_is_the_whole_network_with_its_own_pooling_and_classifier(backbone: str) -> None:
    """With 1000 classes all tensors fit, so the logits must be torchvision's."""
    network = build_full_network(backbone)
    model = build(spec(backbone, "full", classes=1000))
    own = network.state_dict()
    model.load_state_dict({key: own[key.partition(".")[2]] for key in model.state_dict()})
    assert len(model.state_dict()) == len(own)
    for training in (False, True):
        with torch.no_grad():
            torch.manual_seed(2)
            expected = network.train(training)(images(backbone))
            torch.manual_seed(2)
            assert torch.equal(model.train(training)(images(backbone)), expected)


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
@pytest.mark.parametrize("backbone", [name for name in backbone_names() if "128gf" not in name])
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
