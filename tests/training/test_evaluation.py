"""Evaluation is one plain fp32 pass in order, whatever the batches."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor, nn

from ttl_deploy.records.models import IMAGENET_INPUT
from ttl_deploy.training import batches, devices, evaluation
from ttl_deploy.training.batches import LabelledPixels

CPU = torch.device("cpu")


def test_predictions_are_those_of_one_image_at_a_time(val_pixels: LabelledPixels) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(2))
    logits = evaluation.predict(model, val_pixels, convention=IMAGENET_INPUT, device=CPU)
    with torch.no_grad():
        for image, expected in zip(val_pixels.array, logits, strict=True):
            alone = model(batches.normalise(torch.from_numpy(image)[None].permute(0, 3, 1, 2), IMAGENET_INPUT))[0]
            np.testing.assert_allclose(alone.numpy(), expected, atol=1e-5)


def test_probabilities_are_the_softmax() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (20, 3)).astype(np.float32)
    np.testing.assert_allclose(
        evaluation.probabilities(logits, multilabel=False), softmax(logits.astype(np.float64), axis=1), atol=1e-6
    )


def test_auto_precision_on_a_cpu_is_fp32_for_depthwise_networks() -> None:
    depthwise = nn.Conv2d(8, 8, 3, groups=8)
    assert devices.pick_precision("auto", device=CPU, model=depthwise) == "fp32"
    assert devices.pick_precision("bf16", device=CPU, model=depthwise) == "bf16"


class Limited(nn.Module):
    """Takes at most so many images at once, and notes how many it was given."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.given = most, list[int]()

    def forward(self, images: Tensor) -> Tensor:
        self.given.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("fake")
        return images.mean((2, 3))


def test_too_little_memory_halves_the_images_at_once_and_changes_no_prediction(val_pixels: LabelledPixels) -> None:
    limited = Limited(most=9)
    means = evaluation.predict(limited, val_pixels, convention=IMAGENET_INPUT, device=CPU)
    assert limited.given == [32, 16, 8, 8, 8, 8]
    pixels = val_pixels.array.astype(np.float64).mean((1, 2)) / 255
    expected = (pixels - np.array(IMAGENET_INPUT.mean)) / np.array(IMAGENET_INPUT.std)
    np.testing.assert_allclose(means, expected, atol=1e-5)


def test_where_one_image_is_too_many_the_error_goes_on(val_pixels: LabelledPixels) -> None:
    limited = Limited(most=0)
    with pytest.raises(torch.OutOfMemoryError):
        evaluation.predict(limited, val_pixels, convention=IMAGENET_INPUT, device=CPU)
    assert limited.given[-1] == 1
