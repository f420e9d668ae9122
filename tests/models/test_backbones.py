"""Backbones: torchvision's networks by name, built without warnings, refused with a near name."""

import subprocess
import sys

import pytest
import torch

from ttl_deploy.errors import UnknownNameError
from ttl_deploy.models.backbones import backbone_names, build_backbone, build_meta_backbone
from ttl_deploy.models.torchvision_border import load_torchvision

FAMILIES = (
    *("alexnet", "vgg16_bn", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "densenet121", "googlenet"),
    *("inception_v3", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "efficientnet_v2_s", "mnasnet0_5"),
    *("shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_400mf", "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t"),
    "maxvit_t",
)


def test_every_family_of_torchvision_is_offered_and_no_other_task() -> None:
    names = backbone_names()
    assert set(FAMILIES) <= set(names)
    assert len([name for name in names if ":" not in name]) == 80
    assert not [name for name in names if name.startswith(("quantized", "fcn", "r3d"))]


def test_an_unknown_backbone_is_refused_with_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown backbone 'densnet121': did you mean densenet121"):
        build_backbone("densnet121", image_size=224)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_of_the_inception_family_rescale_their_input_and_have_no_auxiliary_heads(name: str) -> None:
    model = build_meta_backbone(name, image_size=224)
    assert model.transform_input
    assert not [key for key in model.state_dict() if "aux" in key.lower()]


@pytest.mark.parametrize("name", ["regnet_y_400mf", "resnet18", "efficientnet_b0"])
def test_the_structure_on_the_meta_device_equals_torchvisions_own(name: str) -> None:
    own = load_torchvision().models.get_model(name, weights=None).state_dict()
    meta = build_meta_backbone(name, image_size=224).state_dict()
    assert {key: value.shape for key, value in meta.items()} == {key: value.shape for key, value in own.items()}
    assert all(value.is_meta for value in meta.values())


def test_torchvision_loads_in_a_fresh_process_and_twice_gives_the_same_module() -> None:
    code = (
        "from ttl_deploy.models.torchvision_border import load_torchvision as load\n"
        "assert load() is load() and load().models.resnet18 is not None\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_import_failure_of_torchvision_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("some other defect")

    monkeypatch.setattr("ttl_deploy.models.torchvision_border.importlib.import_module", fail)
    with pytest.raises(RuntimeError, match="some other defect"):
        load_torchvision()


def test_random_weights_follow_the_seed() -> None:
    torch.manual_seed(3)
    first = build_backbone("squeezenet1_1", image_size=224).state_dict()
    torch.manual_seed(3)
    again = build_backbone("squeezenet1_1", image_size=224).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
