"""Slim hybrids: the parent below, narrower above; what comes from its weights, and how the rest starts."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.models.backbones import backbone_names, build_backbone, find_backbone, slim
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.models.truncation import build
from ttl_deploy.models.weights.loading import load_pretrained
from ttl_deploy.records.models import ModelSpec

from .network_states import shake_batch_norms, shapes_of, state_of

SEEDED = "slim:densenet121?keep=features.transition3"


# ---- structure ----


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_resnet_kept_up_to_a_stage_is_torchvisions_with_half_the_planes_above(stage: int) -> None:
    resnet = load_torchvision().models.resnet
    expected = resnet.resnet50()
    for number, (planes, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        narrow = planes if number <= stage else planes // 2
        if number == 1:
            expected.inplanes = 64
        layer = expected._make_layer(resnet.Bottleneck, narrow, count, stride=1 if number == 1 else 2)
        setattr(expected, f"layer{number}", layer)
    expected.fc = nn.Linear(1024, 1000)
    assert shapes_of(state_of(f"slim:resnet50?keep=layer{stage}")) == shapes_of(expected.state_dict())


def test_a_densenet_kept_up_to_a_transition_is_torchvisions_with_half_the_growth_above() -> None:
    densenet = load_torchvision().models.densenet
    expected = densenet.DenseNet(growth_rate=16, block_config=(6, 12, 24, 16), num_init_features=64).features
    own = densenet.densenet121().features
    # Blocks 1 and 2 are DenseNet-121's; 256 channels enter block 3, which grows by 16 in each of 24 layers.
    for name in ("denseblock1", "transition1", "denseblock2", "transition2"):
        setattr(expected, name, getattr(own, name))
    expected.denseblock3 = densenet._DenseBlock(24, 256, bn_size=4, growth_rate=16, drop_rate=0)
    expected.transition3 = densenet._Transition(640, 320)
    expected.denseblock4 = densenet._DenseBlock(16, 320, bn_size=4, growth_rate=16, drop_rate=0)
    expected.norm5 = nn.BatchNorm2d(576)
    shapes = shapes_of(nn.ModuleDict({"features": expected, "classifier": nn.Linear(576, 1000)}).state_dict())
    assert shapes_of(state_of("slim:densenet121?keep=features.transition2")) == shapes


@pytest.mark.parametrize(("network", "counts", "stage"), [("resnet18", (2, 2, 2, 2), 1), ("resnet34", (3, 4, 6, 3), 3)])
def test_a_resnet_of_basic_blocks_is_torchvisions_with_half_the_planes_above(
    network: str, counts: tuple[int, ...], stage: int
) -> None:
    resnet = load_torchvision().models.resnet
    expected = getattr(resnet, network)()
    expected.inplanes = 64
    for number, (planes, count) in enumerate(zip((64, 128, 256, 512), counts, strict=True), start=1):
        narrow = planes if number <= stage else planes // 2
        layer = expected._make_layer(resnet.BasicBlock, narrow, count, stride=1 if number == 1 else 2)
        setattr(expected, f"layer{number}", layer)
    expected.fc = nn.Linear(256, 1000)
    hybrid = f"slim:{network}?keep=layer{stage}"
    assert shapes_of(state_of(hybrid)) == shapes_of(expected.state_dict())
    assert_sizes_are(expected, 256, hybrid)


def test_the_first_stage_of_basic_blocks_keeps_its_outer_width_as_nothing_changes_it() -> None:
    shapes = shapes_of(state_of("slim:resnet18?keep=maxpool"))
    assert shapes["layer1.0.conv1.weight"] == (32, 64, 3, 3)
    assert shapes["layer1.1.conv2.weight"] == (64, 32, 3, 3)
    assert shapes["layer2.0.conv1.weight"] == (64, 64, 3, 3)


STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""MobileNetV2's own table: expansion, channels, blocks and stride of each stage."""


