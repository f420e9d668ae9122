"""Where the trunk is frozen it runs once over all images, and nothing else changes by that."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ttl_deploy.models import truncation
from ttl_deploy.records.models import IMAGENET_INPUT, ModelSpec
from ttl_deploy.records.trials import Augmentation, Trial
from ttl_deploy.training import evaluation, features, losses
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.features import Features
from ttl_deploy.training.loop import Progress, run_trial
from ttl_deploy.training.material import Setup
from ttl_deploy.training.strategies import Group, Phase, Teaching

CPU = torch.device("cpu")
MakeTrial = Callable[..., Trial]
Train = Callable[..., list[Progress]]
HEADS = {
    "pooled vectors": ModelSpec(backbone="resnet18", cut="layer1.1", classes=2, image_size=32, dropout=0.2),
    "both poolings": ModelSpec(backbone="resnet18", cut="layer1.0", classes=2, image_size=32, pool="avgmax"),
    "flattened maps": ModelSpec(backbone="resnet18", cut="layer2.0", classes=2, image_size=32, pool="flatten"),
    "a pooling that learns": ModelSpec(backbone="resnet18", cut="layer1.1", classes=2, image_size=32, pool="gem"),
    "a norm that learns": ModelSpec(
        backbone="densenet121", cut="features.denseblock1.denselayer2", classes=2, image_size=32, dropout=0.2
    ),
    "tokens": ModelSpec(backbone="vit_b_16", cut="encoder.layers.encoder_layer_0", classes=2, image_size=32),
    "the network's own head": ModelSpec(backbone="mobilenet_v2", cut="full", classes=2, image_size=32),
}


class Counter:
    """Counts what goes through the trunks of the models that trials build, and what they are shown."""

    def __init__(self) -> None:
        self.shown: list[Tensor] = []

    def build(self, spec: ModelSpec, original: Callable[..., nn.Module] = truncation.build) -> nn.Module:
        model = original(spec)
        model.get_submodule("trunk").register_forward_hook(lambda trunk, given, made: self.shown.extend(given[0]))
        return model


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Count the images that the trunks of the following trials see."""
    counting = Counter()
    monkeypatch.setattr(truncation, "build", counting.build)
    return counting


@pytest.fixture
def train(tmp_path: Path, train_pixels: LabelledPixels, val_pixels: LabelledPixels) -> Train:
    """Run a trial in a folder of that name; returns what it reported."""

    def run(trial: Trial, name: str = "trial") -> list[Progress]:
        seen: list[Progress] = []
        run_trial(trial, train=train_pixels, val=val_pixels, folder=tmp_path / name, device=CPU, report=seen.append)
        return seen

    return run


def probe(make_trial: MakeTrial, **changes: object) -> Trial:
    return replace(make_trial(**changes), strategy="linear-probe")


def count_different(images: list[Tensor]) -> int:
    return len({image.numpy().tobytes() for image in images})


def test_linear_probing_shows_each_image_to_the_trunk_exactly_once(
    make_trial: MakeTrial, train: Train, counter: Counter
) -> None:
    train(probe(make_trial, epochs=5))
    assert len(counter.shown) == count_different(counter.shown) == 64 + 32


def test_lp_ft_shows_each_image_once_in_its_first_phase_and_in_each_epoch_of_its_second(
    make_trial: MakeTrial, train: Train, counter: Counter
) -> None:
    train(replace(make_trial(epochs=6), strategy="lp-ft"))
    assert len(counter.shown) == (64 + 32) + 3 * (64 + 32)


@pytest.mark.parametrize("head", HEADS)
def test_a_trial_on_features_ends_like_one_on_unchanged_images(
    make_trial: MakeTrial, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    """Only rounding may differ, as convolutions may choose another way for another number of images."""
    trial = replace(probe(make_trial, epochs=2), model=HEADS[head])
    train(trial, "kept")
    still = Augmentation(flip=False, rotate_deg=0, zoom=0, shift=0, brightness=0, contrast=0)
    monkeypatch.setattr(features, "trunk_rests", lambda phase: False)  # as a phase that learns from images
    train(replace(trial, train=replace(trial.train, augmentation=still)), "images")
    first, second = (load_file(tmp_path / name / "best.safetensors") for name in ("kept", "images"))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-5, atol=2e-6)
    probabilities = [np.load(tmp_path / name / "predictions_val.npz")["probabilities"] for name in ("kept", "images")]
    np.testing.assert_allclose(*probabilities, atol=1e-5)


