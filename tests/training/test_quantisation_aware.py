"""Finetuning for 8 bits: rounds as the numbers say, learns from the model as it was, and leaves plain weights."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.special import softmax
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ttl_deploy.models.truncation import TruncatedModel
from ttl_deploy.records.models import InputConvention
from ttl_deploy.training import batches, evaluation
from ttl_deploy.training import quantisation_aware as qat

CPU = torch.device("cpu")
PLAIN = InputConvention(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def round_by_numpy(values, scale):
    """Round to the nearest of 256 integers, halves to even, as ONNX's QuantizeLinear says."""
    return (np.clip(np.rint(values.astype(np.float64) / scale), -128, 127) * scale).astype(np.float32)


def round_weights_by_numpy(weight):
    """Round each output channel by a scale of its own, the largest value becoming 127."""
    scales = np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127
    return np.stack([round_by_numpy(row, scale) for row, scale in zip(weight, scales, strict=True)])


def draw_layer(layer, shape):
    torch.manual_seed(0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.eval(), torch.randn(shape)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(3, 5, 3, padding=1), (4, 3, 8, 8)),
        (nn.Conv2d(6, 6, 3, groups=6, bias=False), (4, 6, 8, 8)),
        (nn.Linear(7, 4), (9, 7)),
    ],
    ids=["convolution", "depthwise", "linear"],
)
def test_inputs_and_weights_are_rounded_as_numpy_rounds_them(layer, shape):
    layer, given = draw_layer(layer, shape)
    net, scale = nn.Sequential(layer), 1.5 / 127  # values above 1.5 are clipped
    expected = copy.deepcopy(layer)
    expected.weight.data = torch.from_numpy(round_weights_by_numpy(layer.weight.detach().numpy()))
    with torch.no_grad(), qat.rounded(net, {"0": scale}):
        found = net(given)
    with torch.no_grad():
        torch.testing.assert_close(found, expected(torch.from_numpy(round_by_numpy(given.numpy(), scale))))


def test_a_channel_of_zeros_stays_zero():
    layer, given = draw_layer(nn.Linear(3, 2), (4, 3))
    layer.weight.data[1], layer.bias.data[1] = 0, 0
    with torch.no_grad(), qat.rounded(nn.Sequential(layer), {"0": 0.01}) as _:
        assert (layer(given)[:, 1] == 0).all()


def test_rounding_before_batchnorm_is_folded_is_rounding_after():
    layer, given = draw_layer(nn.Conv2d(3, 6, 3, bias=False), (4, 3, 8, 8))
    norm = nn.BatchNorm2d(6).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 3)
    nn.init.normal_(norm.weight)  # negative ones too
    folded = fuse_conv_bn_eval(layer, norm)
    apart, together = nn.Sequential(copy.deepcopy(layer), norm), nn.Sequential(folded)
    with torch.no_grad(), qat.rounded(apart, {"0": 0.02}), qat.rounded(together, {"0": 0.02}):
        torch.testing.assert_close(apart(given), together(given), rtol=1e-4, atol=1e-4)


def test_scales_are_the_largest_inputs_on_the_calibration_images():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 2), nn.Identity()).eval()
    unused = nn.ModuleDict({"used": net, "unused": nn.Linear(2, 2)})
    unused.forward = net.forward
    images = np.random.default_rng(0).integers(0, 256, (70, 4, 4, 3), dtype=np.uint8)  # more than a batch
    inputs = torch.from_numpy((images / 255 - 0.5) / 0.25).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        hidden = net[2](net[1](net[0](inputs)))
    found = qat.observe_scales(unused, images, convention=PLAIN, device=CPU)
    assert found == pytest.approx(
        {"used.0": float(inputs.abs().max()) / 127, "used.3": float(hidden.abs().max()) / 127}
    )


def test_afterwards_the_model_is_what_it_was():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2)).eval()
    before, given = copy.deepcopy(net), torch.randn(2, 3, 8, 8)

    def interrupt(*_):
        raise KeyboardInterrupt

    hook = net[3].register_forward_hook(interrupt)
    with qat.rounded(net, {"0": 0.1, "3": 0.1}), pytest.raises(KeyboardInterrupt):
        net(given)
    hook.remove()
    assert set(net.state_dict()) == set(before.state_dict())
    assert [type(module) for module in net.modules()] == [type(module) for module in before.modules()]
    assert torch.equal(net(given), before(given))


