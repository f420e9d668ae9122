"""The moving average of the weights is what is scored and kept; compiling reaches the training's forward pass only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ttl_deploy.errors import UsageError
from ttl_deploy.models import truncation
from ttl_deploy.records.trials import Trial
from ttl_deploy.training import ema
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.loop import Progress, run_trial
from ttl_deploy_cli.settings import build_settings

CPU = torch.device("cpu")
DECAY = 0.8
MakeTrial = Callable[..., Trial]


class PowerCutError(Exception):
    """Stands for a kill between two epochs."""


def test_the_average_is_the_weighted_sum_of_all_weights_and_buffers_so_far() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = ema.average(model, DECAY)
    assert average is not None
    seen: list[dict[str, Tensor]] = []
    for _ in range(5):
        with torch.no_grad():
            for value in (*model.parameters(), model[1].running_mean, model[1].running_var):
                value.add_(torch.rand_like(value))
        seen.append({name: value.double().clone() for name, value in model.state_dict().items()})
        average.update_parameters(model)
    shares = [DECAY**4, *((1 - DECAY) * DECAY ** (4 - step) for step in range(1, 5))]
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        expected = sum(share * weights[name] for share, weights in zip(shares, seen, strict=True))
        torch.testing.assert_close(average.module.state_dict()[name].double(), expected, rtol=1e-6, atol=1e-6)


def test_a_decay_that_is_no_share_is_refused_and_zero_is_off() -> None:
    for decay in (1.0, -0.1, 999.0):
        with pytest.raises(UsageError, match=f"--ema {decay}"):
            ema.average(nn.Linear(1, 1), decay)
    assert ema.average(nn.Linear(1, 1), 0.0) is None


def watch_states(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Keep the weights and buffers after every optimiser step of the following trials."""
    states: list[dict[str, Tensor]] = []
    build, step = truncation.build, torch.optim.AdamW.step
    built: list[nn.Module] = []

    def watched_build(*given: Any) -> nn.Module:
        built.append(build(*given))
        return built[-1]

    def watched_step(self: torch.optim.AdamW, *given: Any) -> Any:
        result = step(self, *given)
        states.append({name: value.double().clone() for name, value in built[-1].state_dict().items()})
        return result

    monkeypatch.setattr(truncation, "build", watched_build)
    monkeypatch.setattr(torch.optim.AdamW, "step", watched_step)
    return states


def test_the_stored_weights_are_the_average_over_the_steps(
    tmp_path: Path,
    make_trial: MakeTrial,
    train_pixels: LabelledPixels,
    val_pixels: LabelledPixels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    states = watch_states(monkeypatch)
    run_trial(make_trial(epochs=1, ema=DECAY), train=train_pixels, val=val_pixels, folder=tmp_path, device=CPU)
    expected = states[0]
    for state in states[1:]:
        expected = {name: DECAY * expected[name] + (1 - DECAY) * value for name, value in state.items()}
    stored = load_file(tmp_path / "best.safetensors")
    assert set(stored) == set(expected)
    for name in stored:
        if stored[name].is_floating_point():
            torch.testing.assert_close(stored[name].double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not all(torch.equal(stored[name].double(), states[-1][name]) for name in stored)


def test_an_averaged_trial_resumes_bit_for_bit(
    tmp_path: Path, make_trial: MakeTrial, train_pixels: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    trial = make_trial(ema=DECAY)
    whole = run_trial(trial, train=train_pixels, val=val_pixels, folder=tmp_path / "whole", device=CPU)
    for stop_after in (1, 2):

        def cut_off(progress: Progress, stop_after: int = stop_after) -> None:
            if progress.finished and progress.epoch == stop_after:
                raise PowerCutError

        with pytest.raises(PowerCutError):
            run_trial(trial, train=train_pixels, val=val_pixels, folder=tmp_path / "cut", device=CPU, report=cut_off)
    resumed = run_trial(trial, train=train_pixels, val=val_pixels, folder=tmp_path / "cut", device=CPU)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.val_auroc == whole.val_auroc


@pytest.mark.parametrize("wanted", [True, False])
def test_compiling_is_for_the_training_passes_only_and_off_by_default(
    tmp_path: Path,
    make_trial: MakeTrial,
    train_pixels: LabelledPixels,
    val_pixels: LabelledPixels,
    monkeypatch: pytest.MonkeyPatch,
    wanted: bool,
) -> None:
    modes: list[bool] = []

    def fake_compile(model: nn.Module) -> Callable[[Tensor], Tensor]:
        def compiled(images: Tensor) -> Tensor:
            modes.append(model.training)
            logits: Tensor = model(images)
            return logits

        return compiled

    monkeypatch.setattr(torch, "compile", fake_compile)
    settings = {"compile": True} if wanted else {}
    run_trial(make_trial(epochs=1, **settings), train=train_pixels, val=val_pixels, folder=tmp_path, device=CPU)
    assert modes == ([True] * 4 if wanted else [])
    names = set(truncation.build(make_trial().model).state_dict())
    assert set(load_file(tmp_path / "best.safetensors")) == names


def test_the_options_reach_the_settings() -> None:
    settings = build_settings({"backbone": "vgg11", "data": "x", "ema": 0.99, "compile": True})
    assert (settings.train.ema, settings.train.compile) == (0.99, True)
