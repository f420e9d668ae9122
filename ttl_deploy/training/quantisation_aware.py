"""Finetuning for 8 bits: the model learns under the rounding that its file will have, from itself before.

Weights and inputs of layers are rounded in the forward pass and passed straight through in the backward pass
(Jacob et al. 2018, section 3; Krishnamoorthi 2018, section 3.2). They are rounded where the static recipe for all
runtimes puts its pairs of QuantizeLinear and DequantizeLinear: the inputs of convolutions and linear layers by one
symmetric scale, their weights by one for each output channel. Who else reads such an input, as an addition around a
block does, reads the rounded values, as in the file.

BatchNorm keeps its running statistics and stays in evaluation mode, and so does dropout. With fixed statistics
BatchNorm multiplies every output channel by a constant, and so does the exporter when it folds it into the weights
before it. A scale for each output channel grows by the same constant: weights rounded before the folding are those
rounded after it. Nothing need be folded here, and the model keeps the names of its weights. With the statistics of
mini-batches neither would hold, and the teacher, which has the fixed ones, could not be reached.
"""

import copy
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from ttl_deploy.models.truncation import TruncatedModel
from ttl_deploy.records.models import InputConvention
from ttl_deploy.records.trials import Trial
from ttl_deploy.training import batches, devices, evaluation
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.learning import Learning
from ttl_deploy.training.material import Images, Setup
from ttl_deploy.training.recovery import copy_of
from ttl_deploy.training.steps import GuardedSteps
from ttl_deploy.training.strategies import Phase, learning_groups, names_of
from ttl_deploy.training.teaching import soft_divergence

LEAST, MOST = -128, 127
"""The integers of 8 signed bits. The largest value seen becomes 127, so that weights never become -128."""
LEARNING_RATE = 3e-5
TEMPERATURE = 2.0
IMAGES_AT_ONCE = 8
"""Parts of a mini-batch add up to it, since nothing here depends on what else is in it; rounding takes memory."""
_SMALLEST_SCALE = torch.finfo(torch.float32).tiny
_LAYERS = (nn.Conv2d, nn.Linear)

Report = Callable[[int, int, int], None]
"""Called with the epoch, from 1 on, the mini-batches done and those in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How the rounded model did on validation: before, and after each epoch; `best_epoch` is the one that was kept.

    AUROCs are None where they are not defined.
    """

    before: float | None
    after: tuple[float | None, ...]
    best_epoch: int


def finetune(
    model: TruncatedModel,
    trial: Trial,
    *,
    train: LabelledPixels,
    val: LabelledPixels,
    calibration: NDArray[np.uint8],
    epochs: int,
    device: torch.device,
    lr: float = LEARNING_RATE,
    report: Report = lambda epoch, done, total: None,
) -> Course:
    """Finetune a trained model in place for 8 bits; it comes back on the CPU, with the weights of its best epoch.

    Ranges of inputs are the largest values on the `calibration` images `(n, S, S, 3)`, before anything is learnt. All
    parameters learn, from the logits of the model as it was and from nothing else, at `lr` with the trial's warm-up,
    decay, augmentation, batch size and seed. What labels teach would move decisions away from those that the file
    is judged by. The best epoch has the highest AUROC on `val` of the rounded model, the last of equal ones.
    Raises `NotFiniteError` where it diverges, and `torch.OutOfMemoryError`.
    """
    with devices.repeatable(trial.train.threads):
        teacher = devices.place(copy.deepcopy(model).eval().requires_grad_(False), device)
        devices.place(model.eval(), device)
        scales = observe_scales(model, calibration, convention=trial.input, device=device)
        with rounded(model, scales):
            setup = _set_up(model, trial, train, val, device)
            found = _Finetuning(setup, teacher, epochs=epochs, lr=lr).run(report)
        model.cpu()
    return found


def observe_scales(
    model: nn.Module, images: NDArray[np.uint8], *, convention: InputConvention, device: torch.device
) -> dict[str, float]:
    """Return by which scale the input of each layer with weights is rounded: its largest value on the images / 127.

    `images` `(n, S, S, 3)` are shown as they are. Layers that no image reaches are missing. Layers are `nn.Conv2d` and
    `nn.Linear` themselves: others compute their weights in ways of their own.
    """
    largest: dict[str, float] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            largest[name] = max(largest.get(name, 0.0), float(given[0].abs().max()))

        return note

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in _layers_of(model)]
    count = len(images)
    shown = LabelledPixels(array=images, rows=np.arange(count), labels=np.zeros(count, np.int64))
    try:
        evaluation.run_over(model, shown, convention=convention, device=device)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: max(value / MOST, _SMALLEST_SCALE) for name, value in largest.items()}


