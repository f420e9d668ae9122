"""Balanced epochs show classes equally often, repeat with the seed, and resume bit for bit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ttl_deploy.records.trials import Trial
from ttl_deploy.training import batches
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.loop import Progress, run_trial

CPU = torch.device("cpu")
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [70, 20, 10]))
MakeTrial = Callable[..., Trial]


class PowerCutError(Exception):
    """Stands for a kill between two epochs."""


def drawn(labels: np.ndarray = LABELS, *, seed: int = 0, epoch: int = 1) -> np.ndarray:
    return np.concatenate(batches.balanced(labels, batch_size=len(labels), seed=seed, epoch=epoch))


@pytest.fixture(scope="module")
def imbalanced(train_pixels: LabelledPixels) -> LabelledPixels:
    """32 images of class 0 and 8 of class 1."""
    rows = np.concatenate([np.flatnonzero(train_pixels.labels == 0), np.flatnonzero(train_pixels.labels == 1)[:8]])
    return LabelledPixels(array=train_pixels.array, rows=train_pixels.rows[rows], labels=train_pixels.labels[rows])


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(0, 9))
def test_a_balanced_epoch_is_as_long_as_before_and_its_classes_differ_by_one_at_most(
    values: list[int], seed: int
) -> None:
    labels = np.array(values)
    order = drawn(labels, seed=seed)
    counts = np.bincount(labels[order])[np.unique(labels)]
    assert len(order) == len(labels)
    assert counts.max() - counts.min() <= 1


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(0, 9))
def test_images_repeat_only_where_a_class_is_too_small_and_then_evenly(values: list[int], seed: int) -> None:
    labels = np.array(values)
    times = np.bincount(drawn(labels, seed=seed), minlength=len(labels))
    for label in np.unique(labels):
        mine = times[labels == label]
        assert mine.max() - mine.min() <= 1
        assert mine.max() == 1 or mine.sum() > len(mine)


def test_the_odd_images_and_those_left_out_change_from_epoch_to_epoch() -> None:
    counts = sum(np.bincount(LABELS[drawn(epoch=epoch)]) for epoch in range(1, 61))
    assert sum(counts) == 60 * 100
    assert max(counts) - min(counts) < 30  # always the same class would make it 60
    seen = np.unique(np.concatenate([drawn(epoch=epoch) for epoch in range(1, 21)]))
    assert len(seen) == len(LABELS)


def test_the_same_seed_and_epoch_give_the_same_order_and_others_another() -> None:
    np.testing.assert_array_equal(drawn(seed=1, epoch=2), drawn(seed=1, epoch=2))
    assert (drawn(seed=1, epoch=2) != drawn(seed=1, epoch=3)).any()
    assert (drawn(seed=1, epoch=2) != drawn(seed=2, epoch=2)).any()


def test_classes_are_mixed_within_the_epoch() -> None:
    plan = batches.balanced(np.repeat([0, 1], 500), batch_size=100, seed=0, epoch=1)
    shares = [np.mean(batch >= 500) for batch in plan]
    assert 0.3 < min(shares) <= max(shares) < 0.7


def test_a_last_balanced_batch_of_one_image_is_left_out() -> None:
    plan = batches.balanced(np.arange(33) % 2, batch_size=16, seed=0, epoch=1)
    assert [len(batch) for batch in plan] == [16, 16]


def test_the_kind_of_sampling_decides_the_plan() -> None:
    for sampling, expected in (
        ("balanced", batches.balanced(LABELS, batch_size=8, seed=3, epoch=2)),
        ("shuffled", batches.shuffled(len(LABELS), batch_size=8, seed=3, epoch=2)),
    ):
        plan = batches.plan_epoch(LABELS, sampling=sampling, batch_size=8, seed=3, epoch=2)  # type: ignore[arg-type] # a loop over literals
        np.testing.assert_array_equal(np.concatenate(plan), np.concatenate(expected))


def test_a_trial_with_focal_loss_and_balanced_sampling_resumes_bit_for_bit(
    tmp_path: Path, make_trial: MakeTrial, imbalanced: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    trial = make_trial(loss="focal", sampling="balanced", class_weights="none")

    def run(name: str, report: Callable[[Progress], None] = lambda progress: None) -> str:
        done = run_trial(trial, train=imbalanced, val=val_pixels, folder=tmp_path / name, device=CPU, report=report)
        return done.weights_sha256

    def cut_off(progress: Progress) -> None:
        if progress.finished and progress.epoch == 1:
            raise PowerCutError

    whole = run("whole")
    with pytest.raises(PowerCutError):
        run("cut off", cut_off)
    assert run("cut off") == whole


def test_loss_and_sampling_change_what_is_learned(
    tmp_path: Path, make_trial: MakeTrial, imbalanced: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    plain = {"epochs": 1, "class_weights": "none"}
    changes = ({}, {"loss": "focal"}, {"loss": "focal", "focal_gamma": 4.0}, {"sampling": "balanced"})
    learned = {
        run_trial(
            make_trial(**plain, **change),
            train=imbalanced,
            val=val_pixels,
            folder=tmp_path / str(number),
            device=CPU,
        ).weights_sha256
        for number, change in enumerate(changes)
    }
    assert len(learned) == len(changes)
