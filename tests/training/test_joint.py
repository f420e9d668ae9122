"""Joint training: every exit learns, the deepest teaches, and each exit is a model of its own afterwards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch.nn import functional

from ttl_deploy.models.truncation import MultiExitModel, build, build_exits
from ttl_deploy.models.weights import load_weights
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import TrainSettings, Trial
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.joint import joint_loss
from ttl_deploy.training.loop import Progress, run_trial

SIDE, CPU = 32, torch.device("cpu")
EXITS = ("layer1.0", "layer2.0", "full")


class PowerCutError(Exception):
    """Stands for a kill between two epochs."""


def trial_of(epochs: int = 3) -> Trial:
    spec = ModelSpec(backbone="resnet18", cut="full", classes=2, image_size=SIDE, exits=EXITS)
    settings = TrainSettings(epochs=epochs, batch_size=16, lr=1e-3, patience=0)
    return Trial(model=spec, weights="none", strategy="full", seed=0, train=settings)


def draw(count: int, seed: int) -> LabelledPixels:
    """Draw noise images; class 1 is brighter."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 2
    images = rng.integers(40, 120, size=(count, SIDE, SIDE, 3), dtype=np.uint8)
    images[labels == 1] += 60
    return LabelledPixels(array=images, rows=np.arange(count, dtype=np.int64), labels=labels)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("joint")
    run_trial(trial_of(), train=draw(64, 1), val=draw(32, 2), folder=folder, device=CPU)
    return folder


def restore(folder: Path) -> MultiExitModel:
    model = build_exits(trial_of().model)
    load_weights(model, folder / "best.safetensors")
    return model


def probabilities_in(folder: Path) -> np.ndarray:
    with np.load(folder / "predictions_val.npz") as content:
        return content["probabilities"]


def test_the_loss_is_the_weighted_mean_of_the_exits_and_the_mean_of_their_divergences_from_the_deepest() -> None:
    logits = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0])
    logs = log_softmax(logits.numpy().astype(np.float64), axis=2)
    each = [-np.mean([logs[image, number, label] for image, label in enumerate(labels)]) for number in range(3)]
    own = (0.3 * each[0] + 1.0 * each[1] + 1.7 * each[2]) / 3
    deepest = logs[:, 2]
    divergence = np.mean([(np.exp(deepest) * (deepest - logs[:, number])).sum(axis=1).mean() for number in range(2)])
    found = joint_loss(logits, labels, functional.cross_entropy, teach=3.0)
    assert float(found) == pytest.approx(own + 3 * divergence, rel=1e-5)


def test_the_deepest_exit_does_not_learn_from_the_others() -> None:
    logits = torch.randn(5, 3, 2, requires_grad=True)
    labels = torch.zeros(5, dtype=torch.long)
    gradients = [
        torch.autograd.grad(joint_loss(logits, labels, functional.cross_entropy, teach=teach), logits)[0]
        for teach in (0.0, 3.0)
    ]
    assert torch.equal(gradients[0][:, 2], gradients[1][:, 2])
    assert not torch.equal(gradients[0][:, 0], gradients[1][:, 0])


def test_one_exit_alone_is_trained_as_a_model_of_its_own() -> None:
    logits, labels = torch.randn(5, 1, 2), torch.tensor([0, 1, 1, 0, 1])
    found = joint_loss(logits, labels, functional.cross_entropy, teach=3.0)
    assert torch.equal(found, functional.cross_entropy(logits[:, 0], labels))


def test_every_exit_learns_to_tell_the_classes(trained: Path) -> None:
    predicted = probabilities_in(trained)
    assert predicted.shape == (32, 3, 2)
    labels = draw(32, 2).labels
    assert ((predicted.argmax(axis=2) == labels[:, None]).mean(axis=0) > 0.9).all()


def test_each_exits_predictions_are_those_of_its_truncated_model(trained: Path) -> None:
    network, predicted, data = restore(trained), probabilities_in(trained), draw(32, 2)
    images = (
        torch.from_numpy(data.array).permute(0, 3, 1, 2).float() / 255
        - torch.tensor(trial_of().input.mean).view(1, 3, 1, 1)
    ) / torch.tensor(trial_of().input.std).view(1, 3, 1, 1)
    for number, cut in enumerate(EXITS):
        alone = build(ModelSpec(backbone="resnet18", cut=cut, classes=2, image_size=SIDE))
        alone.load_state_dict(network.exit_state(cut, alone.state_dict()))
        with torch.no_grad():
            expected = alone.eval()(images).softmax(dim=1).numpy()
        np.testing.assert_allclose(predicted[:, number], expected, atol=1e-5)


def test_a_resumed_joint_training_ends_bit_for_bit_as_an_uninterrupted_one(trained: Path, tmp_path: Path) -> None:
    def cut_off(progress: Progress) -> None:
        if progress.finished and progress.epoch == 1:
            raise PowerCutError

    given = {"train": draw(64, 1), "val": draw(32, 2), "folder": tmp_path, "device": CPU}
    with pytest.raises(PowerCutError):
        run_trial(trial_of(), **given, report=cut_off)
    run_trial(trial_of(), **given)
    whole, resumed = restore(trained).state_dict(), restore(tmp_path).state_dict()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