def test_validation_on_features_is_bit_for_bit_that_on_images(
    make_trial: MakeTrial, train_pixels: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    for spec in HEADS.values():
        setup = set_up(make_trial, spec, train_pixels, val_pixels)
        kept = Features(setup, lambda done, total: None).predict()
        expected = evaluation.predict(setup.model, val_pixels, convention=IMAGENET_INPUT, device=CPU)
        np.testing.assert_array_equal(kept, expected)


def set_up(
    make_trial: MakeTrial, spec: ModelSpec, train: LabelledPixels, val: LabelledPixels, **changes: object
) -> Setup:
    torch.manual_seed(3)
    model = truncation.build(spec)
    trial = replace(probe(make_trial), model=spec)
    settings = {
        "trial": trial,
        "train": train,
        "val": val,
        "model": model,
        "compiled": model,
        "scored": model,
        "loss": losses.cross_entropy(None, label_smoothing=0.0),
        "class_weights": None,
        "device": CPU,
    }
    return Setup(**(settings | changes))  # type: ignore[arg-type] # as named


@pytest.mark.parametrize("head", HEADS)
def test_the_size_of_features_is_known_before_they_are_computed(
    make_trial: MakeTrial, train_pixels: LabelledPixels, val_pixels: LabelledPixels, head: str
) -> None:
    setup = set_up(make_trial, HEADS[head], train_pixels, val_pixels)
    plan = (np.arange(len(train_pixels)),)
    ((kept, labels),) = Features(setup, lambda done, total: None).batches(plan, epoch=1)
    assert kept.nbytes == len(train_pixels) * features.count_bytes(setup.model, HEADS[head])
    assert labels.tolist() == train_pixels.labels.tolist()


def test_features_that_are_too_large_are_computed_in_every_epoch_and_nothing_else_changes(
    make_trial: MakeTrial,
    train: Train,
    counter: Counter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trial = replace(make_trial(epochs=4), strategy="lp-ft")  # whose trial augments
    train(trial, "kept")
    seen = len(counter.shown)
    size = (64 + 32) * 64 * 4
    monkeypatch.setattr(features, "MOST_BYTES", size - 1)
    with caplog.at_level(logging.WARNING):
        train(trial, "not kept")
    assert "the frozen trunk runs in every epoch" in caplog.text
    assert len(counter.shown) - seen == 4 * (64 + 32)
    lines = [json.loads(line) for line in (tmp_path / "not kept" / "metrics.jsonl").read_text().splitlines()]
    kept = [json.loads(line) for line in (tmp_path / "kept" / "metrics.jsonl").read_text().splitlines()]
    for one, other in zip(lines, kept, strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-4)
    monkeypatch.setattr(features, "MOST_BYTES", size)
    train(trial, "just kept")
    assert len(counter.shown) - seen == 4 * (64 + 32) + seen


def group(*names: str) -> tuple[Group, ...]:
    return (Group(names=names, lr=0.1, weight_decay=0.0),)


def test_the_trunk_rests_only_where_nothing_asks_for_more_than_its_features() -> None:
    still = Phase(name="probe", epochs=1, groups=group("head.linear.weight"))
    assert features.trunk_rests(still)
    assert features.trunk_rests(replace(still, penalty=lambda model: torch.zeros(())))
    assert not features.trunk_rests(replace(still, groups=group("head.linear.weight", "trunk.conv1.weight")))
    assert not features.trunk_rests(replace(still, regroup=lambda norms: still.groups))
    assert not features.trunk_rests(replace(still, teaching=Teaching(weight=0.5, temperature=2.0, features=0.0)))


def test_an_average_that_still_moves_keeps_its_trunk_running(
    make_trial: MakeTrial, train_pixels: LabelledPixels, val_pixels: LabelledPixels
) -> None:
    still = Phase(name="probe", epochs=1, groups=group("head.linear.weight"))
    moving = Phase(name="finetune", epochs=1, groups=group("trunk.conv1.weight"))
    plain = set_up(make_trial, HEADS["pooled vectors"], train_pixels, val_pixels)
    averaged = replace(plain, scored=truncation.build(plain.trial.model))
    assert features.are_worth_keeping([moving, still], plain)
    assert features.are_worth_keeping([still, still], averaged)
    assert not features.are_worth_keeping([moving, still], averaged)
    assert not features.are_worth_keeping([still, moving], plain)


def test_averaged_weights_are_scored_on_features_as_on_images(
    make_trial: MakeTrial, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = replace(make_trial(epochs=4, ema=0.8), strategy="lp-ft")
    train(trial, "kept")
    monkeypatch.setattr(features, "MOST_BYTES", 0)
    train(trial, "not kept")
    first, second = (load_file(tmp_path / name / "best.safetensors") for name in ("kept", "not kept"))
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=1e-5)


def sabotage_head(monkeypatch: pytest.MonkeyPatch, act: Callable[[int, int], float]) -> list[int]:
    """Let the last layer of models misbehave in training; returns the list of how many images it got each time."""
    sizes: list[int] = []
    build = truncation.build

    def sabotaged(spec: ModelSpec) -> nn.Module:
        model = build(spec)
        model.get_submodule("head.linear").register_forward_hook(change)
        return model

    def change(layer: nn.Module, given: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        if not layer.training:
            return logits
        sizes.append(len(given[0]))
        return logits * act(len(given[0]), len(sizes))

    monkeypatch.setattr(truncation, "build", sabotaged)
    return sizes


def test_too_little_memory_on_features_halves_the_batch_without_running_the_trunk_again(
    make_trial: MakeTrial, train: Train, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(images: int, call: int) -> float:
        if images > 8:
            raise torch.OutOfMemoryError("fake")
        return 1.0

    sizes = sabotage_head(monkeypatch, act)
    train(probe(make_trial, epochs=2))
    assert sizes == [16] + 2 * 8 * [8]
    assert len(counter.shown) == 64 + 32


def test_a_setback_on_features_begins_the_epoch_anew_with_half_the_rates(
    make_trial: MakeTrial, train: Train, counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = sabotage_head(monkeypatch, lambda images, call: float("nan") if call == 6 else 1.0)
    reports = train(probe(make_trial, epochs=2))
    assert len(sizes) == 4 + 2 + 4
    assert len(counter.shown) == 64 + 32
    finished = [progress.finished for progress in reports if progress.finished]
    assert [0 <= record.data_wait_share <= 1 for record in finished] == [True, True]


def test_the_one_pass_reports_its_progress_and_counts_in_the_first_epochs_time(
    make_trial: MakeTrial, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 16)
    reports = train(probe(make_trial, epochs=2))
    passed = [(progress.epoch, progress.done, progress.total) for progress in reports[:6]]
    assert passed == [(1, 1, 4), (1, 2, 4), (1, 3, 4), (1, 4, 4), (1, 1, 2), (1, 2, 2)]
    assert [progress.epoch for progress in reports[6:]] == [1] * 5 + [2] * 5


@pytest.mark.parametrize("settings", [{"class_weights": "none", "sampling": "balanced"}, {"loss": "focal"}])
def test_losses_and_sampling_work_on_features(make_trial: MakeTrial, train: Train, settings: dict[str, str]) -> None:
    reports = train(probe(make_trial, epochs=6, lr=0.02, **settings))
    scores = [progress.finished for progress in reports if progress.finished]
    assert scores[-1].train_loss < scores[0].train_loss


def test_compiling_leaves_features_alone(
    make_trial: MakeTrial, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(probe(make_trial, epochs=1), "plain")

    def refuse(model: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda images: pytest.fail("the compiled model ran")

    monkeypatch.setattr(torch, "compile", refuse)
    train(probe(make_trial, epochs=1, compile=True), "compiled")
    first, second = (load_file(tmp_path / name / "best.safetensors") for name in ("plain", "compiled"))
    assert all(torch.equal(first[name], second[name]) for name in first)
