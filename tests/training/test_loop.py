"""A trial learns, repeats bit for bit, and resumes as if nothing had happened."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ttl_deploy.records.trials import Trial, TrialPause
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.learning import learning_rate_factor
from ttl_deploy.training.loop import Progress, TrialError, run_trial

CPU = torch.device("cpu")
MakeTrial = Callable[..., Trial]


class PowerCutError(Exception):
    """Stands for a kill between two epochs."""


def predictions(folder: Path) -> np.ndarray:
    with np.load(folder / "predictions_val.npz") as content:
        return content["probabilities"]


def test_a_trial_learns_an_easy_task(
    tmp_path: Path, make_trial: MakeTrial, train_pixels: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    result = run_trial(make_trial(epochs=6), train=train_pixels, val=val_pixels, folder=tmp_path, device=CPU)
    assert result.val_auroc is not None
    assert result.val_auroc > 0.95
    losses = [json.loads(line)["train_loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]


def test_the_same_seed_repeats_bit_for_bit_and_another_does_not(
    tmp_path: Path, make_trial: MakeTrial, train_pixels: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    results = [
        run_trial(
            make_trial(seed=seed, epochs=1), train=train_pixels, val=val_pixels, folder=tmp_path / name, device=CPU
        )
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert results[0].weights_sha256 == results[1].weights_sha256 != results[2].weights_sha256
    np.testing.assert_array_equal(predictions(tmp_path / "a"), predictions(tmp_path / "b"))


@pytest.mark.parametrize("damage", ["none", "newest checkpoint"])
def test_a_trial_cut_off_after_any_epoch_ends_as_if_it_had_not_been(
    tmp_path: Path, make_trial: MakeTrial, train_pixels: LabelledPixels, val_pixels: LabelledPixels, damage: str
) -> None:
    whole = run_trial(make_trial(), train=train_pixels, val=val_pixels, folder=tmp_path / "whole", device=CPU)
    folder = tmp_path / "cut off"
    for stop_after in (1, 2):

        def cut_off(progress: Progress, stop_after: int = stop_after) -> None:
            if progress.finished and progress.epoch == stop_after:
                raise PowerCutError

        with pytest.raises(PowerCutError):
            run_trial(make_trial(), train=train_pixels, val=val_pixels, folder=folder, device=CPU, report=cut_off)
    if damage != "none":
        newest = folder / "last.ckpt"
        newest.write_bytes(newest.read_bytes()[:-100])
    resumed = run_trial(make_trial(), train=train_pixels, val=val_pixels, folder=folder, device=CPU)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert (resumed.best_epoch, resumed.val_auroc) == (whole.best_epoch, whole.val_auroc)
    np.testing.assert_array_equal(predictions(folder), predictions(tmp_path / "whole"))
    assert not list(folder.glob("*.ckpt"))


def test_a_trial_that_rests_goes_on_as_if_it_had_not_and_its_state_at_the_rest_stays(
    tmp_path: Path, make_trial: MakeTrial, train_pixels: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    given = {"train": train_pixels, "val": val_pixels, "device": CPU}
    whole = run_trial(make_trial(), **given, folder=tmp_path / "whole")
    folder = tmp_path / "resting"
    rest = run_trial(make_trial(), **given, folder=folder, until=1)
    assert isinstance(rest, TrialPause)
    assert (rest.epoch, rest.key) == (1, whole.key)
    first = (folder / rest.predictions).read_bytes()
    assert run_trial(make_trial(), **given, folder=folder, until=1) == rest
    done = run_trial(make_trial(), **given, folder=folder)
    assert (done.weights_sha256, done.val_auroc, done.epochs_run) == (
        whole.weights_sha256,
        whole.val_auroc,
        whole.epochs_run,
    )
    assert (folder / rest.predictions).read_bytes() == first
    assert run_trial(make_trial(), **given, folder=folder, until=1) == done


def test_a_finished_trial_is_not_trained_again(
    tmp_path: Path, make_trial: MakeTrial, train_pixels: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    def forbid(progress: Progress) -> None:
        raise PowerCutError

    first = run_trial(make_trial(epochs=1), train=train_pixels, val=val_pixels, folder=tmp_path, device=CPU)
    again = run_trial(
        make_trial(epochs=1), train=train_pixels, val=val_pixels, folder=tmp_path, device=CPU, report=forbid
    )
    assert again == first


def test_the_best_epoch_is_kept_not_the_last(
    tmp_path: Path, make_trial: MakeTrial, train_pixels: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    result = run_trial(make_trial(epochs=4, lr=0.02), train=train_pixels, val=val_pixels, folder=tmp_path, device=CPU)
    epochs = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    best = max(epochs, key=lambda epoch: (epoch["val_auroc"], -epoch["val_loss"]))
    assert result.best_epoch == best["epoch"]
    assert result.val_auroc == pytest.approx(best["val_auroc"], abs=1e-12)


def test_training_stops_when_validation_no_longer_improves(
    tmp_path: Path, make_trial: MakeTrial, train_pixels: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    trial = make_trial(epochs=9, patience=1, lr=1e-12, weight_decay=0.0)
    result = run_trial(trial, train=train_pixels, val=val_pixels, folder=tmp_path, device=CPU)
    assert result.epochs_run == result.best_epoch + 1 < 9


def test_a_diverging_trial_fails_with_the_reason(
    tmp_path: Path, make_trial: MakeTrial, train_pixels: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    with pytest.raises(TrialError, match="lower --lr") as caught:
        run_trial(make_trial(lr=1e30), train=train_pixels, val=val_pixels, folder=tmp_path, device=CPU)
    assert caught.value.kind == "numerical"


def test_the_rate_rises_linearly_then_falls_as_a_cosine() -> None:
    shares = np.linspace(0, 1, 101)
    factors = np.array([learning_rate_factor(share, warmup=0.1) for share in shares])
    np.testing.assert_allclose(np.diff(factors[:10], n=2), 0, atol=1e-12)
    np.testing.assert_allclose(factors[10:], 0.5 * (1 + np.cos(np.pi * (shares[10:] - 0.1) / 0.9)), atol=1e-12)
    assert factors[0] > 0
    assert learning_rate_factor(0.0, warmup=0.0) == 1.0
