"""One optimiser step: in mini-batches that may be split, and watched for values that are not finite."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ttl_deploy.records.trials import Precision
from ttl_deploy.training import devices, losses
from ttl_deploy.training.learning import Learning

LEAST_IMAGES = 2
"""The smallest part of a mini-batch: BatchNorm cannot learn from one image."""
LOOK_EVERY = 32
"""After how many steps a GPU's losses and gradient norms are looked at: each look waits for the device."""


class NotFiniteError(Exception):
    """A loss or a gradient is infinite or not a number; the text says what, in which step, at which rate."""


class GuardedSteps:
    """Takes the steps of one model.

    On a CPU every loss and gradient norm is looked at before its step, which is then not taken. On other
    devices they stay there and are looked at together every `LOOK_EVERY` steps and after the epoch's
    last one; the steps taken meanwhile go when the caller returns to the epoch's beginning. Both ways
    end in the same weights.

    With fp16 a gradient that overflows is the scaler's business, which skips that step and lowers its
    scale; only a loss that is not finite counts then, or a scale below 1, where lowering has not helped.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_of: Callable[[Tensor, Tensor], Tensor],
        *,
        class_weights: Tensor | None,
        precision: Precision,
        device: torch.device,
        clip_norm: float,
    ) -> None:
        self.model, self._loss_of = model, loss_of
        self._weights = None if class_weights is None else class_weights.to(device)
        self._precision, self._device, self._clip_norm = precision, device, clip_norm
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self._every = 1 if device.type == "cpu" else LOOK_EVERY
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Forget what was seen before, and a step that was not brought to its end."""
        # A scaler refuses to go on after gradients that it has unscaled, but that no step was taken with.
        scale = self.scaler.state_dict()
        self.scaler = torch.amp.GradScaler(self._device.type, enabled=self.scaler.is_enabled())
        self.scaler.load_state_dict(scale)
        self._taken = 0
        self._seen: list[Tensor] = []
        self._rates: list[float] = []

    def take(self, learning: Learning, images: Tensor, labels: Tensor, *, micro_batch: int) -> Tensor:
        """Take one step on a mini-batch, `micro_batch` images at a time; returns its loss without the penalty.

        Raises `NotFiniteError`, for this step or an earlier one of the epoch.
        """
        optimiser = learning.optimiser
        optimiser.zero_grad(set_to_none=True)
        loss = self._backward(learning, images, labels, micro_batch)
        self.scaler.unscale_(optimiser)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        self._note(loss, norm, max(group["lr"] for group in optimiser.param_groups))
        self.scaler.step(optimiser)
        self.scaler.update()
        return loss

    def _backward(self, learning: Learning, images: Tensor, labels: Tensor, micro_batch: int) -> Tensor:
        """Leave the gradient of the whole mini-batch's loss and penalty; returns the loss."""
        total = torch.zeros((), device=self._device)
        for number, (part_images, part_labels, share) in enumerate(self._parts(images, labels, micro_batch)):
            with devices.autocast(self._precision, self._device):
                loss = self._loss_of(part_images, part_labels) * share
            # The penalty does not depend on the images: it is added once.
            minimised = loss if number else learning.add_penalty(loss)
            self.scaler.scale(minimised).backward()  # type: ignore[no-untyped-call] # torch's own
            total += loss.detach()
        return total

    def _parts(self, images: Tensor, labels: Tensor, micro_batch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield parts of `micro_batch` images or fewer, with their shares of the mini-batch's mean loss."""
        weights = losses.image_weights(labels, self._weights)
        total = weights.sum()
        count = count_parts(len(images), micro_batch)
        for part in zip(*(whole.tensor_split(count) for whole in (images, labels, weights)), strict=True):
            yield part[0], part[1], part[2].sum() / total

    def _note(self, loss: Tensor, norm: Tensor, rate: float) -> None:
        checked = loss if self.scaler.is_enabled() else norm
        self._seen.append(torch.stack((loss.detach(), checked.detach())))
        self._rates.append(rate)
        if len(self._seen) >= self._every:
            self.look()

    def look(self) -> None:
        """Look at all that was not looked at yet; raises `NotFiniteError` for the first that is not finite."""
        if not self._seen:
            return
        seen, rates = torch.stack(self._seen).tolist(), self._rates
        first, self._taken = self._taken + 1, self._taken + len(seen)
        self._seen, self._rates = [], []
        for number, ((loss, norm), rate) in enumerate(zip(seen, rates, strict=True), start=first):
            for value, name in ((loss, "training loss"), (norm, "gradient's norm")):
                if not math.isfinite(value):
                    raise NotFiniteError(f"the {name} became {value} in step {number} at a rate of {rate:.3g}")
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1:
            raise NotFiniteError(
                f"gradients overflow fp16 at any scale by step {self._taken} at a rate of {rates[-1]:.3g}"
            )


def count_parts(images: int, micro_batch: int) -> int:
    """Return into how many parts a mini-batch is split: none above `micro_batch`, none below 2 images.

    Where both cannot be had (3 images in parts of 2), no part is below 2.
    """
    return max(1, min(math.ceil(images / micro_batch), images // LEAST_IMAGES))
