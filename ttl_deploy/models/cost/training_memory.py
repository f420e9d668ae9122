"""How much memory a training needs: what autograd keeps for the backward pass, measured without any memory.

Nothing is allocated: the model lies on torch's meta device, whose tensors have sizes and no values.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch

from ttl_deploy.models import truncation
from ttl_deploy.models.cost.sizes import count_bytes
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.trials import Precision

PROCESS_BYTES: Mapping[str, int] = {"cuda": 600_000_000, "cpu": 350_000_000}
"""What a process takes on a kind of device before it trains anything.

`cuda`: not measured by us. Others report 426 MiB for the context alone (PyTorch 2.10 with CUDA 13.0 on an RTX 6000
Ada, unslothai/unsloth-zoo#1053); cuBLAS' workspace (32 MiB) and kernels that are loaded on their first use come on top.
`cpu`: the resident set of a worker that trained squeezenet1_1 on four images, 356 MB, most of it libraries
(measured with PyTorch 2.13, CPU build, Linux).
"""
HALF_SHARE = 0.6
"""What 16-bit autocast saves for the backward pass, relative to fp32, per image.

Measured with saved_tensors_hooks under CPU autocast at 64 px: 0.50 to 0.51 for mobilenet_v2, efficientnet_b0,
densenet121 and convnext_tiny, 0.54 to 0.57 for resnet18, squeezenet1_1 and vit_b_16, 0.65 for swin_t.
"""
_STEP_COPIES = 6
"""Weights, gradients, two moments, and two temporaries of AdamW's step over all tensors at once, CUDA's default."""
_IMAGES = 1009
"""A batch to measure with: a prime that divides the size of no tensor but those that hold something of every image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingNeeds:
    """What a model's training in fp32 needs, in bytes.

    Attributes:
        weights: parameters and buffers, once.
        saved_per_image: what autograd keeps between the passes of a step and grows with the batch:
            inputs of convolutions, outputs of activations, masks of dropout.
        saved_always: what it keeps and does not grow: BatchNorm's means and variances of the batch.
            Parameters, which it refers to, are not counted again.
        largest_per_image: the largest single tensor of what grows.
    """

    weights: int
    saved_per_image: int
    saved_always: int
    largest_per_image: int


def estimate_training_bytes(
    spec: ModelSpec, *, batch_size: int, precision: Precision, validation_batch: int = 0, copies: int = 0
) -> int:
    """Estimate the peak memory of training all of a model with AdamW, in bytes, without what the process itself takes.

    `batch_size` images go through the model at once. The peak is the largest of three moments: the
    beginning of the backward pass (weights, gradients, two moments, all that was saved, and the gradients
    of two maps), the optimiser's step, and the validation of `validation_batch` images. `copies` of all
    weights are kept beside that. `auto` counts as fp32. Workspaces of convolutions are not counted, and
    attention counts as it runs without a fused kernel. A strategy that freezes layers needs less.
    Raises `RuntimeError` for a network that cannot run without values.
    """
    needs = measure_needs(spec)
    share, always = 1.0, needs.saved_always
    if precision in ("bf16", "fp16"):
        # Autocast keeps its 16-bit copies of the weights until the backward pass is over.
        share, always = HALF_SHARE, always + needs.weights // 2
    per_image = int(share * (needs.saved_per_image + 2 * needs.largest_per_image))
    backward = 4 * needs.weights + always + batch_size * per_image
    step = _STEP_COPIES * needs.weights
    validation = 4 * needs.weights + validation_batch * truncation.find_place(spec).peak_bytes
    return copies * needs.weights + max(backward, step, validation)


def estimate_inference_bytes(spec: ModelSpec, *, batch_size: int) -> int:
    """Estimate the peak memory of predicting `batch_size` images at once in fp32, in bytes, likewise."""
    return measure_needs(spec).weights + batch_size * truncation.find_place(spec).peak_bytes


@lru_cache(maxsize=512)
def measure_needs(spec: ModelSpec) -> TrainingNeeds:
    """Measure what a training needs, in one forward pass.

    A block of memory counts once, however many operators save it: an in-place ReLU adds nothing to what
    it overwrites. Raises `RuntimeError` for a network that cannot run without values.
    """
    model = truncation.build_on_meta(spec).train()
    blocks = _saved_blocks(model, spec.image_size)
    growing = [size // _IMAGES for size in blocks if size % _IMAGES == 0]
    return TrainingNeeds(
        weights=count_bytes(model),
        saved_per_image=sum(growing),
        saved_always=sum(size for size in blocks if size % _IMAGES),
        largest_per_image=max(growing, default=0),
    )


def _saved_blocks(model: truncation.Model, image_size: int) -> list[int]:
    """Return the sizes of all blocks of memory that the forward pass of a batch leaves for the backward pass."""
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    blocks: dict[int, torch.UntypedStorage] = {}  # kept, so that no two get the same number

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        blocks[storage._cdata] = storage
        return tensor

    batch = torch.empty(_IMAGES, model.channels, image_size, image_size, device="meta")
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(batch)
    return [storage.nbytes() for number, storage in blocks.items() if number not in own]
