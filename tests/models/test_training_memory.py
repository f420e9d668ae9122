"""The estimate of a training's memory against tensors that really are saved, and alive, on the CPU."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ttl_deploy.models import truncation
from ttl_deploy.models.cost.training_memory import (
    HALF_SHARE,
    estimate_inference_bytes,
    estimate_training_bytes,
    measure_needs,
)
from ttl_deploy.records.models import FULL, ModelSpec

SIDE, IMAGES = 64, 6
CASES = (
    ("resnet18", FULL),
    ("resnet18", "layer2.1"),
    ("mobilenet_v2", FULL),
    ("densenet121", FULL),
    ("densenet121", "features.denseblock2.denselayer6"),
    ("timm:vit_tiny_patch16_224", FULL),
)


def describe(backbone: str, cut: str = FULL, **options: Any) -> ModelSpec:
    return ModelSpec(backbone=backbone, cut=cut, classes=2, image_size=SIDE, dropout=0.1, **options)


def build(spec: ModelSpec) -> nn.Module:
    return truncation.build(spec).train()


def count_saved(model: nn.Module, images: int, context: AbstractContextManager[object] | None = None) -> int:
    """Count the bytes that a real forward pass saves, parameters and buffers left out."""
    held = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), context or nullcontext():
        model(torch.randn(images, 3, SIDE, SIDE))
    return sum(storage.nbytes() for place, storage in saved.items() if place not in held)


class Alive(TorchDispatchMode):
    """Watch, through weak references, the memory of all that operators return, gradients too."""

    def __init__(self) -> None:
        super().__init__()
        self._blocks: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._blocks[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._blocks = {number: block for number, block in self._blocks.items() if not block[0].expired()}
        self.peak_bytes = max(self.peak_bytes, sum(size for _, size in self._blocks.values()))
        return result


def watch_training(model: nn.Module, images: int) -> int:
    """Return the peak of all memory over two steps, with AdamW over all tensors at once as on a GPU."""
    optimiser = torch.optim.AdamW(model.parameters(), foreach=True)
    batch, labels = torch.randn(images, 3, SIDE, SIDE), torch.arange(images) % 2
    with Alive() as alive:
        for _ in range(2):
            optimiser.zero_grad(set_to_none=True)
            functional.cross_entropy(model(batch), labels).backward()
            optimiser.step()
    return alive.peak_bytes + sum(4 * parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("backbone", "cut"), CASES)
def test_what_is_saved_is_what_a_real_forward_pass_saves(backbone: str, cut: str) -> None:
    spec = describe(backbone, cut)
    needs, real = measure_needs(spec), count_saved(build(spec), IMAGES)
    counted = needs.saved_always + IMAGES * needs.saved_per_image
    assert 0.99 * real <= counted <= 1.05 * real


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["vit_b_16", "swin_t", "convnext_tiny", "efficientnet_b0", "googlenet", "vgg11"])
def test_other_kinds_of_networks_save_little_more_than_counted(backbone: str) -> None:
    """Attention counts as it runs without a fused kernel, which keeps less."""
    spec = describe(backbone)
    needs, real = measure_needs(spec), count_saved(build(spec), IMAGES)
    assert 0.99 * real <= needs.saved_always + IMAGES * needs.saved_per_image <= 1.2 * real


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "timm:vit_tiny_patch16_224"])
def test_sixteen_bits_save_about_the_stated_share_per_image(backbone: str) -> None:
    spec = describe(backbone)
    model = build(spec)
    few, more = (count_saved(model, n, torch.autocast("cpu", dtype=torch.bfloat16)) for n in (2, IMAGES))
    real = (more - few) / (IMAGES - 2)
    assert 0.9 * real <= HALF_SHARE * measure_needs(spec).saved_per_image <= 1.3 * real


@pytest.mark.parametrize(("backbone", "cut"), CASES)
@pytest.mark.parametrize("images", [pytest.param(4, marks=pytest.mark.slow), 16])
def test_the_estimate_is_the_peak_of_a_real_training(backbone: str, cut: str, images: int) -> None:
    spec = describe(backbone, cut)
    real = watch_training(build(spec), images)
    assert 0.9 * real <= estimate_training_bytes(spec, batch_size=images, precision="fp32") <= 1.4 * real


def test_a_network_with_several_exits_saves_what_all_of_them_need() -> None:
    spec = describe("mobilenet_v2", "features.9", exits=("features.3", "features.6", "features.9"))
    needs, real = measure_needs(spec), count_saved(truncation.build_exits(spec).train(), IMAGES)
    assert 0.99 * real <= needs.saved_always + IMAGES * needs.saved_per_image <= 1.05 * real
    assert needs.weights > measure_needs(describe("mobilenet_v2", "features.9")).weights


def test_the_peak_of_a_small_head_on_a_shallow_cut_is_the_sum_counted_by_hand() -> None:
    """VGG's first block at 64 px: convolution, ReLU in place (one block), pooling with its indices, linear layer."""
    spec = ModelSpec(backbone="vgg11", cut="features.2", classes=2, image_size=SIDE)
    image, map_, pooled = 4 * 3 * 64 * 64, 4 * 64 * 64 * 64, 64 * 32 * 32
    needs = measure_needs(spec)
    assert needs.saved_per_image == image + map_ + 8 * pooled + 4 * 64  # indices are 8 bytes each
    assert needs.saved_always == 0
    assert needs.weights == 4 * (3 * 9 * 64 + 64 + 2 * 64 + 2)


def test_a_larger_batch_costs_only_what_grows_with_it() -> None:
    spec = describe("resnet18")
    small, large = (estimate_training_bytes(spec, batch_size=size, precision="fp32") for size in (64, 128))
    needs = measure_needs(spec)
    assert large - small == 64 * (needs.saved_per_image + 2 * needs.largest_per_image)


def test_validation_counts_where_it_needs_more_than_a_step() -> None:
    spec = describe("resnet18", "layer1.1")
    step = estimate_training_bytes(spec, batch_size=2, precision="fp32")
    assert estimate_training_bytes(spec, batch_size=2, precision="fp32", validation_batch=1000) > 2 * step
    assert estimate_training_bytes(spec, batch_size=2, precision="fp32", validation_batch=1) == step


def test_kept_copies_are_whole_sets_of_weights() -> None:
    spec = describe("mobilenet_v2")
    more, none = (estimate_training_bytes(spec, batch_size=8, precision="fp32", copies=kept) for kept in (3, 0))
    assert more - none == 3 * measure_needs(spec).weights


def test_prediction_needs_less_than_training_on_as_many_images() -> None:
    spec = describe("densenet121")
    predicted = estimate_inference_bytes(spec, batch_size=32)
    assert measure_needs(spec).weights < predicted < estimate_training_bytes(spec, batch_size=32, precision="bf16")


def test_estimating_leaves_the_random_numbers_as_they_were() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    measure_needs.cache_clear()
    measure_needs(describe("mobilenet_v2"))
    assert torch.equal(torch.rand(2), expected)
