"""Distillation: a trained model, which does not learn, teaches another by its outputs and its features."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ttl_deploy.errors import UsageError
from ttl_deploy.models import truncation, weights
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.truncation import Model, TruncatedModel
from ttl_deploy.records.models import InputConvention, ModelSpec
from ttl_deploy.training import batches, devices, losses
from ttl_deploy.training.material import Images, Setup
from ttl_deploy.training.strategies import Teaching


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A trained model to learn from: its structure, what `weights.save_weights` wrote, how it wants its images."""

    model: ModelSpec
    weights: Path
    input: InputConvention


class Lessons(Images):
    """Augmented images that a teacher looks at too.

    What is minimised, with task loss, teacher's logits t, student's logits s:
    `(1 - weight) · loss + weight · T² · KL(softmax(t/T) ‖ softmax(s/T)) + features · distance`.

    Every term is the mean over images, each image with the weight that it has in the task loss; so the parts of a
    mini-batch add up to it. With several labels per image, sigmoid stands for softmax. The teacher runs in
    evaluation mode without gradients, at the precision of the training.
    """

    def __init__(self, setup: Setup, teaching: Teaching, teacher: Teacher) -> None:
        """Load the teacher; raises `UsageError` for one that cannot teach this trial's model."""
        super().__init__(setup, setup.trial.train.augmentation)
        student = setup.trial.model
        check_teacher(teacher, student, features=teaching.features > 0)
        self._teaching = teaching
        cuts = find_common_stages(student, teacher.model) if teaching.features else ()
        tapped = Tapped(setup.model, student, cuts)
        self._student = torch.compile(tapped) if setup.trial.train.compile else tapped
        self._teacher = Tapped(_load(teacher, setup.device), teacher.model, cuts)
        self._inputs = (setup.trial.input, teacher.input)
        self._class_weights = None if setup.class_weights is None else setup.class_weights.to(setup.device)

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of images in 0..255."""
        ours, theirs = self._inputs
        images = batches.normalise(inputs, ours)
        logits, features = self._student(images)
        with torch.no_grad():
            wanted, shown = self._teacher(images if ours == theirs else batches.normalise(inputs, theirs))
        loss, teaching = self._setup.task_loss(logits, labels), self._teaching
        if teaching.weight:
            divergence = soft_divergence(
                logits.float(), wanted.float(), temperature=teaching.temperature, multilabel=labels.ndim == 2
            )
            loss = (1 - teaching.weight) * loss + teaching.weight * self._mean(divergence, labels)
        if features:
            distance = torch.stack([relative_distance(s, t) for s, t in zip(features, shown, strict=True)])
            loss = loss + teaching.features * self._mean(distance.mean(0), labels)
        return loss

    def _mean(self, values: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over images `(N,)`, each with its weight in the task loss."""
        weight = losses.image_weights(labels, self._class_weights)
        return (values * weight).sum() / weight.sum()


class Tapped(nn.Module):
    """A model that also returns its features at some cuts before its own; it shares the model's layers."""

    def __init__(self, model: Model, spec: ModelSpec, cuts: tuple[str, ...]) -> None:
        super().__init__()
        assert isinstance(model, TruncatedModel)
        self.trunk = truncation.tap(model.trunk, spec, (*cuts, spec.cut))
        self.head = model.head

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Turn normalised images `(N, C, H, W)` into logits `(N, classes)` and a tuple of features, one per cut."""
        *features, last = self.trunk(images)
        return self.head(last), tuple(features)


def soft_divergence(student: Tensor, teacher: Tensor, *, temperature: float, multilabel: bool = False) -> Tensor:
    """Return `T² · KL(softmax(teacher / T) ‖ softmax(student / T))` for each image `(N,)`, from logits `(N, C)`.

    With several labels per image it is the mean over classes of the divergence between present and absent. The
    factor T² keeps the gradients' size whatever the temperature (Hinton et al. 2015, section 2).
    """
    if multilabel:
        student, teacher = (torch.stack((logits, torch.zeros_like(logits)), dim=1) for logits in (student, teacher))
    wanted, given = (functional.log_softmax(logits / temperature, dim=1) for logits in (teacher, student))
    divergence = functional.kl_div(given, wanted, reduction="none", log_target=True).sum(dim=1)
    return temperature**2 * (divergence.mean(dim=1) if multilabel else divergence)


def relative_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return `‖s - t‖² / ‖t‖²` for each image `(N,)`, from features `(N, …)` of one shape, in fp32."""
    given, wanted = student.float().flatten(1), teacher.float().flatten(1)
    size = wanted.square().sum(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    return (given - wanted).square().sum(dim=1) / size


def find_common_stages(student: ModelSpec, teacher: ModelSpec) -> tuple[str, ...]:
    """Return the cuts that end a stage before the student's cut, shallow to deep, as far as the teacher has them."""
    cuts = list_cuts(student.backbone, image_size=student.image_size, classes=student.classes, pool=student.pool)
    depths = {cut.name: cut.depth for cut in cuts}
    least = min(depths[student.cut], depths[teacher.cut])
    return tuple(cut.name for cut in cuts if cut.stage and cut.depth < least)


def check_teacher(teacher: Teacher, student: ModelSpec, *, features: bool) -> None:
    """Raise `UsageError` unless the teacher knows the same images and classes; for `features`, the same backbone."""
    compared = {"classes": "classes", "image_size": "image size"} | ({"backbone": "backbone"} if features else {})
    for name, what in compared.items():
        theirs, ours = getattr(teacher.model, name), getattr(student, name)
        if theirs != ours:
            raise UsageError(
                f"the teacher {teacher.weights} has {what} {theirs}, the model that learns from it {what} {ours}: "
                "both must have the same"
            )


def _load(teacher: Teacher, device: torch.device) -> TruncatedModel:
    """Build the teacher, in evaluation mode and without gradients."""
    model = truncation.build(teacher.model)
    weights.load_weights(model, teacher.weights)
    return devices.place(model.eval().requires_grad_(False), device)
