"""Joint training: one trunk, a head at every cut, all learning at once; the deepest head teaches the others.

So every truncated model exists after about the price of one training of the full network. What lost here, on
MobileNetV2 with ten exits and three classes of chest X-rays (1,200 images of 96 px, six epochs): see docs/search.md.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ttl_deploy.training.material import Images, Setup
from ttl_deploy.training.teaching import soft_divergence

LossOf = Callable[[Tensor, Tensor], Tensor]


class Exits(Images):
    """Augmented images through a network with several exits."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, setup.trial.train.augmentation)

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of images in 0..255 over all exits."""
        logits = self.logits(inputs).float()
        return joint_loss(logits, labels, self._setup.task_loss, teach=self._setup.trial.train.joint_teaching)


def joint_loss(logits: Tensor, labels: Tensor, loss_of: LossOf, *, teach: float) -> Tensor:
    """Return the mean of the exits' own losses, and `teach` times the mean divergence from the deepest exit.

    `logits` `(N, exits, C)`, shallow to deep; `loss_of` takes those of one exit and labels `(N,)`. The
    divergence is `KL(softmax(deepest) ‖ softmax(exit))`, through which the deepest exit itself does not learn
    (Phuong & Lampert 2019, "Distillation-based training for multi-exit architectures", with temperature 1).
    """
    exits = logits.unbind(dim=1)
    loss = torch.stack([loss_of(one, labels) for one in exits]).mean()
    if not teach or len(exits) < 2:
        return loss
    deepest = exits[-1].detach()
    divergences = [soft_divergence(one, deepest, temperature=1.0).mean() for one in exits[:-1]]
    return loss + teach * torch.stack(divergences).mean()
