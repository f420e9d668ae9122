"""A trial learns and answers on the pixels that its record names."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from ttl_deploy.errors import UsageError
from ttl_deploy.models import truncation
from ttl_deploy.models.weights import load_weights
from ttl_deploy.models.weights.source import find_weights
from ttl_deploy.records import codec
from ttl_deploy.records.models import IMAGENET_INPUT, InputConvention
from ttl_deploy.records.trials import Trial
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.loop import run_trial

CPU = torch.device("cpu")
GREY = InputConvention(mean=(0.5,), std=(0.25,))


def build_grey_network() -> nn.Module:
    body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
    return nn.Sequential(*body, nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2))


@pytest.fixture
def grey_trial(make_trial: Callable[..., Trial]) -> Iterator[Trial]:
    """A trial of a network of the user's own that takes one channel."""
    module = ModuleType("greys")
    module.net = build_grey_network  # type: ignore[attr-defined] # a module made here
    sys.modules["greys"] = module
    trial = make_trial(epochs=1)
    yield replace(trial, model=replace(trial.model, backbone="greys:net", cut="full"), input=GREY, weights_input=GREY)
    del sys.modules["greys"]


def test_a_grey_network_is_scored_on_the_average_of_the_channels(
    tmp_path: Path, grey_trial: Trial, train_pixels: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    run_trial(grey_trial, train=train_pixels, val=val_pixels, folder=tmp_path, device=CPU)
    model = truncation.build(grey_trial.model).eval()
    load_weights(model, tmp_path / "best.safetensors")
    grey = val_pixels.array.astype(np.float64).mean(axis=3)[:, None]
    with torch.no_grad():
        expected = model(torch.from_numpy(((grey / 255 - 0.5) / 0.25).astype(np.float32))).softmax(1).numpy()
    with np.load(tmp_path / "predictions_val.npz") as stored:
        np.testing.assert_allclose(stored["probabilities"], expected, atol=1e-5)


def test_the_stored_weights_name_the_convention(
    tmp_path: Path, grey_trial: Trial, train_pixels: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    run_trial(grey_trial, train=train_pixels, val=val_pixels, folder=tmp_path, device=CPU)
    source = find_weights(str(tmp_path / "best.safetensors"), grey_trial.model.backbone)
    assert source is not None
    assert source.convention == GREY


def test_a_convention_for_another_number_of_channels_is_refused(
    tmp_path: Path, grey_trial: Trial, train_pixels: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    wrong = replace(grey_trial, input=IMAGENET_INPUT)
    with pytest.raises(UsageError, match="3 entries, but greys:net takes 1"):
        run_trial(wrong, train=train_pixels, val=val_pixels, folder=tmp_path, device=CPU)


def test_a_trial_from_before_conventions_means_imagenets(make_trial: Callable[..., Trial]) -> None:
    content = codec.to_builtins(make_trial())
    del content["input"], content["weights_input"]
    assert codec.from_builtins(Trial, content).input == IMAGENET_INPUT
