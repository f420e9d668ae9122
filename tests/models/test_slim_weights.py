"""Where the weights of slim hybrids come from: the parent below, kaiming_normal_ above, one seed for all."""

from pathlib import Path

import pytest
import torch

from ttl_deploy.models.backbones import build_backbone, build_meta_backbone, find_backbone, slim
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.models.truncation import build
from ttl_deploy.models.weights.loading import load_pretrained
from ttl_deploy.records.models import FULL, ModelSpec

from .network_states import shake_batch_norms, shapes_of, state_of

SEEDED = "slim:densenet121?keep=features.transition3"


# ---- what comes from the parent's weights ----


@pytest.mark.parametrize(
    ("backbone", "kept"),
    [
        ("slim:resnet50?keep=maxpool", ("conv1.", "bn1.")),
        ("slim:resnet50?keep=layer2", ("conv1.", "bn1.", "layer1.", "layer2.")),
        (
            "slim:resnet101?keep=layer3.2",  # and not layer3.20
            ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.0.", "layer3.1.", "layer3.2."),
        ),
        (
            "slim:mobilenet_v2?keep=features.1",  # and not features.10
            ("features.0.", "features.1."),
        ),
        (
            "slim:densenet201?keep=features.transition1",
            ("features.conv0.", "features.norm0.", "features.denseblock1.", "features.transition1."),
        ),
    ],
)
def test_the_bottom_comes_from_the_parent_with_its_running_statistics_and_nothing_else(
    backbone: str, kept: tuple[str, ...]
) -> None:
    takes = find_backbone(backbone).takes
    own, parents = (shapes_of(state_of(name)) for name in (backbone, find_backbone(backbone).weights_of or ""))
    taken = [name for name in own if takes(name)]
    assert taken == [name for name in own if name.startswith(kept)]
    assert all(own[name] == parents[name] for name in taken)
    assert any("running_var" in name for name in taken)


@pytest.mark.parametrize("keep", ["layer1", "layer2.1", "layer3.0", "layer4"])
def test_matching_takes_each_parameter_whose_shape_the_parent_has_and_no_statistics(keep: str) -> None:
    backbone = find_backbone(f"slim:resnet50?keep={keep}&copy=matching")
    own = build_meta_backbone(backbone.name, image_size=224)
    parents = dict(load_torchvision().models.resnet50(weights=None).named_parameters())
    expected = {name for name, value in own.named_parameters() if value.shape == parents[name].shape}
    expected -= {"fc.weight", "fc.bias"}  # another number of classes in the original
    assert {name for name in own.state_dict() if backbone.takes(name)} == expected
    assert {"conv1.weight", "layer1.2.bn3.bias"} <= expected


def test_matching_takes_more_than_the_bottom_where_a_stage_is_left_in_the_middle() -> None:
    takes = find_backbone("slim:resnet50?keep=layer3.0&copy=matching").takes
    assert takes("layer3.4.bn3.weight")  # the outer width of the stage is still 1024
    assert not takes("layer3.4.bn3.running_mean")
    assert not takes("layer3.4.conv3.weight")
    assert not find_backbone("slim:resnet50?keep=layer3.0").takes("layer3.4.bn3.weight")


def test_a_hybrid_has_its_parents_published_weights() -> None:
    for backbone, parent in (
        ("slim:resnet50?keep=layer2", "resnet50"),
        ("slim:densenet201?keep=features.transition2&copy=matching", "densenet201"),
    ):
        hybrid, whole = find_backbone(backbone), find_backbone(parent)
        assert hybrid.weights_of == parent
        assert hybrid.published is not None
        assert whole.published is not None
        assert (hybrid.published.source, hybrid.published.convention) == (
            whole.published.source,
            whole.published.convention,
        )


@pytest.mark.parametrize("copy", ["bottom", "matching"])
def test_a_parents_file_fills_what_is_taken_and_leaves_the_rest_as_it_was(copy: str, tmp_path: Path) -> None:
    parent = shake_batch_norms(build_backbone("resnet50", image_size=64)).state_dict()
    torch.save(parent, tmp_path / "parent.pth")
    spec = ModelSpec(backbone=f"slim:resnet50?keep=layer2.1&copy={copy}", cut=FULL, classes=2, image_size=64)
    torch.manual_seed(0)
    model = build(spec)
    before = {name: tensor.clone() for name, tensor in model.trunk.state_dict().items()}
    load_pretrained(model, spec, str(tmp_path / "parent.pth"))
    takes = find_backbone(spec.backbone).takes
    for name, tensor in model.trunk.state_dict().items():
        assert torch.equal(tensor, (parent if takes(name) else before)[name]), name
    mean = "layer1.0.bn1.running_mean"
    assert torch.equal(model.trunk.state_dict()[mean], parent[mean]) == (copy == "bottom")


# ---- how the rest starts ----


@pytest.mark.parametrize(
    ("option", "fan"),
    [("", 2048), ("&copy=bottom", 2048), ("&copy=matching", 256)],
    ids=["default", "bottom", "matching"],
)
def test_convolutions_above_the_cut_start_kaiming_normal_by_the_fan_of_their_paper(option: str, fan: int) -> None:
    torch.manual_seed(0)
    state = build_backbone(f"slim:resnet50?keep=layer4.0{option}", image_size=64).state_dict()
    weights = state["layer4.1.conv3.weight"]
    assert weights.shape == (2048, 256, 1, 1)
    expected = (2 / fan) ** 0.5
    assert weights.std().item() == pytest.approx(expected, rel=0.01)
    assert abs(weights.mean().item()) < 0.01 * expected
    assert torch.equal(state["layer4.1.bn2.weight"], torch.ones(256))
    assert torch.equal(state["layer4.1.bn2.bias"], torch.zeros(256))


def test_densenet_convolutions_above_the_cut_start_by_fan_out() -> None:
    torch.manual_seed(0)
    state = build_backbone("slim:densenet121?keep=features.transition3", image_size=64).state_dict()
    weights = torch.cat([state[f"features.denseblock4.denselayer{n}.conv2.weight"] for n in range(1, 17)])
    assert weights.shape[1:] == (64, 3, 3)
    assert weights.std().item() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.02)


def test_random_weights_follow_the_seed_and_looking_a_hybrid_up_draws_none() -> None:
    states = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        if not states:  # the first look-up, with nothing kept from earlier ones
            find_backbone.cache_clear()
            slim._parent_structure.cache_clear()
            slim._matching_parameters.cache_clear()
            find_backbone(f"{SEEDED}&copy=matching").takes("features.conv0.weight")
        states.append(build_backbone(SEEDED, image_size=64).state_dict())
    first, again, other = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name in ("features.conv0.weight", "features.denseblock4.denselayer1.conv1.weight"):
        assert not torch.equal(first[name], other[name])
