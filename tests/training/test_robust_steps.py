"""Setbacks: values that are not finite, and too little memory. The trial goes back, changes one thing, goes on."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ttl_deploy.models import truncation
from ttl_deploy.records.trials import Trial, TrialResult
from ttl_deploy.training import losses, recovery
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.learning import Learning
from ttl_deploy.training.loop import Progress, TrialError, run_trial
from ttl_deploy.training.recovery import Setbacks
from ttl_deploy.training.steps import LOOK_EVERY, GuardedSteps, NotFiniteError, count_parts
from ttl_deploy.training.strategies import Group, Phase

CPU = torch.device("cpu")
MakeTrial = Callable[..., Trial]
Train = Callable[[Trial, str], TrialResult]


class PowerCutError(Exception):
    """Stands for a kill between two epochs."""


class Saboteur:
    """Wraps each model that a trial builds; `act(images seen, calls so far)` returns a factor on the logits."""

    def __init__(self, act: Callable[[int, int], float]) -> None:
        self.act, self.calls, self.sizes = act, 0, list[int]()

    def build(self, spec: object, original: Callable[..., nn.Module] = truncation.build) -> nn.Module:
        model = original(spec)
        model.register_forward_hook(self._change)
        return model

    def _change(self, model: nn.Module, given: tuple[Tensor, ...], logits: Tensor) -> Tensor:
        if not model.training:
            return logits
        self.calls += 1
        self.sizes.append(len(given[0]))
        return logits * self.act(len(given[0]), self.calls)


@pytest.fixture
def sabotage(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int, int], float]], Saboteur]:
    """Let the models of the following trials misbehave in training."""

    def begin(act: Callable[[int, int], float]) -> Saboteur:
        saboteur = Saboteur(act)
        monkeypatch.setattr(truncation, "build", saboteur.build)
        return saboteur

    return begin


@pytest.fixture
def train(tmp_path: Path, train_pixels: LabelledPixels, val_pixels: LabelledPixels) -> Train:
    """Run a trial in a folder of that name."""

    def run(trial: Trial, name: str, report: Callable[[Progress], None] = lambda progress: None) -> TrialResult:
        return run_trial(trial, train=train_pixels, val=val_pixels, folder=tmp_path / name, device=CPU, report=report)

    return run


def rates_in(folder: Path) -> list[float]:
    return [json.loads(line)["lr"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def not_finite_at(*calls: int) -> Callable[[int, int], float]:
    return lambda images, call: float("nan") if call in calls else 1.0


def test_an_epoch_with_a_value_that_is_not_finite_begins_anew_with_half_the_rates(
    tmp_path: Path, make_trial: MakeTrial, train: Train, sabotage: Callable[..., Saboteur]
) -> None:
    sabotage(not_finite_at())
    train(make_trial(epochs=2), "usual")
    saboteur = sabotage(not_finite_at(6))  # an epoch has 4 steps: the second of the second one
    result = train(make_trial(epochs=2), "setback")
    assert saboteur.calls == 4 + 2 + 4
    assert result.epochs_run == 2
    usual, halved = rates_in(tmp_path / "usual"), rates_in(tmp_path / "setback")
    assert halved == [usual[0], usual[1] / 2]


def test_the_epoch_after_a_setback_is_bit_for_bit_one_that_had_half_the_rates_from_its_beginning(
    make_trial: MakeTrial, train: Train, sabotage: Callable[..., Saboteur]
) -> None:
    sabotage(not_finite_at(3))
    setback = train(make_trial(epochs=1), "setback")
    sabotage(not_finite_at())
    half = make_trial(epochs=1, lr=1.5e-3)
    assert setback.weights_sha256 == train(half, "half").weights_sha256


def test_a_trial_with_a_setback_resumes_bit_for_bit(
    tmp_path: Path, make_trial: MakeTrial, train: Callable[..., TrialResult], sabotage: Callable[..., Saboteur]
) -> None:
    sabotage(not_finite_at(2))
    whole = train(make_trial(), "whole")

    def cut_off(progress: Progress) -> None:
        if progress.finished:
            raise PowerCutError

    sabotage(not_finite_at(2))
    with pytest.raises(PowerCutError):
        train(make_trial(), "cut", report=cut_off)
    sabotage(not_finite_at())  # after the cut nothing goes wrong any more, but the rates stay halved
    assert train(make_trial(), "cut").weights_sha256 == whole.weights_sha256
    assert rates_in(tmp_path / "cut") == rates_in(tmp_path / "whole")


def test_the_fourth_setback_ends_the_trial_and_says_what_was_seen_where_and_what_to_do(
    make_trial: MakeTrial, train: Train, sabotage: Callable[..., Saboteur]
) -> None:
    saboteur = sabotage(lambda images, call: float("inf"))
    with pytest.raises(
        TrialError, match=r"training loss became (nan|inf) in step 1 at a rate of .* in epoch 1"
    ) as error:
        train(make_trial(), "never")
    assert error.value.kind == "numerical"
    assert f"halved {recovery.MOST_REDUCTIONS} times: lower --lr (0.003)" in error.value.reason
    assert saboteur.calls == recovery.MOST_REDUCTIONS + 1


def test_on_a_gpus_schedule_of_looks_the_trial_ends_with_the_same_weights(
    make_trial: MakeTrial, train: Train, sabotage: Callable[..., Saboteur], monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(not_finite_at(2))
    at_once = train(make_trial(epochs=1), "at once")
    original = GuardedSteps.begin_epoch
    monkeypatch.setattr(
        GuardedSteps, "begin_epoch", lambda self: (original(self), setattr(self, "_every", LOOK_EVERY))[0]
    )
    saboteur = sabotage(not_finite_at(2))
    late = train(make_trial(epochs=1), "late")
    assert saboteur.calls == 4 + 4  # seen after the epoch's last step only
    assert late.weights_sha256 == at_once.weights_sha256


def out_of_memory_above(most: int) -> Callable[[int, int], float]:
    def act(images: int, call: int) -> float:
        if images > most:
            raise torch.OutOfMemoryError("fake")
        return 1.0

    return act


def test_too_little_memory_halves_the_images_at_once_and_keeps_the_steps(
    tmp_path: Path, make_trial: MakeTrial, train: Train, sabotage: Callable[..., Saboteur]
) -> None:
    saboteur = sabotage(out_of_memory_above(5))
    train(make_trial(epochs=1), "small")
    assert saboteur.sizes == [16, 8] + 16 * [4]
    assert len(rates_in(tmp_path / "small")) == 1


def test_after_too_little_memory_a_trial_resumes_bit_for_bit_without_trying_again(
    make_trial: MakeTrial, train: Callable[..., TrialResult], sabotage: Callable[..., Saboteur]
) -> None:
    sabotage(out_of_memory_above(8))
    whole = train(make_trial(epochs=2), "whole")

    def cut_off(progress: Progress) -> None:
        if progress.finished:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train(make_trial(epochs=2), "cut", report=cut_off)
    saboteur = sabotage(out_of_memory_above(8))
    assert train(make_trial(epochs=2), "cut").weights_sha256 == whole.weights_sha256
    assert saboteur.sizes == 8 * [8]


def test_less_memory_than_for_two_images_ends_the_trial(
    make_trial: MakeTrial, train: Train, sabotage: Callable[..., Saboteur]
) -> None:
    saboteur = sabotage(out_of_memory_above(1))
    with pytest.raises(TrialError, match="only 2 images") as error:
        train(make_trial(), "none")
    assert error.value.kind == "memory"
    assert saboteur.sizes == [16, 8, 4, 2]


def test_measuring_gradients_also_makes_do_with_less_memory(
    make_trial: MakeTrial, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    build = truncation.build

    def limited(spec: object) -> nn.Module:
        model = build(spec)  # type: ignore[arg-type] # the trial's own
        model.register_forward_pre_hook(lambda model, given: check(len(given[0]), torch.is_grad_enabled()))
        return model

    def check(images: int, learning: bool) -> None:
        if learning:
            sizes.append(images)
            if images > 8:
                raise torch.OutOfMemoryError("fake")

    monkeypatch.setattr(truncation, "build", limited)
    result = train(replace(make_trial(epochs=1), strategy="auto-rgn"), "rgn")
    assert result.epochs_run == 1
    assert sizes[0] == 16
    assert set(sizes[1:]) == {8}


@pytest.mark.parametrize(
    ("images", "micro_batch", "sizes"),
    [(16, 16, [16]), (16, 8, [8, 8]), (17, 8, [6, 6, 5]), (5, 2, [3, 2]), (3, 2, [3]), (2, 2, [2]), (9, 4, [3, 3, 3])],
)
def test_no_part_is_one_image_and_none_is_larger_than_it_must_be(
    images: int, micro_batch: int, sizes: list[int]
) -> None:
    parts = torch.arange(images).tensor_split(count_parts(images, micro_batch))
    assert [len(part) for part in parts] == sizes


def guarded(
    model: nn.Module, loss: nn.Module, class_weights: Tensor | None = None, *, fp16: bool = False
) -> GuardedSteps:
    return GuardedSteps(
        model,
        lambda images, labels: loss(model(images).float(), labels),
        class_weights=class_weights,
        precision="fp16" if fp16 else "fp32",
        device=CPU,
        clip_norm=1e9,
    )


def learning_of(model: nn.Module, lr: float = 1e-3, *, penalised: bool = False) -> Learning:
    names = tuple(name for name, _ in model.named_parameters())
    group = Group(names=names, lr=lr, weight_decay=0.0)
    penalty = (lambda model: sum(p.square().sum() for p in model.parameters())) if penalised else None
    return Learning(model, Phase(name="all", epochs=1, groups=(group,), penalty=penalty))


@pytest.mark.parametrize("kind", ["balanced", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("penalised", [False, True])
def test_gradients_in_parts_are_those_of_the_whole_batch(kind: str, smoothing: float, penalised: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(4 * 36, 3)).double()
    images, labels = torch.randn(13, 3, 8, 8).double(), torch.tensor([0] * 7 + [1] * 4 + [2] * 2)
    weights = losses.class_weights(np.array([0] * 70 + [1] * 20 + [2] * 10), classes=3, kind=kind)  # type: ignore[arg-type] # a Literal
    loss = losses.cross_entropy(weights, label_smoothing=smoothing)

    expected = loss(model(images).float(), labels)
    whole = expected + (sum(p.square().sum() for p in model.parameters()) if penalised else 0)
    gradients = torch.autograd.grad(whole, list(model.parameters()))
    taken = guarded(model, loss, weights).take(learning_of(model, penalised=penalised), images, labels, micro_batch=4)
    torch.testing.assert_close(taken, expected.detach(), check_dtype=False)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-7)


def test_a_step_with_a_gradient_that_is_not_finite_is_not_taken_on_a_cpu() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    model[1].weight.register_hook(lambda gradient: gradient * float("inf"))
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(NotFiniteError, match=r"gradient's norm became (nan|inf) in step 1 at a rate of 0\.5"):
        guarded(model, nn.CrossEntropyLoss()).take(
            learning_of(model, 0.5), torch.ones(4, 3, 2, 2), torch.tensor([0, 1, 0, 1]), micro_batch=4
        )
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_with_fp16_the_scalers_own_skipped_steps_are_no_setback_but_a_vanished_scale_is() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    model[1].weight.register_hook(lambda gradient: gradient * float("inf"))
    before = [parameter.clone() for parameter in model.parameters()]
    guard, learning = guarded(model, nn.CrossEntropyLoss(), fp16=True), learning_of(model)
    batch = torch.ones(4, 3, 2, 2), torch.tensor([0, 1, 0, 1])
    for _ in range(16):
        guard.take(learning, *batch, micro_batch=4)
    assert guard.scaler.get_scale() == 1.0
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    guard.take(learning, *batch, micro_batch=4)  # looked at before the scaler lowers its scale to 1/2
    with pytest.raises(NotFiniteError, match="overflow fp16 at any scale"):
        guard.take(learning, *batch, micro_batch=4)


def test_with_fp16_a_loss_that_is_not_finite_is_a_setback() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    guard = guarded(model, nn.CrossEntropyLoss(), fp16=True)
    with pytest.raises(NotFiniteError, match="training loss became nan"):
        guard.take(learning_of(model), torch.full((4, 3, 2, 2), 1e30), torch.tensor([0, 1, 0, 1]), micro_batch=4)


def test_a_copy_shares_nothing_and_keeps_the_versions_of_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    content = {"model": model.state_dict(), "list": [torch.ones(2)], "number": 3}
    copied = recovery.copy_of(content)
    for tensor in (*content["model"].values(), content["list"][0]):
        tensor.add_(1)
    assert float(copied["list"][0].sum()) == 2
    assert not torch.equal(copied["model"]["0.weight"], content["model"]["0.weight"])
    assert copied["model"]._metadata == content["model"]._metadata
    assert copied["number"] == 3


def test_rates_are_halved_once_per_reduction() -> None:
    model = nn.Linear(2, 2)
    optimiser = torch.optim.SGD([{"params": [model.weight], "lr": 0.8}, {"params": [model.bias], "lr": 0.4}])
    Setbacks(reductions=2).lower_rates(optimiser)
    assert [group["lr"] for group in optimiser.param_groups] == [0.2, 0.1]


def test_an_epoch_that_begins_anew_after_an_unfinished_fp16_step_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scaler that has unscaled gradients refuses to do so again before a step: the new epoch needs a new one."""
    model = torch.nn.Linear(4, 2)
    group = Group(names=("weight", "bias"), lr=0.1, weight_decay=0.0)
    learning = Learning(model, Phase(name="all", epochs=1, groups=(group,)))
    images, labels = torch.randn(4, 4), torch.tensor([0, 1, 0, 1])
    poisoned = iter([float("nan"), 1.0])
    steps = GuardedSteps(
        model,
        lambda inputs, targets: torch.nn.functional.cross_entropy(model(inputs).float(), targets) * next(poisoned),
        class_weights=None,
        precision="fp16",
        device=torch.device("cpu"),
        clip_norm=1.0,
    )
    with pytest.raises(NotFiniteError):
        steps.take(learning, images, labels, micro_batch=4)
    scale = steps.scaler.get_scale()
    steps.begin_epoch()
    assert steps.scaler.get_scale() == scale
    assert torch.isfinite(steps.take(learning, images, labels, micro_batch=4))
