"""Pooled features at every cut from one pass: compared with each truncated model's own."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ttl_deploy.models.truncation import build, build_exits
from ttl_deploy.records.models import IMAGENET_INPUT, ModelSpec
from ttl_deploy.training.batches import LabelledPixels, normalise
from ttl_deploy.training.exit_features import PooledExits, collect

SIDE, IMAGES, CPU = 64, 70, torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> LabelledPixels:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    return LabelledPixels(array=pixels, rows=np.arange(IMAGES), labels=np.arange(IMAGES) % 2)


def images_of(data: LabelledPixels) -> Tensor:
    return normalise(torch.from_numpy(data.array).permute(0, 3, 1, 2), IMAGENET_INPUT)


def collect_at(backbone: str, exits: tuple[str, ...], data: LabelledPixels) -> tuple[NDArray[np.float32], ...]:
    torch.manual_seed(0)
    network = build_exits(ModelSpec(backbone=backbone, cut=exits[-1], classes=2, image_size=SIDE, exits=exits))
    return collect(PooledExits(network), data, convention=IMAGENET_INPUT, device=CPU)


@torch.no_grad()
def trunk_output(backbone: str, cut: str, data: LabelledPixels) -> Tensor:
    torch.manual_seed(0)
    return build(ModelSpec(backbone=backbone, cut=cut, classes=2, image_size=SIDE)).trunk.eval()(images_of(data))


def test_features_are_the_averages_of_what_every_trunk_returns(data: LabelledPixels) -> None:
    exits = ("layer1.0", "layer2.1", "full")
    found = collect_at("resnet18", exits, data)
    assert [one.shape for one in found] == [(IMAGES, 64), (IMAGES, 128), (IMAGES, 512)]
    for cut, features in zip(exits[:-1], found, strict=False):
        np.testing.assert_allclose(features, trunk_output("resnet18", cut, data).mean((2, 3)), atol=1e-5)


def test_a_classifier_that_is_a_convolution_gets_the_average_of_its_map(data: LabelledPixels) -> None:
    (features,) = collect_at("squeezenet1_1", ("full",), data)
    np.testing.assert_allclose(features, trunk_output("squeezenet1_1", "full", data).mean((2, 3)), atol=1e-5)


def test_features_that_are_not_normalised_are_normalised_by_the_first_images(data: LabelledPixels) -> None:
    cut = "features.denseblock1.denselayer2"
    (features,) = collect_at("densenet121", (cut,), data)
    raw = trunk_output("densenet121", cut, data)
    first = raw[:64]
    norm = nn.functional.batch_norm(raw, first.mean((0, 2, 3)), first.var((0, 2, 3)), eps=1e-5)
    np.testing.assert_allclose(features, norm.relu().mean((2, 3)), atol=1e-4)
    again = collect_at("densenet121", (cut,), data)
    assert np.array_equal(features, again[0])
