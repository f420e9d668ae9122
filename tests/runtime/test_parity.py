"""Differences, signal to noise and the paired AUROC interval, against numpy and by construction."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ttl_deploy.records.artifacts import Gate
from ttl_deploy.runtime.artifact import decide
from ttl_deploy.runtime.parity import Truth, compare, compare_auroc, count_flipped, error_power, sqnr_db

COUNT = 600
GATE = Gate(max_drop=0.02)


def draw(*, noise, seed=0, count=COUNT):
    """Draw labels, a model's probabilities and a file's, whose logits differ by Gaussian noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    logits = 2.0 * labels - 1 + rng.normal(0, 1, count)
    other = logits + rng.normal(0, noise, count) if noise else logits
    one, two = (np.column_stack([1 - p, p]).astype(np.float32) for p in (sigmoid(logits), sigmoid(other)))
    return Truth(labels=labels.tolist(), patients=[f"p{i}" for i in range(count)], split="val"), one, two


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_percentiles_are_those_of_the_images_largest_differences(tiny):
    _, model, file = draw(noise=0.3)
    parity = compare(file, model, tiny.manifest(), reference="")
    worst = np.sort(np.abs(file.astype(float) - model).max(axis=1))
    for value, share in zip(parity.percentiles, (0.5, 0.95, 0.99), strict=True):
        assert abs((worst <= value).mean() - share) < 2 / COUNT
    assert parity.agreement == pytest.approx(1 - ((file[:, 1] > 0.5) != (model[:, 1] > 0.5)).mean())


def test_signal_to_noise_is_that_of_the_logits():
    _, model, file = draw(noise=0.1)
    logit = {name: np.log(p[:, 1].astype(float) / p[:, 0]) for name, p in (("m", model), ("f", file))}
    expected = 10 * np.log10((logit["m"] ** 2).sum() / ((logit["f"] - logit["m"]) ** 2).sum())
    assert sqnr_db(file, model) == pytest.approx(expected, abs=0.01)
    assert sqnr_db(model, model) is None
    broken = file.copy()
    broken[0] = np.nan
    assert sqnr_db(broken, model) is None
    assert error_power(broken, model) == np.inf


def test_a_faithful_file_passes_the_gate(tiny):
    truth, model, file = draw(noise=0.02)
    parity = compare(file, model, tiny.manifest(), reference="", truth=truth, gate=GATE)
    assert parity.passed
    assert parity.auroc.difference.low > -GATE.max_drop
    assert parity.auroc.file - parity.auroc.model == pytest.approx(parity.auroc.difference.value)


def test_decisions_alone_can_fail_the_gate(tiny):
    truth, model, _ = draw(noise=0)
    lower = model[:, 1] ** 3  # ranks stay, decisions move
    parity = compare(np.column_stack([1 - lower, lower]), model, tiny.manifest(), reference="", truth=truth, gate=GATE)
    assert parity.auroc.difference.value == pytest.approx(0, abs=1e-3)
    (failure,) = parity.failures
    assert "decisions changed" in failure
    assert "asked for 98%" in failure


def test_a_clear_loss_fails_without_a_plea_for_more_images(tiny):
    truth, model, file = draw(noise=3)
    parity = compare(file, model, tiny.manifest(), reference="", truth=truth, gate=GATE)
    told = next(one for one in parity.failures if "AUROC" in one)
    assert "does not exclude a loss of 0.02" in told
    assert "too few" not in told


def test_too_few_images_to_tell_say_how_many_would():
    truth, model, file = draw(noise=0.1, count=60, seed=2)
    drop = compare_auroc(file, model, truth, gate=Gate(max_drop=0.005))
    assert drop.difference.low <= -0.005 < drop.difference.value
    assert drop.needed.patients > 60


def test_what_cannot_be_told_fails_with_the_reason(tiny):
    truth, model, file = draw(noise=0.02)
    alike = Truth(labels=[0] * COUNT, patients=truth.patients, split="val")
    few = Truth(labels=truth.labels, patients=[f"p{i % 3}" for i in range(COUNT)], split="val")
    broken = file.copy()
    broken[3] = np.nan
    for given, told, reason in (
        (file, alike, "all images are of one class"),
        (file, few, "a class stands for 3 patients only, fewer than 10"),
        (broken, truth, "some probabilities are not finite"),
    ):
        parity = compare(given, model, tiny.manifest(), reference="", truth=told, gate=GATE)
        assert not parity.passed
        assert reason in " ".join(parity.failures)


@pytest.mark.parametrize("drop", [0, -0.1, 0.5, 2])
def test_a_gate_that_allows_nothing_or_everything_is_refused(drop):
    with pytest.raises(ValueError, match="above 0 and below"):
        Gate(max_drop=drop)


def test_of_several_labels_each_is_decided_compared_and_measured_by_itself(tiny):
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(COUNT, 3)) * 2
    moved = logits + rng.normal(size=logits.shape) * 0.1
    model, file = (sigmoid(values).astype(np.float32) for values in (logits, moved))
    manifest = replace(tiny.manifest(), decision="each")
    np.testing.assert_array_equal(decide(model, manifest), (logits >= 0).astype(int))
    assert count_flipped(file, model, manifest) == ((logits >= 0) != (moved >= 0)).any(axis=1).sum() > 0
    marks = rng.integers(-1, 2, logits.shape)
    truth = Truth(labels=[tuple(row) for row in marks.tolist()], patients=[f"p{i}" for i in range(COUNT)], split="val")
    parity = compare(file, model, manifest, reference="", truth=truth, gate=GATE)
    assert parity.decisions_flipped == count_flipped(file, model, manifest)
    expected = 10 * np.log10((logits**2).sum() / ((moved - logits) ** 2).sum())
    assert parity.sqnr_db == pytest.approx(expected, abs=0.01)
    each = [roc_auc_score(marks[marks[:, k] >= 0, k], moved[marks[:, k] >= 0, k]) for k in range(3)]
    assert parity.auroc.file == pytest.approx(np.mean(each), abs=1e-6)
    few = Truth(labels=[(1, 0, 0)] * COUNT, patients=truth.patients, split="val")
    assert compare_auroc(file, model, few).reason == "no class is present in some images and absent in others"
