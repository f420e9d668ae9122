"""Gradual unfreezing: what learns in which stage, and for how long."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from ttl_deploy.errors import UsageError
from ttl_deploy.models.truncation import build
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import TrainSettings
from ttl_deploy.training.freezing import train_mode
from ttl_deploy.training.learning import Learning
from ttl_deploy.training.strategies import Phase, find_strategy

DIRECTIONS = ("gradual-last-first", "gradual-first-last")
MODULES = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc")
UP, DOWN = DIRECTIONS[1], DIRECTIONS[0]


def phases_of(strategy: str, epochs: int) -> tuple[nn.Module, tuple[Phase, ...]]:
    spec = ModelSpec(backbone="resnet18", cut="full", classes=2, image_size=32)
    with torch.device("meta"):
        model = build(spec)
    return model, find_strategy(strategy).phases(model, spec, TrainSettings(epochs=epochs))


def learning_modules(phase: Phase) -> list[str]:
    """Return which of the network's modules learn, bottom to top."""
    learning = {name.split(".")[1] for group in phase.groups for name in group.names}
    return [module for module in MODULES if module in learning]


def test_last_to_first_begins_with_the_head_and_ends_with_everything() -> None:
    _, phases = phases_of(DOWN, epochs=12)
    assert [learning_modules(phase) for phase in phases] == [
        ["fc"],
        ["layer4", "fc"],
        ["layer3", "layer4", "fc"],
        ["layer2", "layer3", "layer4", "fc"],
        ["layer1", "layer2", "layer3", "layer4", "fc"],
        list(MODULES),
    ]
    assert [phase.epochs for phase in phases] == [2] * 6


def test_first_to_last_trains_the_head_from_the_beginning_and_climbs() -> None:
    _, phases = phases_of(UP, epochs=13)
    assert [learning_modules(phase) for phase in phases] == [
        ["conv1", "bn1", "fc"],
        ["conv1", "bn1", "layer1", "fc"],
        ["conv1", "bn1", "layer1", "layer2", "fc"],
        ["conv1", "bn1", "layer1", "layer2", "layer3", "fc"],
        list(MODULES),
    ]
    assert [phase.epochs for phase in phases] == [2, 2, 2, 2, 5]


@pytest.mark.parametrize("strategy", DIRECTIONS)
@pytest.mark.parametrize("epochs", range(2, 16))
def test_all_epochs_are_used_each_stage_adds_something_and_all_learns_in_the_end(strategy: str, epochs: int) -> None:
    model, phases = phases_of(strategy, epochs)
    learned = [{name for group in phase.groups for name in group.names} for phase in phases]
    assert sum(phase.epochs for phase in phases) == epochs
    assert all(phase.epochs >= 1 for phase in phases)
    assert all(earlier < later for earlier, later in pairwise(learned))
    assert learned[-1] == {name for name, _ in model.named_parameters()}
    assert all("head.fc.weight" in names for names in learned)
    assert {group.lr for phase in phases for group in phase.groups} == {TrainSettings().lr}


def test_with_few_epochs_several_blocks_are_freed_at_once() -> None:
    _, phases = phases_of(DOWN, epochs=3)
    assert [learning_modules(phase) for phase in phases] == [["fc"], ["layer3", "layer4", "fc"], list(MODULES)]


def test_one_epoch_is_too_few_for_the_head_alone_and_the_rest() -> None:
    with pytest.raises(UsageError, match="at least 2 epochs"):
        phases_of(DOWN, epochs=1)


def test_one_epoch_from_the_bottom_up_trains_everything() -> None:
    _, phases = phases_of(UP, epochs=1)
    assert [learning_modules(phase) for phase in phases] == [list(MODULES)]


def test_blocks_that_wait_for_their_turn_keep_their_statistics() -> None:
    spec = ModelSpec(backbone="resnet18", cut="layer2.1", classes=2, image_size=32)
    model = build(spec)
    phase = find_strategy(UP).phases(model, spec, replace(TrainSettings(), epochs=9))[1]
    Learning(model, phase)
    train_mode(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(torch.randn(4, 3, 32, 32))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[1] for name in changed} == {"bn1", "layer1"}
