"""Networks of timm: its names, its conventions, its image sizes."""

import sys

import pytest
import torch

from ttl_deploy.errors import MissingExtraError, UnknownNameError, WeightsError
from ttl_deploy.models.backbones import backbone_names, find_backbone
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.torchvision_border import load_torchvision

load_torchvision()
timm = pytest.importorskip("timm")


def macs_of_full(backbone: str, image_size: int, classes: int) -> int:
    return list_cuts(backbone, image_size=image_size, classes=classes)[-1].macs


def test_a_resnet_of_timm_costs_what_torchvisions_does() -> None:
    assert macs_of_full("timm:resnet18", 224, 1000) == macs_of_full("resnet18", 224, 1000)
    own = [(cut.name, cut.params) for cut in list_cuts("resnet18", image_size=64, classes=2)]
    assert [(cut.name, cut.params) for cut in list_cuts("timm:resnet18", image_size=64, classes=2)] == own


def test_a_vision_transformer_is_built_for_the_image_size() -> None:
    cuts = list_cuts("timm:vit_tiny_patch16_224", image_size=96, classes=2)
    assert {cut.height for cut in cuts if cut.layout == "tokens"} == {36, 37}  # with and without the class token


def test_position_embeddings_are_interpolated_to_another_image_size() -> None:
    network = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    smaller = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=64)
    backbone = find_backbone("timm:vit_tiny_patch16_224")
    fitted = backbone.fit(network.state_dict(), 64)
    assert {name: tensor.shape for name, tensor in fitted.items()} == {
        name: tensor.shape for name, tensor in smaller.state_dict().items()
    }
    assert torch.equal(backbone.fit(network.state_dict(), 224)["pos_embed"], network.state_dict()["pos_embed"])
    smaller.load_state_dict(fitted)
    assert torch.equal(fitted["pos_embed"][:, 0], network.state_dict()["pos_embed"][:, 0])  # the class token's


def test_published_weights_bring_timms_own_input_convention() -> None:
    for name in ("resnet18", "vit_tiny_patch16_224", "inception_v3"):
        published = find_backbone(f"timm:{name}").published
        config = timm.get_pretrained_cfg(name)
        assert published is not None
        assert (published.convention.mean, published.convention.std) == (config.mean, config.std)


def test_weights_that_cannot_be_downloaded_are_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    published = find_backbone("timm:resnet18").published
    assert published is not None
    with pytest.raises(WeightsError, match=r"could not download timm/resnet18.*--weights FILE"):
        published.fetch()


def test_an_unknown_name_is_refused_with_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown timm network 'resnet17'.*resnet18"):
        find_backbone("timm:resnet17")


def test_without_timm_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find_backbone.cache_clear()
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match="timm"):
        find_backbone("timm:resnet18")


def test_timms_thousand_names_are_not_listed_among_ours() -> None:
    assert not [name for name in backbone_names() if name.startswith("timm:")]
