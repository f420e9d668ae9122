"""Joint training: one trunk, a head at every cut, all learning at once; the deepest head teaches the others.

So every truncated model exists after about the price of one training of the full network.

What was tried before this was chosen, on MobileNetV2 with ten exits (chest X-rays, three classes, 1,200 images of
96 px, six epochs, one seed, by a script that is not kept), as validation AUROC at features.6, features.9 and full,
where features.6 trained alone had .895 and features.9 .915: the labels alone .829, .891, .921; teaching of weight 1
.863, .908, .916; of weight 3 .873, .902, .908; from the mean of the deeper half .872, .903, .912; weight 3 growing
from 0 .862, .907, .915; and with the shallow exits weighted up as well .877, .905, .910. What is wanted is a curve of
the shape that exits trained alone have, so the last was taken; differences of .005 are noise there.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ttl_deploy.training.batches import Plan, Wait
from ttl_deploy.training.material import Images, Setup
from ttl_deploy.training.teaching import soft_divergence

LossOf = Callable[[Tensor, Tensor], Tensor]


class Exits(Images):
    """Augmented images through a network with several exits."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, setup.trial.train.augmentation)
        self._done = 0.0  # share of the training

    def batches(self, plan: Plan, *, epoch: int, wait: Wait | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images `(N, 3, S, S)` in 0..255, float32, and their labels, and keep in mind how far that is."""
        epochs = self._setup.trial.train.epochs
        for number, batch in enumerate(super().batches(plan, epoch=epoch, wait=wait)):
            self._done = (epoch - 1 + number / len(plan)) / epochs
            yield batch

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of images in 0..255 over all exits; the teaching grows from none to all of its weight."""
        teach = self._done * self._setup.trial.train.joint_teaching
        return joint_loss(self.logits(inputs).float(), labels, self._setup.task_loss, teach=teach)


def joint_loss(logits: Tensor, labels: Tensor, loss_of: LossOf, *, teach: float) -> Tensor:
    """Return the weighted mean of the exits' own losses, and `teach` times the mean divergence from the deepest.

    `logits` `(N, exits, C)`, shallow to deep; `loss_of` takes those of one exit and labels `(N,)`. Weights
    fall from 1.5 at the shallowest exit to 0.5 at the deepest, which reaches every layer anyway. The
    divergence is `KL(softmax(deepest) ‖ softmax(exit))`, through which the deepest exit itself does not learn
    (Phuong & Lampert 2019, "Distillation-based training for multi-exit architectures", with temperature 1).
    """
    exits = logits.unbind(dim=1)
    weights = torch.linspace(1.5, 0.5, len(exits), device=logits.device) if len(exits) > 1 else logits.new_ones(1)
    loss = (weights * torch.stack([loss_of(one, labels) for one in exits])).mean()
    if not teach or len(exits) < 2:
        return loss
    deepest = exits[-1].detach()
    divergences = [soft_divergence(one, deepest, temperature=1.0).mean() for one in exits[:-1]]
    return loss + teach * torch.stack(divergences).mean()
