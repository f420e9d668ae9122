"""Peak activation memory against the tensors that are really alive while a trunk runs."""

from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.truncation import build
from ttl_deploy.records.models import ModelSpec


class _LiveStorages(TorchDispatchMode):
    """Watch, through weak references, the memory of all activations that operators return, and of the image.

    Indices of a max pooling are what that layer needs inside, and no activations.
    """

    def __init__(self, model: nn.Module, image: torch.Tensor) -> None:
        super().__init__()
        self._held = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self._watch(image)
        self.peak_bytes = 0

    def _watch(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._held and tensor.is_floating_point():
            self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._alive = {number: entry for number, entry in self._alive.items() if not entry[0].expired()}
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._watch(tensor)
        self.peak_bytes = max(self.peak_bytes, self.count_bytes())
        return result

    def count_bytes(self) -> int:
        return sum(size for reference, size in self._alive.values() if not reference.expired())


class _Stepwise(fx.Interpreter):
    """Run a trunk layer by layer, and look at what is alive only between two layers."""

    def __init__(self, trunk: fx.GraphModule, watch: _LiveStorages) -> None:
        super().__init__(trunk)
        self._watch = watch
        self.peak_bytes = 0

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.peak_bytes = max(self.peak_bytes, self._watch.count_bytes())
        return value


def build_trunk(backbone: str, cut: str, image_size: int) -> fx.GraphModule:
    return build(ModelSpec(backbone=backbone, cut=cut, classes=2, image_size=image_size)).eval().trunk


def watch_forward(backbone: str, cut: str, image_size: int) -> int:
    trunk, image = build_trunk(backbone, cut, image_size), torch.randn(1, 3, image_size, image_size)
    with torch.no_grad(), _LiveStorages(trunk, image) as watch:
        trunk(image)
    return watch.peak_bytes


def watch_layers(backbone: str, cut: str, image_size: int) -> int:
    trunk, image = build_trunk(backbone, cut, image_size), torch.randn(1, 3, image_size, image_size)
    with torch.no_grad(), _LiveStorages(trunk, image) as watch:
        run = _Stepwise(trunk, watch)
        run.run(image)
    return run.peak_bytes


def slow(backbone: str) -> Any:
    return pytest.param(backbone, marks=pytest.mark.slow)


FAST = ("densenet121", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5")
SLOW = ("googlenet", "resnet50", "efficientnet_b0", "regnet_y_400mf", "vgg11")


@pytest.mark.parametrize("backbone", [*FAST, *map(slow, SLOW)])
def test_the_peak_is_that_of_the_running_trunk(backbone: str) -> None:
    cuts = list_cuts(backbone, image_size=64, classes=2)
    chosen = [cuts[len(cuts) // 2], cuts[-1]]
    assert [cut.peak_bytes for cut in chosen] == [watch_forward(backbone, cut.name, 64) for cut in chosen]


@pytest.mark.parametrize("backbone", ["swin_t", *map(slow, ("vit_b_32", "convnext_tiny", "swin_v2_t"))])
def test_what_layers_need_inside_is_not_in_the_peak(backbone: str) -> None:
    """Attention and ConvNeXt's normalisation compute in steps of their own, which no graph shows."""
    cuts = list_cuts(backbone, image_size=64, classes=2)
    chosen = [cuts[len(cuts) // 2], cuts[-1]]
    assert [cut.peak_bytes for cut in chosen] == [watch_layers(backbone, cut.name, 64) for cut in chosen]
    deepest = chosen[-1]
    assert deepest.peak_bytes <= watch_forward(backbone, deepest.name, 64)


def test_the_peak_of_a_small_trunk_is_the_sum_counted_by_hand() -> None:
    """VGG's first block at 32 px: the image, and beside it the first map with the second made from it."""
    first = list_cuts("vgg16", image_size=32, classes=2)[1]
    assert first.name == "features.4"
    assert first.peak_bytes == 4 * (3 + 64 + 64) * 32 * 32


def test_peaks_never_fall_with_depth_and_hold_at_least_image_and_features() -> None:
    cuts = list_cuts("densenet121", image_size=64, classes=2)
    peaks = [cut.peak_bytes for cut in cuts]
    assert peaks == sorted(peaks)
    image = 3 * 64 * 64
    assert all(cut.peak_bytes >= 4 * (image + cut.channels * cut.height * cut.width) for cut in cuts)
