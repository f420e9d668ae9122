"""Losses agree with torch's own and with formulas by hand, and survive what has no answer."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.records.trials import TrainSettings
from ttl_deploy.training import losses

NAN = math.nan
LABELS = np.array([0] * 70 + [1] * 20 + [2] * 10)


def batch(count: int = 12, classes: int = 3, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, classes, generator=rng), torch.randint(classes, (count,), generator=rng)


def multi_label(*, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits and labels `(16, 5)`, about a third of the labels not known: -1."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (16, 5), generator=rng)
    labels[torch.rand(16, 5, generator=rng) < 0.3] = -1
    return torch.randn(16, 5, generator=rng), labels


def settings(**changes: object) -> TrainSettings:
    return TrainSettings(**changes)  # type: ignore[arg-type]  # keyword arguments of mixed types


@pytest.mark.parametrize("kind", ["cross-entropy", "focal"])
def test_softmax_is_applied_once(kind: str) -> None:
    loss = losses.training_loss(None, settings=settings(loss=kind, focal_gamma=0.0))
    found = loss(torch.tensor([[10.0, 0.0]], dtype=torch.float64), torch.tensor([0]))
    assert float(found) == pytest.approx(math.log1p(math.exp(-10)), rel=1e-9)
    assert float(found) == pytest.approx(4.54e-5, rel=1e-3)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("balance", ["none", "balanced"])
def test_focal_without_gamma_is_torchs_cross_entropy(balance: str, smoothing: float) -> None:
    logits, labels = batch()
    wanted = settings(loss="focal", focal_gamma=0.0, class_weights=balance, label_smoothing=smoothing)
    weights = losses.class_weights(LABELS, classes=3, kind=wanted.class_weights)
    expected = functional.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(losses.training_loss(weights, settings=wanted)(logits, labels), expected)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_is_the_papers_formula_by_hand(gamma: float) -> None:
    logits, labels = batch()
    weights = (0.5, 1.0, 4.0)
    terms, divisor = 0.0, 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        likely = math.exp(row[label]) / sum(math.exp(value) for value in row)
        terms += weights[label] * (1 - likely) ** gamma * -math.log(likely)
        divisor += weights[label]
    found = losses.focal(logits, labels, gamma=gamma, weights=torch.tensor(weights))
    assert float(found) == pytest.approx(terms / divisor, rel=1e-5)


def test_focal_of_two_classes_is_torchvisions_sigmoid_focal_loss() -> None:
    load_torchvision()
    from torchvision.ops import sigmoid_focal_loss

    logits, labels = batch(classes=2)
    expected = sigmoid_focal_loss(logits[:, 1] - logits[:, 0], labels.float(), alpha=-1, gamma=2, reduction="mean")
    torch.testing.assert_close(losses.focal(logits, labels, gamma=2.0), expected)


def test_focal_smoothed_is_the_mixture_over_all_labels_by_hand() -> None:
    logits, labels = batch(count=1)
    each = [float(losses.focal(logits, torch.tensor([label]), gamma=2.0)) for label in range(3)]
    expected = 0.7 * each[int(labels)] + 0.3 * sum(each) / 3
    assert float(losses.focal(logits, labels, gamma=2.0, label_smoothing=0.3)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("label", [0, 1])
def test_focal_of_a_certain_image_has_a_finite_loss_and_gradient(gamma: float, label: int) -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = losses.focal(logits, torch.tensor([label]), gamma=gamma)
    loss.backward()  # type: ignore[no-untyped-call] # torch's own
    assert logits.grad is not None
    assert bool(torch.isfinite(logits.grad).all())
    assert float(loss.detach()) == pytest.approx(400.0 if label else 0.0)


@pytest.mark.parametrize("kind", ["cross-entropy", "focal"])
def test_a_batchs_loss_is_that_of_its_parts_by_the_weights_of_their_labels(kind: str) -> None:
    logits, labels = batch()
    weights = torch.tensor([0.5, 1.0, 4.0])
    loss = losses.training_loss(weights, settings=settings(loss=kind, label_smoothing=0.1))
    parts = [loss(logits[part], labels[part]) * weights[labels[part]].sum() for part in (slice(5), slice(5, None))]
    torch.testing.assert_close(loss(logits, labels), sum(parts) / weights[labels].sum())


def test_masked_bce_is_torchs_on_the_known_entries() -> None:
    logits, labels = multi_label()
    known = labels >= 0
    assert 0 < int(known.sum()) < labels.numel()
    expected = functional.binary_cross_entropy_with_logits(logits[known], labels[known].float())
    torch.testing.assert_close(losses.masked_bce(logits, labels), expected)


def test_masked_bce_weighs_the_positives_of_each_label_as_torch_does() -> None:
    logits, labels = multi_label()
    known, weights = labels >= 0, torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0])
    expected = functional.binary_cross_entropy_with_logits(
        logits[known], labels[known].float(), pos_weight=weights.expand(16, 5)[known]
    )
    torch.testing.assert_close(losses.masked_bce(logits, labels, positives=weights), expected)


def test_masked_bce_smoothed_is_the_mixture_of_both_answers() -> None:
    logits, labels = multi_label()
    other = torch.where(labels < 0, labels, 1 - labels)
    right, wrong = losses.masked_bce(logits, labels), losses.masked_bce(logits, other)
    torch.testing.assert_close(losses.masked_bce(logits, labels, label_smoothing=0.2), 0.9 * right + 0.1 * wrong)


def test_masked_bce_with_gamma_is_torchvisions_focal_loss_of_the_known_entries() -> None:
    logits, labels = multi_label()
    known = labels >= 0
    load_torchvision()
    from torchvision.ops import sigmoid_focal_loss

    expected = sigmoid_focal_loss(logits[known], labels[known].float(), alpha=-1, gamma=2.0, reduction="mean")
    torch.testing.assert_close(losses.masked_bce(logits, labels, gamma=2.0), expected)


def test_unknown_entries_get_no_gradient_and_the_others_torchs() -> None:
    logits, labels = multi_label()
    known = labels >= 0
    logits[~known] = NAN  # whatever stands there must not reach the others
    logits.requires_grad_()
    losses.masked_bce(logits, labels).backward()  # type: ignore[no-untyped-call] # torch's own
    assert logits.grad is not None
    assert bool((logits.grad[~known] == 0).all())
    by_hand = (torch.sigmoid(logits.detach()) - labels)[known] / known.sum()
    torch.testing.assert_close(logits.grad[known], by_hand)


def test_a_batch_without_a_known_label_gives_zero_and_zero_gradients() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    loss = losses.masked_bce(logits, torch.full((4, 3), -1), positives=torch.tensor([1.0, 2.0, 3.0]))
    loss.backward()  # type: ignore[no-untyped-call] # torch's own
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros(4, 3))


def test_positive_weights_count_known_entries_and_leave_one_sided_labels_alone() -> None:
    labels = np.array([[1, 0, 1, -1], [0, 0, 1, -1], [0, -1, -1, -1], [0, 0, 1, -1], [-1, 0, 1, -1]])
    weights = losses.positive_weights(labels, kind="balanced")
    assert weights is not None
    assert weights.tolist() == [3.0, 1.0, 1.0, 1.0]
    assert losses.positive_weights(labels, kind="none") is None


def test_positive_weights_make_both_sides_of_a_label_weigh_the_same() -> None:
    labels = np.random.default_rng(3).choice([0, 1, -1], size=(200, 3), p=[0.7, 0.1, 0.2])
    weights = losses.positive_weights(labels, kind="balanced")
    assert weights is not None
    np.testing.assert_allclose(weights.numpy() * (labels == 1).sum(axis=0), (labels == 0).sum(axis=0), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["cross-entropy", "focal"])
def test_a_batchs_loss_of_several_labels_is_that_of_its_parts_by_their_known_labels(
    kind: str, smoothing: float
) -> None:
    logits, labels = multi_label()
    task = losses.task_loss(labels.numpy(), classes=5, settings=settings(loss=kind, label_smoothing=smoothing))
    weights = losses.image_weights(labels, task.class_weights)
    assert torch.equal(weights, (labels >= 0).sum(dim=1).float())
    parts = [task.module(logits[part], labels[part]) * weights[part].sum() for part in torch.arange(16).split(5)]
    torch.testing.assert_close(task.module(logits, labels), sum(parts) / weights.sum())


@pytest.mark.parametrize("gamma", [-0.1, math.inf, NAN])
def test_a_gamma_that_makes_no_sense_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="focal_gamma"):
        TrainSettings(focal_gamma=gamma)


def test_balancing_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="counts rare classes twice"):
        TrainSettings(sampling="balanced")
    assert TrainSettings(sampling="balanced", class_weights="none").sampling == "balanced"
