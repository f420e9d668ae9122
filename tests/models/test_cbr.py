"""CBR networks: built as described, from published names and from options, and cut after each unit."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ttl_deploy.errors import UnknownNameError, UsageError, WeightsError
from ttl_deploy.models.backbones import backbone_names, build_backbone, build_meta_backbone, find_backbone
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.truncation import build
from ttl_deploy.models.weights.source import find_weights
from ttl_deploy.records.models import ModelSpec

from .network_states import shake_batch_norms

SMALL = "cbr:tiny?kernel=3&widths=8-16&last-pool=no"


def run_by_hand(state: dict[str, Tensor], images: Tensor, units: int) -> Tensor:
    """Compute convolution, normalisation, ReLU and pooling between units as the paper describes them."""
    maps = images
    for number in range(1, units + 1):
        part = {key.removeprefix(f"unit{number}."): value for key, value in state.items()}
        maps = functional.conv2d(maps, part["conv.weight"], part["conv.bias"])
        mean, variance = part["norm.running_mean"][:, None, None], part["norm.running_var"][:, None, None]
        maps = (maps - mean) / torch.sqrt(variance + 1e-5)
        maps = maps * part["norm.weight"][:, None, None] + part["norm.bias"][:, None, None]
        maps = maps.clamp(min=0)
        if number < units:
            maps = functional.max_pool2d(maps, kernel_size=3, stride=2)
    return maps.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@torch.no_grad()
def test_a_cbr_network_computes_what_its_description_says() -> None:
    torch.manual_seed(0)
    model = shake_batch_norms(build_backbone(SMALL, image_size=40))
    images = torch.randn(2, 3, 40, 40)
    torch.testing.assert_close(model(images), run_by_hand(model.state_dict(), images, units=2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "units"), [("cbr:large-t", 5), ("cbr:large-w", 4), ("cbr:small", 4), ("cbr:tiny", 4), (SMALL, 2)]
)
def test_the_cuts_of_a_cbr_network_are_its_units(name: str, units: int) -> None:
    cuts = list_cuts(name, image_size=224, classes=2)
    assert [cut.name for cut in cuts] == [*(f"unit{number}" for number in range(1, units + 1)), "full"]
    assert all(cut.normalised for cut in cuts)


def test_a_max_pool_follows_every_unit_but_the_last_of_large_t() -> None:
    sides = {
        name: [cut.height for cut in list_cuts(name, image_size=224, classes=2)[:-1]]
        for name in ("cbr:large-t", "cbr:small")
    }
    # 224 -> 218 -> 108 -> 102 -> 50 -> 44 -> 21 -> 15 -> 7 -> 1: convolutions take 6, pools halve
    assert sides == {"cbr:large-t": [108, 50, 21, 7, 1], "cbr:small": [108, 50, 21, 7]}


def test_options_change_kernel_widths_and_the_last_pool() -> None:
    state = build_meta_backbone("cbr:large-w?kernel=5&widths=8-16-24&last-pool=no", image_size=224).state_dict()
    shapes = [tuple(state[f"unit{number}.conv.weight"].shape) for number in (1, 2, 3)]
    assert shapes == [(8, 3, 5, 5), (16, 8, 5, 5), (24, 16, 5, 5)]
    with_pool = list_cuts("cbr:large-w?widths=8-16", image_size=64, classes=2)
    without = list_cuts("cbr:large-w?widths=8-16&last-pool=no", image_size=64, classes=2)
    assert (with_pool[1].height, without[1].height) == (10, 22)  # 64 -> 58 -> 28 -> 22 -> 10


def test_options_that_repeat_a_published_network_are_that_network() -> None:
    named = build_meta_backbone("cbr:small", image_size=224).state_dict()
    spelled = build_meta_backbone("cbr:tiny?kernel=7&widths=32-64-128-256&last-pool=yes", image_size=224).state_dict()
    assert {key: value.shape for key, value in named.items()} == {key: value.shape for key, value in spelled.items()}


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("tiny?kernel=0", "kernel .* got '0', give a whole number from 1 to 31"),
        ("tiny?kernel=3.5", "got '3.5', give a whole number from 1 to 31"),
        ("tiny?kernel=²", "give a whole number from 1 to 31"),
        ("tiny?widths=32-", "widths .* got '', give whole numbers joined by -"),
        ("tiny?widths=32,64", "got '32,64', give whole numbers joined by -, such as 32-64-128, each from 1 to 4096"),
        ("tiny?last-pool=maybe", "last-pool .* got 'maybe', give yes or no"),
        ("tiny?depth=3", r"cannot use depth='3'; options are kernel=1\.\.31, widths=.*, last-pool=yes\|no"),
    ],
)
def test_wrong_options_are_refused_with_the_allowed_values(name: str, allowed: str) -> None:
    with pytest.raises(UsageError, match=allowed):
        find_backbone(f"cbr:{name}")


def test_an_unknown_cbr_network_is_refused_with_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="unknown CBR network 'large': did you mean"):
        find_backbone("cbr:large")


@pytest.mark.parametrize(
    ("name", "kernel", "pools"), [("large-t", 7, 4), ("large-w", 7, 4), ("small", 7, 4), ("tiny", 5, 4)]
)
def test_images_that_are_too_small_are_refused_with_the_smallest_that_fit(name: str, kernel: int, pools: int) -> None:
    side = kernel if name == "large-t" else 1  # it has one more convolution, behind its last pool
    for _ in range(pools):
        side = 2 * side + 1 + kernel - 1  # the least that a pool needs to leave `side`, and a convolution before it
    with pytest.raises(UsageError, match=f"the smallest is --image-size {side}$"):
        list_cuts(f"cbr:{name}", image_size=side - 1, classes=2)
    assert list_cuts(f"cbr:{name}", image_size=side, classes=2)[-2].height == 1


def test_no_weights_are_published_and_asking_for_them_says_what_to_do() -> None:
    with pytest.raises(WeightsError, match="cbr:tiny has no published weights: give --weights FILE, or --weights none"):
        find_weights("imagenet", "cbr:tiny")


def test_all_four_are_listed() -> None:
    listed = [name for name in backbone_names() if name.startswith("cbr:")]
    assert listed == ["cbr:large-t", "cbr:large-w", "cbr:small", "cbr:tiny"]


def test_the_structure_on_the_meta_device_is_the_built_one_and_takes_no_memory() -> None:
    meta = build_meta_backbone(SMALL, image_size=64).state_dict()
    built = build_backbone(SMALL, image_size=64).state_dict()
    assert {key: value.shape for key, value in meta.items()} == {key: value.shape for key, value in built.items()}
    assert all(value.is_meta for value in meta.values())


def test_random_weights_follow_the_seed() -> None:
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(build_backbone(SMALL, image_size=64).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["unit1.conv.weight"], states[2]["unit1.conv.weight"])


@torch.no_grad()
def test_the_last_unit_with_dropout_is_the_network_of_ttls_code() -> None:
    spec = ModelSpec(backbone=SMALL, cut="unit2", classes=2, image_size=40, dropout=0.1)
    model = build(spec).eval()
    cuts = {cut.name: cut for cut in list_cuts(SMALL, image_size=40, classes=2)}
    assert cuts["unit2"].params == cuts["full"].params == sum(value.numel() for value in model.parameters())
    assert model.head.dropout.p == 0.1
    images = torch.randn(2, 3, 40, 40)
    trunk = {key.removeprefix("trunk."): value for key, value in model.state_dict().items()}
    trunk |= {"fc.weight": model.head.linear.weight, "fc.bias": model.head.linear.bias}
    torch.testing.assert_close(model(images), run_by_hand(trunk, images, units=2), rtol=1e-4, atol=1e-5)
