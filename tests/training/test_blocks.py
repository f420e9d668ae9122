"""A model's blocks are those of the published table, and natural ones where there is no table."""

from functools import lru_cache
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import nn

from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.models.truncation import build
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.training.blocks import list_blocks

# Index ranges into torchvision's own named_parameters(), both ends included, and the parameters in each
# block at 1,000 classes (BioTune's source, by the group of Davila et al.).
TABLE = {
    "resnet50": (
        [(0, 2), (3, 32), (33, 71), (72, 128), (129, 158), (159, 160)],
        [9_536, 215_808, 1_219_584, 7_098_368, 14_964_736, 2_049_000],
    ),
    "densenet121": (
        [(0, 2), (3, 38), (39, 41), (42, 113), (114, 116), (117, 260), (261, 263), (264, 359), (360, 363)],
        [9_536, 335_040, 33_280, 919_680, 132_096, 2_837_760, 526_336, 2_158_080, 1_027_048],
    ),
    "vgg19": (
        [(0, 3), (4, 7), (8, 15), (16, 23), (24, 31), (32, 37)],
        [38_720, 221_440, 2_065_408, 8_259_584, 9_439_232, 123_642_856],
    ),
}

OWN = """
from collections import OrderedDict
from torch import nn

def block():
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())

def build():
    parts = OrderedDict(stem=nn.Conv2d(3, 4, 3), low=block(), norm=nn.BatchNorm2d(4), high=block())
    end = OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(4, 2))
    return nn.Sequential(OrderedDict(wrapper=nn.Sequential(OrderedDict(encoder=nn.Sequential(parts))), **end))
"""


@lru_cache(maxsize=2)
def on_meta(backbone: str, cut: str = "full", classes: int = 2) -> tuple[nn.Module, ModelSpec]:
    """Build a model without values: blocks are about names."""
    spec = ModelSpec(backbone=backbone, cut=cut, classes=classes, image_size=224)
    with torch.device("meta"):
        return build(spec), spec


def blocks_of(backbone: str, cut: str = "full") -> list[list[str]]:
    """Return the blocks as the backbone names its parameters; the head of a cut keeps its prefix."""
    blocks = list_blocks(*on_meta(backbone, cut))
    prefix = "head." if cut == "full" else "trunk."
    return [[name.removeprefix("trunk.").removeprefix(prefix) for name in block] for block in blocks]


def modules_of(backbone: str, cut: str = "full", depth: int = 1) -> list[list[str]]:
    """Return, for each block, the outermost modules of its parameters."""
    return [
        list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in block)) for block in blocks_of(backbone, cut)
    ]


@pytest.mark.parametrize("backbone", TABLE)
def test_the_blocks_of_a_published_network_are_those_of_the_table(backbone: str) -> None:
    ranges, counts = TABLE[backbone]
    with torch.device("meta"):
        published = load_torchvision().models.get_model(backbone, weights=None)
    names = [name for name, _ in published.named_parameters()]
    assert [sorted(block) for block in blocks_of(backbone)] == [sorted(names[a : b + 1]) for a, b in ranges]
    model, spec = on_meta(backbone, classes=1000)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert [sum(sizes[name] for name in block) for block in list_blocks(model, spec)] == counts


@pytest.mark.parametrize(
    ("backbone", "cut"),
    [
        ("mobilenet_v2", "full"),
        ("efficientnet_b0", "full"),
        ("vit_b_16", "encoder.layers.encoder_layer_3"),
        ("swin_t", "full"),
        ("densenet121", "features.denseblock2.denselayer5"),
        ("vgg19", "features.9"),
        ("resnet50", "maxpool"),
        ("googlenet", "full"),
        ("cbr:tiny", "full"),
    ],
)
def test_every_parameter_is_in_exactly_one_of_few_blocks_and_the_head_is_last(backbone: str, cut: str) -> None:
    model, spec = on_meta(backbone, cut)
    blocks = list_blocks(model, spec)
    names = list(chain.from_iterable(blocks))
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert 2 <= len(blocks) <= 12
    assert {name for name in names if name.startswith("head.")} <= set(blocks[-1])


def test_a_cut_has_the_blocks_of_the_whole_network_as_far_as_they_are_left() -> None:
    whole, cut = blocks_of("resnet50"), blocks_of("resnet50", "layer2.1")
    assert cut[:2] == whole[:2]
    assert cut[2] == [name for name in whole[2] if name.startswith(("layer2.0.", "layer2.1."))]
    assert cut[3] == ["head.linear.weight", "head.linear.bias"]


def test_what_follows_the_last_block_learns_with_the_head() -> None:
    assert modules_of("densenet121")[-1] == ["features", "classifier"]
    assert modules_of("swin_t")[-1] == ["norm", "head"]
    assert modules_of("mobilenet_v3_large")[-1] == ["classifier"]


def test_many_modules_are_joined_by_the_resolution_they_end_in() -> None:
    at = [range(2), range(2, 4), range(4, 7), range(7, 14), range(14, 19)]  # 112, 56, 28, 14 and 7 pixels
    expected = [[f"features.{number}" for number in numbers] for numbers in at]
    assert modules_of("mobilenet_v2", depth=2) == [*expected, ["classifier.1"]]


def test_the_stages_of_an_efficientnet_are_its_blocks() -> None:
    assert modules_of("efficientnet_b0", depth=2) == [*([f"features.{n}"] for n in range(9)), ["classifier.1"]]


def test_a_transformer_of_one_resolution_has_a_block_for_each_layer() -> None:
    first, *layers, last = modules_of("vit_b_16", depth=3)
    assert sorted(first) == ["class_token", "conv_proj.bias", "conv_proj.weight", "encoder.pos_embedding"]
    assert layers == [[f"encoder.layers.encoder_layer_{number}"] for number in range(12)]
    assert sorted(last) == ["encoder.ln.bias", "encoder.ln.weight", "heads.head.bias", "heads.head.weight"]


def test_wrappers_are_opened_and_a_norm_between_blocks_belongs_to_the_upper_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrapped_network.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    inner = [["stem"], ["low"], ["norm", "high"]]
    expected = [[f"wrapper.encoder.{part}" for part in parts] for parts in inner]
    assert modules_of("wrapped_network:build", depth=3) == [*expected, ["fc.weight", "fc.bias"]]
