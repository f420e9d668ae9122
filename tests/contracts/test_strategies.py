"""What holds for every strategy of the table: groups, freezing, learning, and a resume that changes nothing."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from ttl_deploy import plugins
from ttl_deploy.models.truncation import build
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import Augmentation, TrainSettings, Trial
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.loop import Progress, run_trial
from ttl_deploy.training.strategies import Phase, find_strategy
from ttl_deploy.training.teaching import Teacher

Train = Callable[..., None]
SIDE, CPU = 32, torch.device("cpu")
NEEDED = {"lwft": "lwft?freeze=layer1.0", "transfusion": "transfusion?upto=layer1.0"}
STRATEGIES = [NEEDED.get(name, name) for name in plugins.names("strategies")] + ["distill?learn=lp-ft&features=1"]
RESUMED_FAST = ("full", "lp-ft", "auto-rgn", "gradual-last-first", "distill")
"""One of each kind: a single phase, two, rates that follow gradients, many phases, a teacher."""
SETTINGS = TrainSettings(
    epochs=4,
    batch_size=16,
    lr=3e-3,
    patience=0,
    augmentation=Augmentation(flip=False, rotate_deg=2, zoom=0.02, shift=0.0),
)
FROZEN_BY = {
    "linear-probe": ("trunk.",),
    "lwft?freeze=layer1.0": ("trunk.conv1.", "trunk.bn1.", "trunk.layer1.0."),
}


class PowerCutError(Exception):
    """Stands for a kill between two epochs."""


def spec_of(backbone: str = "resnet18", cut: str = "layer1.1") -> ModelSpec:
    return ModelSpec(backbone=backbone, cut=cut, classes=2, image_size=SIDE, dropout=0.2)


def phases_of(strategy: str, spec: ModelSpec) -> tuple[nn.Module, tuple[Phase, ...]]:
    model = build(spec)
    return model, find_strategy(strategy).phases(model, spec, SETTINGS)


def trial_of(strategy: str) -> Trial:
    return Trial(model=spec_of(), weights="none", strategy=strategy, seed=0, train=SETTINGS)


def draw(count: int, seed: int) -> LabelledPixels:
    """Draw noise images; class 1 is brighter, which pooled features of any network show."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 2
    images = rng.integers(40, 120, size=(count, SIDE, SIDE, 3), dtype=np.uint8)
    images[labels == 1] += 60
    return LabelledPixels(array=images, rows=np.arange(count, dtype=np.int64), labels=labels)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """Train the full network for those strategies that learn from one."""
    folder = tmp_path_factory.mktemp("teacher")
    trial = replace(trial_of("full"), model=spec_of(cut="full"), train=replace(SETTINGS, epochs=2))
    run_trial(trial, train=draw(64, 1), val=draw(32, 2), folder=folder, device=CPU)
    return Teacher(model=trial.model, weights=folder / "best.safetensors", input=trial.input)


@pytest.fixture(scope="session")
def beginning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save the initial weights as those of a trained exit, for the strategies that begin with one."""
    path = tmp_path_factory.mktemp("exit") / "best.safetensors"
    safetensors.torch.save_file(initial_weights(), path)
    return path


@pytest.fixture(scope="session")
def train(teacher: Teacher, beginning: Path) -> Train:
    """Train by a strategy, in a folder, with a teacher or a beginning for those that want one."""

    def run(strategy: str, folder: Path, report: Callable[[Progress], None] = lambda progress: None) -> None:
        taught_by = teacher if find_strategy(strategy).teacher else None
        begins = beginning if find_strategy(strategy).warm else None
        run_trial(
            trial_of(strategy),
            train=draw(64, 1),
            val=draw(32, 2),
            folder=folder,
            device=CPU,
            teacher=taught_by,
            start=begins,
            report=report,
        )

    return run


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "best.safetensors")


def initial_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)  # the seed of a trial's first draw
    return build(spec_of()).state_dict()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("backbone", "cut"), [("resnet18", "layer1.1"), ("resnet18", "maxpool"), ("resnet18", "full")])
def test_every_parameter_is_in_one_group_at_most_and_the_epochs_add_up(strategy: str, backbone: str, cut: str) -> None:
    model, phases = phases_of(strategy, spec_of(backbone, cut))
    names = {name for name, _ in model.named_parameters()}
    assert sum(phase.epochs for phase in phases) == SETTINGS.epochs
    for phase in phases:
        grouped = [name for group in phase.groups for name in group.names]
        assert len(grouped) == len(set(grouped)) > 0
        assert set(grouped) <= names
        assert all(group.lr > 0 for group in phase.groups)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_in_no_group_stays_bit_identical_with_its_statistics(
    train: Train, strategy: str, tmp_path: Path
) -> None:
    train(strategy, tmp_path)
    before, after = initial_weights(), weights_in(tmp_path)
    model, phases = phases_of(strategy, spec_of())
    learned = {name for phase in phases for group in phase.groups for name in group.names}
    frozen = set(dict(model.named_parameters())) - learned
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    prefixes = FROZEN_BY.get(strategy, ())
    kept = [name for name in before if name.startswith(prefixes)] if prefixes else []
    assert all(torch.equal(after[name], before[name]) for name in kept)
    assert not [name for name in learned if name.startswith(prefixes or "nothing")]
    assert any(not torch.equal(after[name], before[name]) for name in learned)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_loss_falls(train: Train, strategy: str, tmp_path: Path) -> None:
    train(strategy, tmp_path)
    losses = [json.loads(line)["train_loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "strategy", [pytest.param(one, marks=() if one in RESUMED_FAST else pytest.mark.slow) for one in STRATEGIES]
)
def test_a_resumed_trial_ends_bit_for_bit_as_an_uninterrupted_one(train: Train, strategy: str, tmp_path: Path) -> None:
    train(strategy, tmp_path / "whole")
    for stop_after in (1, 2, 3):

        def cut_off(progress: Progress, stop_after: int = stop_after) -> None:
            if progress.finished and progress.epoch == stop_after:
                raise PowerCutError

        with pytest.raises(PowerCutError):
            train(strategy, tmp_path / "cut", report=cut_off)
    train(strategy, tmp_path / "cut")
    whole, resumed = weights_in(tmp_path / "whole"), weights_in(tmp_path / "cut")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_trials_folder_has_a_name_that_every_file_system_takes(strategy: str) -> None:
    assert not set(trial_of(strategy).key) & set('?&=:/\\*"<>| ')