@pytest.fixture
def start(make_trial, train_pixels):
    """A trial and a model that tells its classes apart, but whose second convolution 8 bits hurt.

    Its large weights read a channel that is always 0: they make the steps coarse, and mean nothing.
    """
    torch.manual_seed(0)
    trunk = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
    )
    head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 2))
    trial, model = make_trial(), TruncatedModel(trunk, head, channels=3).eval()
    with torch.no_grad():
        trunk[1].bias[0] = -100
        trunk[3].weight[:, 0] = 20
        gap = np.diff(predict(model, train_pixels, trial))
        head[3].weight *= -6 / float(np.ptp(gap))  # minus: its random weights say the opposite
        head[3].bias[1] -= float(np.diff(predict(model, train_pixels, trial)).mean())
    return trial, model


def predict(model, shown, trial):
    return evaluation.predict(model, shown, convention=trial.input, device=CPU)


def learn(start, train, val, **changes):
    trial, model = start
    learnt = copy.deepcopy(model)
    options = {"epochs": 4, "device": CPU, "lr": 1e-3, "calibration": train.array[:16]}
    course = qat.finetune(learnt, trial, train=train, val=val, **(options | changes))
    return learnt, course


def distance(model, reference, trial, calibration, shown):
    """Return the mean divergence of a rounded model's answers from the reference's."""
    scales = qat.observe_scales(model, calibration, convention=trial.input, device=CPU)
    with qat.rounded(model, scales):
        given = predict(model, shown, trial)
    return scipy.stats.entropy(softmax(predict(reference, shown, trial), 1), softmax(given, 1), axis=1).mean()


def test_finetuning_brings_the_rounded_model_nearer_to_the_model_as_it_was(start, train_pixels, val_pixels):
    trial, model = start
    learnt, course = learn(start, train_pixels, val_pixels)
    calibration = train_pixels.array[:16]
    before, after = (distance(copy.deepcopy(one), model, trial, calibration, val_pixels) for one in (model, learnt))
    assert before > 0.5
    assert after < 0.4 * before
    assert course.before < 0.8
    assert course.after[course.best_epoch - 1] == max(course.after) > 0.98
    assert len(course.after) == 4


def test_it_learns_from_the_model_and_not_from_labels_and_repeats_bit_for_bit(start, train_pixels, val_pixels):
    first, course = learn(start, train_pixels, val_pixels, epochs=1)
    wrong = replace(train_pixels, labels=1 - train_pixels.labels)
    second, again = learn(start, wrong, val_pixels, epochs=1)
    assert course == again
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_statistics_stay_and_weights_move(start, train_pixels, val_pixels):
    _, model = start
    learnt, _ = learn(start, train_pixels, val_pixels, epochs=1)
    before, after = model.state_dict(), learnt.state_dict()
    assert set(before) == set(after)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name in before if "running" in name or "tracked" in name}.isdisjoint(moved)
    assert {name for name, _ in model.named_parameters()} == moved
    assert not learnt.training


def test_of_the_best_epochs_by_validation_auroc_the_last_is_kept(start, train_pixels, val_pixels, monkeypatch):
    scores, seen = [0.5, 0.6, 0.9, 0.9, 0.7, None], []
    trial, model = start
    learning = copy.deepcopy(model)

    def score(predicted, labels):
        seen.append(predicted)
        return scores[len(seen) - 1]

    monkeypatch.setattr(evaluation, "mean_auroc", score)
    shown, calibration = {"train": train_pixels, "val": val_pixels}, train_pixels.array[:16]
    course = qat.finetune(learning, trial, **shown, calibration=calibration, epochs=5, device=CPU)
    assert (course.before, course.after, course.best_epoch) == (0.5, tuple(scores[1:]), 3)
    scales = qat.observe_scales(model, calibration, convention=trial.input, device=CPU)
    with qat.rounded(learning, scales):
        kept = evaluation.probabilities(predict(learning, val_pixels, trial), multilabel=False)
    assert [np.array_equal(kept, one) for one in seen] == [False, False, False, True, False, False]


def test_the_trials_own_augmentation_and_plan_are_used(start, train_pixels, val_pixels, monkeypatch):
    planned, augmented = [], []
    plan, augment = batches.plan_epoch, batches.augment
    monkeypatch.setattr(batches, "plan_epoch", lambda labels, **given: planned.append(given) or plan(labels, **given))
    monkeypatch.setattr(
        batches,
        "augment",
        lambda images, settings, **given: augmented.append(settings) or augment(images, settings, **given),
    )
    told = []
    learn(start, train_pixels, val_pixels, epochs=1, report=lambda *where: told.append(where))
    trial, _ = start
    assert planned == [{"sampling": "shuffled", "batch_size": 16, "seed": trial.seed, "epoch": 1}]
    assert set(augmented) == {trial.train.augmentation}
    assert told == [(1, number, 4) for number in (1, 2, 3, 4)]