@contextmanager
def rounded(model: nn.Module, scales: dict[str, float]) -> Iterator[None]:
    """Let the layers that have a scale round their inputs and weights; afterwards they compute as before."""
    layers = {name: layer for name, layer in _layers_of(model) if name in scales}
    graphs = {name: module for name, module in model.named_modules() if isinstance(module, fx.GraphModule)}
    before = {name: module.graph for name, module in graphs.items()}
    done = {layer for name, module in graphs.items() for layer in _round_in_graph(name, module, scales)}
    hooks = [layers[name].register_forward_pre_hook(_rounding(scales[name])) for name in layers.keys() - done]
    for layer in layers.values():
        parametrize.register_parametrization(layer, "weight", _RoundedWeight())
    try:
        yield
    finally:
        for layer in layers.values():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
        for hook in hooks:
            hook.remove()
        for name, graph in before.items():
            graphs[name].graph = graph


def _round_in_graph(prefix: str, module: fx.GraphModule, scales: dict[str, float]) -> list[str]:
    """Round the inputs of the layers that a graph calls, for all who read them; returns the layers' names."""
    graph, rounding, names = copy.deepcopy(module.graph), set(), []
    for node in list(graph.nodes):
        name = f"{prefix}.{node.target}".removeprefix(".")
        if node.op != "call_module" or name not in scales or not node.args:
            continue
        names.append(name)
        source = node.args[0]
        if source in rounding:
            continue
        with graph.inserting_after(source):
            shared = graph.call_function(_round, (source, scales[name]))
        source.replace_all_uses_with(shared, delete_user_cb=partial(operator.is_not, shared))
        rounding.add(shared)
    module.graph = graph
    return names


class _RoundedWeight(nn.Module):
    """Rounds weights `(out, …)` to 8 bits, by one scale for each output channel, taken from them each time."""

    def forward(self, weight: Tensor) -> Tensor:
        """Return the values that the integers stand for."""
        largest = weight.detach().abs().flatten(1).amax(dim=1)
        scale = (largest / MOST).clamp(min=_SMALLEST_SCALE)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, LEAST, MOST)


def _round(values: Tensor, scale: float) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(values, scale, 0, LEAST, MOST)


def _rounding(scale: float) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def round_first(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_round(given[0], scale), *given[1:])

    return round_first


def _layers_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if type(module) in _LAYERS]


def _set_up(
    model: TruncatedModel, trial: Trial, train: LabelledPixels, val: LabelledPixels, device: torch.device
) -> Setup:
    return Setup(
        trial=trial,
        train=train,
        val=val,
        model=model,
        compiled=model,
        scored=model,
        loss=nn.CrossEntropyLoss(),
        class_weights=None,
        device=device,
    )


class _Finetuning:
    """A rounded model while it learns from its teacher."""

    def __init__(self, setup: Setup, teacher: nn.Module, *, epochs: int, lr: float) -> None:
        self.setup, self.teacher, self.epochs = setup, teacher, epochs
        settings = setup.trial.train
        self.images = Images(setup, settings.augmentation)
        groups = learning_groups(setup.model, names_of(setup.model), lr=lr, weight_decay=0.0)
        self.learning = Learning(setup.model, Phase(name="8 bits", epochs=epochs, groups=groups))
        self.steps = GuardedSteps(
            setup.model,
            self._loss,
            class_weights=None,
            precision="fp32",
            device=setup.device,
            clip_norm=settings.clip_norm,
        )

    def run(self, report: Report) -> Course:
        """Learn for all epochs; the model is left with the weights of the best."""
        before = self._score()
        best, best_epoch, kept = -1.0, 0, {}
        after = []
        for epoch in range(1, self.epochs + 1):
            self._learn(epoch, report)
            score = self._score()
            after.append(score)
            if best_epoch == 0 or (score is not None and score >= best):
                best, best_epoch = -1.0 if score is None else score, epoch
                kept = copy_of(self.setup.model.state_dict())
        self.setup.model.load_state_dict(kept)
        return Course(before=before, after=tuple(after), best_epoch=best_epoch)

    def _learn(self, epoch: int, report: Report) -> None:
        settings, seed = self.setup.trial.train, self.setup.trial.seed
        plan = batches.plan_epoch(
            self.setup.train.labels, sampling=settings.sampling, batch_size=settings.batch_size, seed=seed, epoch=epoch
        )
        devices.seed_epoch(seed, epoch)
        self.steps.begin_epoch()
        for number, (images, labels) in enumerate(self.images.batches(plan, epoch=epoch)):
            share = (epoch - 1 + number / len(plan)) / self.epochs
            self.learning.set_rate(share, warmup=settings.warmup)
            self.steps.take(self.learning, images, labels, micro_batch=IMAGES_AT_ONCE)
            report(epoch, number + 1, len(plan))
        self.steps.look()

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return how far the logits of images in 0..255 are from the teacher's, the mean over images."""
        inputs = batches.normalise(images, self.setup.trial.input)
        with torch.no_grad():
            wanted = self.teacher(inputs)
        multilabel = self.setup.trial.model.multilabel
        return soft_divergence(self.setup.model(inputs), wanted, temperature=TEMPERATURE, multilabel=multilabel).mean()

    def _score(self) -> float | None:
        """Return the AUROC of the rounded model on validation."""
        predicted = evaluation.probabilities(self.images.predict(), multilabel=self.setup.trial.model.multilabel)
        return evaluation.mean_auroc(predicted, self.setup.val.labels)
