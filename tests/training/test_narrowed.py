"""A narrowed trial: it begins with the trained wide model's best channels, learns from it, and repeats exactly."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ttl_deploy.errors import UsageError
from ttl_deploy.models import truncation, weights
from ttl_deploy.models.width.pruning import narrow_spec
from ttl_deploy.records.models import NarrowLayer
from ttl_deploy.records.trials import Trial, TrialPause, TrialResult
from ttl_deploy.training import batches, evaluation
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.beginning import begin, refresh_statistics
from ttl_deploy.training.loop import WEIGHTS, run_trial
from ttl_deploy.training.recovery import TrialError
from ttl_deploy.training.teaching import Teacher

CPU = torch.device("cpu")
MakeTrial = Callable[..., Trial]


@pytest.fixture
def wide(make_trial: MakeTrial, train_pixels: LabelledPixels, val_pixels: LabelledPixels, tmp_path: Path) -> Path:
    """Train the model at full width; return its folder."""
    folder = tmp_path / "wide"
    run_trial(make_trial(epochs=4), train=train_pixels, val=val_pixels, folder=folder, device=CPU)
    return folder


def narrowed(trial: Trial, width: float = 0.5) -> Trial:
    return replace(
        trial, model=narrow_spec(trial.model, width), teacher=trial.key, start=trial.key, variant=f"@w{width:g}"
    )


def taught_by(trial: Trial, folder: Path) -> Teacher:
    return Teacher(model=trial.model, weights=folder / WEIGHTS, input=trial.input)


def test_it_learns_from_the_wide_model_and_is_smaller(
    make_trial: MakeTrial, wide: Path, train_pixels: LabelledPixels, val_pixels: LabelledPixels, tmp_path: Path
) -> None:
    trial = narrowed(make_trial())
    assert trial.key == "layer1.1@w0.5__full__s0"
    assert trial.needs == ("layer1.1__full__s0",)
    given = {"train": train_pixels, "val": val_pixels, "device": CPU, "start": wide / WEIGHTS}
    result = run_trial(trial, folder=tmp_path / "a", teacher=taught_by(make_trial(), wide), **given)
    assert isinstance(result, TrialResult)
    assert result.cut == "layer1.1@w0.5"
    assert result.weights_note == "narrowed to width 0.5 from layer1.1__full__s0"
    assert result.val_auroc is not None
    assert result.val_auroc > 0.9
    full = truncation.build(trial.model.at_full_width)
    assert result.params < 0.4 * sum(parameter.numel() for parameter in full.parameters())
    model = truncation.build(trial.model)
    weights.load_weights(model, tmp_path / "a" / WEIGHTS)
    logits = evaluation.predict(model, val_pixels, convention=trial.input, device=CPU)
    stored = np.load(tmp_path / "a" / "predictions_val.npz")["probabilities"]
    assert np.allclose(evaluation.probabilities(logits, multilabel=False), stored, atol=1e-6)


def test_an_interrupted_one_ends_the_same(
    make_trial: MakeTrial, wide: Path, train_pixels: LabelledPixels, val_pixels: LabelledPixels, tmp_path: Path
) -> None:
    trial = narrowed(make_trial())
    given = {"train": train_pixels, "val": val_pixels, "device": CPU, "start": wide / WEIGHTS}
    whole = run_trial(trial, folder=tmp_path / "a", teacher=taught_by(make_trial(), wide), **given)
    paused = run_trial(trial, folder=tmp_path / "b", teacher=taught_by(make_trial(), wide), until=1, **given)
    assert isinstance(paused, TrialPause)
    resumed = run_trial(trial, folder=tmp_path / "b", teacher=taught_by(make_trial(), wide), **given)
    assert isinstance(whole, TrialResult)
    assert isinstance(resumed, TrialResult)
    assert resumed.weights_sha256 == whole.weights_sha256


def test_statistics_are_those_of_the_images_that_it_sees(
    make_trial: MakeTrial, wide: Path, train_pixels: LabelledPixels
) -> None:
    """The first BatchNorm's mean after the refresh is that of what its convolution makes of all training images."""
    trial = replace(narrowed(make_trial()), train=replace(make_trial().train, batch_size=32))
    model, _ = begin(trial, warm=False, start=wide / WEIGHTS)
    assert isinstance(model, truncation.TruncatedModel)
    before = model.trunk.bn1.running_mean.clone()
    refresh_statistics(model, train_pixels, trial, device=CPU)
    images = torch.from_numpy(train_pixels.array).permute(0, 3, 1, 2)
    with torch.no_grad():
        seen = model.trunk.conv1(batches.normalise(images, trial.input))
    assert torch.allclose(model.trunk.bn1.running_mean, seen.mean((0, 2, 3)), atol=1e-4)
    assert not torch.allclose(before, model.trunk.bn1.running_mean, atol=1e-4)


def test_what_it_needs_is_asked_for(
    make_trial: MakeTrial, wide: Path, train_pixels: LabelledPixels, val_pixels: LabelledPixels, tmp_path: Path
) -> None:
    trial = narrowed(make_trial())
    given = {"train": train_pixels, "val": val_pixels, "device": CPU, "folder": tmp_path / "a"}
    with pytest.raises(UsageError, match="needs a teacher"):
        run_trial(trial, start=wide / WEIGHTS, **given)
    with pytest.raises(UsageError, match=r"train layer1\.1__full__s0 first"):
        run_trial(trial, teacher=taught_by(make_trial(), wide), **given)


def test_a_structure_that_pruning_does_not_give_fails_the_trial_by_the_layer(make_trial: MakeTrial, wide: Path) -> None:
    trial = narrowed(make_trial())
    first, *others = trial.model.layers
    wrong = NarrowLayer(name=first.name, sizes={**first.sizes, "out_channels": 8}, shapes=first.shapes)
    with pytest.raises(TrialError, match=r"other sizes than were planned, first in \['trunk\.conv1'\]"):
        begin(replace(trial, model=replace(trial.model, layers=(wrong, *others))), warm=False, start=wide / WEIGHTS)