@pytest.mark.parametrize(
    ("keep", "kept", "factor"),
    [("features.0", 0, 8), ("features.1", 1, 2), ("features.6", 3, 2), ("features.17", 7, 4)],
)
def test_a_mobilenet_kept_up_to_a_stage_is_torchvisions_with_narrow_stages_above(
    keep: str, kept: int, factor: int
) -> None:
    rows = [list(row) for row in STAGES[:kept]]
    for number, (expansion, channels, blocks, stride) in enumerate(STAGES[kept:]):
        # The first block above is given full width, so half the expansion makes half the inner width.
        first = expansion / factor if number == 0 and expansion > 1 else expansion
        rows.append([first, channels // factor, 1, stride])
        rows += [[expansion, channels // factor, blocks - 1, 1]] * (blocks > 1)
    mobilenet = load_torchvision().models.mobilenetv2
    expected = mobilenet.MobileNetV2(inverted_residual_setting=rows, round_nearest=1)
    narrow, last = 320 if kept == 7 else 320 // factor, 1280 // factor
    expected.features[18] = mobilenet.Conv2dNormActivation(narrow, last, 1, activation_layer=nn.ReLU6)
    expected.classifier[1] = nn.Linear(last, 1000)
    hybrid = f"slim:mobilenet_v2?keep={keep}&factor={factor}"
    assert shapes_of(state_of(hybrid)) == shapes_of(expected.state_dict())
    assert_sizes_are(expected, last, hybrid)


def assert_sizes_are(expected: nn.Module, features: int, backbone: str) -> None:
    """Compare parameters and MACs with those of a network built otherwise, counted by torch, for two classes."""
    params = sum(one.numel() for one in expected.parameters()) - (1000 - 2) * (features + 1)
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        expected.to("meta").eval()(torch.empty(1, 3, 64, 64))
    macs = counter.get_total_flops() // 2 - (1000 - 2) * features
    whole = list_cuts(backbone, image_size=64, classes=2)[-1]
    assert (whole.params, whole.macs) == (params, macs)


def test_a_mobilenet_left_in_the_middle_of_a_stage_keeps_the_stages_outer_width() -> None:
    shapes = shapes_of(state_of("slim:mobilenet_v2?keep=features.8"))
    assert shapes["features.8.conv.1.0.weight"] == (384, 1, 3, 3)
    assert shapes["features.9.conv.1.0.weight"] == (192, 1, 3, 3)
    assert shapes["features.10.conv.2.weight"] == (64, 192, 1, 1)
    assert shapes["features.11.conv.0.0.weight"] == (192, 64, 1, 1)
    assert shapes["features.11.conv.2.weight"] == (48, 192, 1, 1)
    assert shapes["features.17.conv.2.weight"] == (160, 480, 1, 1)


@torch.no_grad()
@pytest.mark.parametrize(("parent", "keep"), [("mobilenet_v2", "features.9"), ("resnet18", "layer2.0")])
def test_with_the_parents_weights_features_up_to_the_kept_unit_are_the_parents(
    parent: str, keep: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    whole = shake_batch_norms(build_backbone(parent, image_size=64))
    torch.save(whole.state_dict(), tmp_path / "parent.pth")
    spec = ModelSpec(backbone=f"slim:{parent}?keep={keep}", cut=keep, classes=2, image_size=64)
    hybrid = build(spec)
    load_pretrained(hybrid, spec, str(tmp_path / "parent.pth"))
    seen: list[Tensor] = []
    whole.get_submodule(keep).register_forward_hook(lambda layer, given, out: seen.append(out.clone()))
    images = torch.randn(2, 3, 64, 64)
    whole(images)
    assert torch.equal(hybrid.trunk.eval()(images), seen[0])


@torch.no_grad()
@pytest.mark.parametrize(
    ("network", "keep"), [("resnet50", "layer4.2"), ("resnet18", "layer4"), ("mobilenet_v2", "features.18")]
)
def test_kept_to_the_very_end_it_is_the_parent_bit_for_bit(network: str, keep: str) -> None:
    torch.manual_seed(0)
    parent = shake_batch_norms(build_backbone(network, image_size=64))
    hybrid = build_backbone(f"slim:{network}?keep={keep}", image_size=64)
    hybrid.load_state_dict(parent.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(hybrid.eval()(images), parent(images))


@torch.no_grad()
def test_a_bottleneck_in_the_middle_of_a_stage_keeps_the_width_it_is_given() -> None:
    torch.manual_seed(0)
    model = shake_batch_norms(build_backbone("slim:resnet50?keep=layer2.1", image_size=64))
    state = model.layer2[2].state_dict()
    assert shapes_of(state)["conv2.weight"] == (64, 64, 3, 3)
    maps = torch.randn(2, 512, 8, 8)
    out = run_bottleneck_by_hand(state, maps)
    torch.testing.assert_close(model.layer2[2](maps.clone()), out, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_bottleneck_that_begins_a_stage_above_the_cut_maps_to_half_the_channels() -> None:
    torch.manual_seed(0)
    model = shake_batch_norms(build_backbone("slim:resnet50?keep=layer2.1", image_size=64))
    first = model.layer3[0]
    maps = torch.randn(2, 512, 8, 8)
    out = run_bottleneck_by_hand(first.state_dict(), maps, stride=2)
    assert out.shape == (2, 512, 4, 4)  # 4 * 256 / 2 channels
    torch.testing.assert_close(first(maps.clone()), out, rtol=1e-4, atol=1e-4)


def run_bottleneck_by_hand(state: Mapping[str, Tensor], maps: Tensor, stride: int = 1) -> Tensor:
    """Compute a bottleneck with plain functions: 1 x 1, 3 x 3 (with the stride), 1 x 1, the addition, ReLU."""

    def norm(name: str, values: Tensor) -> Tensor:
        mean, variance, scale, shift = (
            state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (values - mean) / torch.sqrt(variance + 1e-5) * scale + shift

    out = norm("bn1", functional.conv2d(maps, state["conv1.weight"])).clamp(min=0)
    out = norm("bn2", functional.conv2d(out, state["conv2.weight"], stride=stride, padding=1)).clamp(min=0)
    out = norm("bn3", functional.conv2d(out, state["conv3.weight"]))
    short = maps
    if "downsample.0.weight" in state:
        short = norm("downsample.1", functional.conv2d(maps, state["downsample.0.weight"], stride=stride))
    return (out + short).clamp(min=0)


@pytest.mark.parametrize(
    "backbone",
    [
        "slim:resnet101?keep=maxpool&factor=8",
        "slim:wide_resnet50_2?keep=layer3.2&factor=4",
        "slim:densenet161?keep=features.transition1&factor=8",
    ],
)
def test_a_hybrid_runs_has_its_parents_cuts_and_is_smaller(backbone: str) -> None:
    parent = backbone.removeprefix("slim:").partition("?")[0]
    hybrid, whole = (list_cuts(name, image_size=64, classes=2) for name in (backbone, parent))
    assert [cut.name for cut in hybrid] == [cut.name for cut in whole]
    assert hybrid[-1].params < whole[-1].params
    assert hybrid[-1].macs < whole[-1].macs
    assert list(state_of(backbone)) == list(state_of(parent))


@pytest.mark.slow
@pytest.mark.parametrize("parent", sorted(slim._TOPS))
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_every_parent_can_be_slimmed_at_every_stage(parent: str, factor: int) -> None:
    keeps = ["maxpool", "layer1", "layer3"]
    if "dense" in parent:
        keeps = [f"features.transition{n}" for n in (1, 2, 3)]
    if "mobile" in parent:
        keeps = ["features.0", "features.5", "features.13"]
    sizes = [list_cuts(f"slim:{parent}?keep={k}&factor={factor}", image_size=64, classes=2)[-1].params for k in keeps]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] < list_cuts(parent, image_size=64, classes=2)[-1].params


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_the_factor_divides_the_inner_widths_above_and_nothing_below(factor: int) -> None:
    shapes = shapes_of(state_of(f"slim:resnet50?keep=layer2.1&factor={factor}"))
    assert shapes["layer2.1.conv1.weight"] == (128, 512, 1, 1)
    assert shapes["layer2.2.conv1.weight"] == (128 // factor, 512, 1, 1)
    assert shapes["layer2.3.conv3.weight"] == (512, 128 // factor, 1, 1)
    assert shapes["layer4.2.conv3.weight"] == (2048 // factor, 512 // factor, 1, 1)
    assert shapes["fc.weight"] == (1000, 2048 // factor)


# ---- names and options ----


def test_the_published_hybrids_are_listed() -> None:
    listed = [name for name in backbone_names() if name.startswith("slim:")]
    assert len(listed) == 6
    assert {"slim:resnet50?keep=layer2", "slim:densenet201?keep=features.transition3"} <= set(listed)


def test_a_stage_means_its_last_bottleneck() -> None:
    stage, last = (shapes_of(state_of(f"slim:resnet50?keep={keep}")) for keep in ("layer2", "layer2.3"))
    earlier = shapes_of(state_of("slim:resnet50?keep=layer2.2"))
    assert stage == last != earlier


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("resnet50", "does not say what stays at full width: give slim:resnet50.keep=UNIT.* one of maxpool, layer1.0"),
        (
            "resnet50?keep=layer2.4",
            "no unit 'layer2.4'.*layer2.2, layer2.3, layer3.0.*layer4.2, layer1, layer2, layer3",
        ),
        ("resnet50?keep=full", "no unit 'full' to keep"),
        ("resnet50?keep=", "cannot use keep=''"),
        ("densenet121?keep=features.denseblock1", "features.transition1, features.transition2, features.transition3$"),
        ("mobilenet_v2?keep=features.19", "features.0, features.1, .*features.18$"),
        ("resnet50?keep=layer2&factor=3", "cannot use factor=3; give one of 2, 4, 8"),
        ("resnet50?keep=layer2&copy=all", "cannot use copy=all; give one of bottom, matching"),
        ("resnet50?keep=layer2&width=3", "options are keep=UNIT .required., factor=2.4.8, copy=bottom.matching"),
    ],
)
def test_wrong_options_are_refused_with_the_allowed_values(name: str, allowed: str) -> None:
    with pytest.raises(UsageError, match=allowed):
        find_backbone(f"slim:{name}")


@pytest.mark.parametrize("parent", ["resnext50_32x4d", "vgg19", "mobilenet_v3_small", "nonsense"])
def test_other_networks_cannot_be_slimmed(parent: str) -> None:
    with pytest.raises(UnknownNameError, match=f"network to slim '{parent}'.*allowed: resnet50, .*densenet201"):
        find_backbone(f"slim:{parent}?keep=layer1")
