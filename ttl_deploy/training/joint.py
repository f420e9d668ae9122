"""Joint training: one trunk, a head at every cut, all learning at once; the deepest head teaches the others.

So every truncated model exists after about the price of one training of the full network.

What is wanted of it is a curve of the shape that exits trained alone have, for it only has to find where that becomes
flat. `benchmarks/joint_training.py` compares ways to it by their rank correlation with cuts trained alone; its table
is in docs/search-variants.md. Random heads underrate shallow exits, whether their losses are weighted up or not; heads
that begin as the probe's classifiers mend that, and then it is the deep exits, with far to go, whose losses need more
weight: else the curve is flat too early. Learning from two drawn exits per step beside the shallowest and the deepest
(sandwich sampling) ranked them as well, with exits in the middle a little lower.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ttl_deploy.errors import WeightsError
from ttl_deploy.files import publish_bytes
from ttl_deploy.models.truncation import MultiExitModel
from ttl_deploy.training.batches import Plan, Wait
from ttl_deploy.training.material import Images, Setup
from ttl_deploy.training.teaching import soft_divergence


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearHead:
    """A linear classifier of pooled features: `weight` `(C, D)`, `bias` `(C,)`, fp32."""

    weight: Tensor
    bias: Tensor


def save_heads(heads: Mapping[str, LinearHead], path: Path) -> None:
    """Publish linear classifiers by cut as one safetensors file."""
    tensors = {
        f"{cut}.{part}": getattr(head, part).contiguous() for cut, head in heads.items() for part in ("weight", "bias")
    }
    publish_bytes(path, safetensors.torch.save(tensors))


def begin_with_heads(network: MultiExitModel, path: Path) -> None:
    """Set the heads of a network's exits to linear classifiers from a file of `save_heads`.

    A head that is no single linear layer over the pooled features, as those of VGG and SqueezeNet, stays as it is.
    Raises `WeightsError` where the file is missing or lacks a cut.
    """
    try:
        tensors = safetensors.torch.load_file(path)
        found = {cut: (tensors[f"{cut}.weight"], tensors[f"{cut}.bias"]) for cut in network.exits}
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path} does not hold the probe's heads of all exits ({error}): probe again") from error
    for head, (weight, bias) in zip(network.heads, found.values(), strict=True):
        layers = [layer for layer in head.modules() if isinstance(layer, nn.Linear)]
        if len(layers) == 1 and layers[0].weight.shape == weight.shape:
            layers[0].load_state_dict({"weight": weight, "bias": bias})


EXIT_WEIGHTS = (0.3, 1.7)
"""Of the losses of the shallowest and the deepest exit; those between lie on a line."""
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
    rise from the shallowest exit to the deepest, by `EXIT_WEIGHTS`. The divergence is
    `KL(softmax(deepest) ‖ softmax(exit))`, through which the deepest exit itself does not learn (Phuong and
    Lampert 2019, "Distillation-based training for multi-exit architectures", with temperature 1).
    """
    exits = logits.unbind(dim=1)
    weights = torch.linspace(*EXIT_WEIGHTS, len(exits), device=logits.device) if len(exits) > 1 else logits.new_ones(1)
    loss = (weights * torch.stack([loss_of(one, labels) for one in exits])).mean()
    if not teach or len(exits) < 2:
        return loss
    deepest = exits[-1].detach()
    apart = labels.ndim == 2
    divergences = [soft_divergence(one, deepest, temperature=1.0, multilabel=apart).mean() for one in exits[:-1]]
    return loss + teach * torch.stack(divergences).mean()
