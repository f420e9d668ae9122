"""Receptive fields against brute force: the pixels that have a gradient, or whose change reaches a position."""

import copy
import sys
from collections.abc import Callable, Collection
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from ttl_deploy.models.backbones import build_backbone
from ttl_deploy.models.cost.receptive_field import find_receptive_fields
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.graph.measured import Measured, measure_backbone
from ttl_deploy.models.graph.tracing import Symbolic
from ttl_deploy.models.places import find_places

LARGEST_SIDE = 400
"""Brute force runs images larger than the fields; deeper cuts see more than is worth the time."""


class _Ones(nn.Module):
    """An open gate: whatever it is told, it lets everything pass."""

    def forward(self, gate: Tensor) -> Tensor:
        return torch.ones_like(gate)


class _Run(fx.Interpreter):
    """Run a graph up to the last of `wanted`, and keep their values; largest values become averages."""

    def __init__(self, model: nn.Module, graph: fx.Graph, wanted: Collection[fx.Node]) -> None:
        super().__init__(model, garbage_collect_values=False, graph=graph)
        self.wanted = list(wanted)
        self.kept: dict[fx.Node, Tensor] = {}

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target is functional.max_pool2d:
            return functional.avg_pool2d(*args, kwargs["stride"], kwargs["padding"], kwargs["ceil_mode"])
        return super().call_function(target, args, kwargs)

    def run_node(self, n: fx.Node) -> Any:
        if len(self.kept) == len(self.wanted):
            return None
        value = super().run_node(n)
        if n in self.wanted:
            self.kept[n] = value
        return value


_MODULES = ("torch.nn.modules.activation", "torchvision.")
_POINTWISE = (nn.BatchNorm2d, nn.LayerNorm, nn.Dropout, nn.Linear)


def make_linear(model: nn.Module) -> nn.Module:
    """Copy a network so that every pixel that can matter does: positive weights, averages, no activations, open gates.

    Then no gradient is lost at a zero, and none cancels another.
    """
    model = copy.deepcopy(model)
    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d):
            layer.to_empty(device="cpu")
            nn.init.constant_(layer.weight, 1 / layer.weight.shape[1])
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.MaxPool2d):
            average = nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, ceil_mode=layer.ceil_mode)
            model.set_submodule(path, average)
        elif isinstance(layer, nn.Sigmoid | nn.Hardsigmoid):
            model.set_submodule(path, _Ones())
        elif isinstance(layer, _POINTWISE) or (type(layer).__module__.startswith(_MODULES) and not [*layer.children()]):
            model.set_submodule(path, nn.Identity())
    for path, parameter in list(model.named_parameters()):
        if parameter.is_meta:  # ConvNeXt's factor per channel
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, nn.Parameter(torch.ones(parameter.shape)))
    return model.eval()


def count_pixels(value: Tensor, images: Tensor, axis: int) -> int:
    """Return how far apart, along one axis of the image, the pixels lie that the middle of a map depends on."""
    middle = value[..., value.shape[-2] // 2, value.shape[-1] // 2].sum()
    (gradient,) = torch.autograd.grad(middle, images, retain_graph=True)
    others = [dim for dim in range(4) if dim != axis]
    seen = gradient.abs().sum(others).nonzero().flatten()
    assert seen[0] > 0
    assert seen[-1] < images.shape[axis] - 1, "the image is too small to show the whole field"
    return int(seen[-1] - seen[0]) + 1


def measure_by_gradient(symbolic: Symbolic, nodes: Collection[fx.Node], length: int) -> dict[fx.Node, int]:
    """Return the side of the square that the middle of each map depends on, one axis of the image after the other."""
    found = dict.fromkeys(nodes, 0)
    model = make_linear(symbolic.model)
    for axis, shape in ((2, (length, 96)), (3, (96, length))):
        images = torch.ones(1, symbolic.channels, *shape, requires_grad=True)
        run = _Run(model, symbolic.graph, nodes)
        run.run(images)
        for node in nodes:
            found[node] = max(found[node], count_pixels(run.kept[node], images, axis))
    return found


CONVOLUTIONAL = (
    *("alexnet", "resnet18", "densenet121", "googlenet", "inception_v3", "mobilenet_v2", "mobilenet_v3_small"),
    *("shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_400mf", "convnext_tiny", "mnasnet0_5", "efficientnet_b0"),
)


@pytest.mark.parametrize("backbone", CONVOLUTIONAL)
def test_the_field_of_a_cut_is_where_the_gradient_is(backbone: str) -> None:
    compare_with_gradients(backbone, every=5)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [*CONVOLUTIONAL, "vgg16_bn", "resnet50", "efficientnet_v2_s"])
def test_the_field_of_every_cut_is_where_the_gradient_is(backbone: str) -> None:
    compare_with_gradients(backbone, every=1)


def compare_with_gradients(backbone: str, *, every: int) -> None:
    places = [place for place in find_places(backbone, 224)[:-1] if (place.receptive_field or 0) <= LARGEST_SIDE]
    chosen = {place.node: place.receptive_field for place in places[::-every]}
    symbolic = places[0].measured.symbolic
    assert measure_by_gradient(symbolic, list(chosen), LARGEST_SIDE + 112) == chosen


# --- networks of our own, every operation by itself -------------------------------------------------


class _Network(nn.Module):
    """A stem with stride 2, an operation, and a 3 × 3 convolution after it."""

    def __init__(self, change: Callable[[Tensor], Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.layers = nn.Sequential(*layers)
        self.change = change
        self.last = nn.LazyConv2d(8, 3, padding=1)
        self.classifier = nn.Linear(8, 2)
        self.last(self.change(self.layers(self.stem(torch.zeros(1, 3, 64, 64)))))

    def forward(self, images: Tensor) -> Tensor:
        features = self.last(self.change(self.layers(self.stem(images))))
        return self.classifier(features.mean((2, 3)))


def as_it_is(x: Tensor) -> Tensor:
    return x


def shuffle_channels(x: Tensor) -> Tensor:
    groups = x.view(x.shape[0], 2, 4, x.shape[2], x.shape[3])
    return torch.transpose(groups, 1, 2).contiguous().view(x.shape[0], 8, x.shape[2], x.shape[3])


def take_every_second(x: Tensor) -> Tensor:
    return torch.cat([x[..., 0::2, 0::2], x[:, :, 1::2, 1::2]], dim=1)


def add_pooled_halves(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=1)
    return functional.avg_pool2d(first, kernel_size=(5, 1), stride=1, padding=(2, 0)) + second


def go_through_channels_last(x: Tensor) -> Tensor:
    return functional.relu(x.permute(0, 2, 3, 1)).permute((0, 3, 1, 2))


def pool_with_dilation(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 2, 1) * 0.5 + x[:, :, ::2, ::2]


OWN: dict[str, Callable[[], nn.Module]] = {
    "dilated": lambda: _Network(as_it_is, nn.Conv2d(8, 8, 3, dilation=3, padding=3)),
    "not_square": lambda: _Network(
        as_it_is, nn.Conv2d(8, 8, (1, 7), padding=(0, 3)), nn.Conv2d(8, 8, (3, 1), stride=2, padding=(1, 0))
    ),
    "same_padding": lambda: _Network(as_it_is, nn.Conv2d(8, 8, (4, 5), dilation=2, padding="same")),
    "even_kernels": lambda: _Network(
        as_it_is, nn.Conv2d(8, 8, 4, stride=3, padding=1), nn.AvgPool2d(2, ceil_mode=True)
    ),
    "ceiling": lambda: _Network(as_it_is, nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(2, ceil_mode=True)),
    "shuffled": lambda: _Network(shuffle_channels, nn.Conv2d(8, 8, 3, padding=1, groups=8)),
    "space_to_depth": lambda: _Network(take_every_second),
    "halves": lambda: _Network(add_pooled_halves),
    "channels_last": lambda: _Network(go_through_channels_last),
    "residual": lambda: _Network(pool_with_dilation),
    "fixed_map": lambda: _Network(as_it_is, nn.Conv2d(8, 8, 3, padding=1), nn.AvgPool2d(2, 2)),
}


def scale_by_mean(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


def mix_tokens(x: Tensor) -> Tensor:
    return (x.flatten(2) * 2).reshape(1, 8, 32, 32)


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "gated": lambda: _Network(scale_by_mean),
    "added_mean": lambda: _Network(lambda x: x + x.mean([2, 3], keepdim=True)),
    "group_norm": lambda: _Network(as_it_is, nn.GroupNorm(2, 8)),
    "enlarged": lambda: _Network(lambda x: functional.interpolate(x, scale_factor=2.0)),
    "running_sum": lambda: _Network(lambda x: x.cumsum(2)),
    "circular": lambda: _Network(as_it_is, nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular")),
    "turned": lambda: _Network(lambda x: x + x.transpose(2, 3)),
    "back_from_tokens": lambda: _Network(mix_tokens),
    "rows_joined": lambda: _Network(lambda x: torch.cat([x, x], 2)),
}


@pytest.fixture(autouse=True)
def own_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("receptive_networks")
    for name, build in (OWN | OTHERS).items():
        setattr(module, name, build)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def measure_own(name: str) -> Measured:
    return measure_backbone(f"receptive_networks:{name}", 64)


def last_convolution(measured: Measured) -> fx.Node:
    return next(node for node in measured.symbolic.graph.nodes if str(node.target) == "last")


@pytest.mark.parametrize("name", OWN)
def test_the_field_of_every_map_is_where_the_gradient_is(name: str) -> None:
    measured = measure_own(name)
    fields = find_receptive_fields(measured)
    maps = [
        node
        for node, shape in measured.shapes.items()
        if len(shape) == 4 and shape[2] == shape[3] and node in fields.sides
    ]
    assert last_convolution(measured) in maps
    expected = measure_by_gradient(measured.symbolic, [node for node in maps if node.op != "placeholder"], 160)
    assert {node: fields.sides[node] for node in expected} == expected
    assert not fields.gates


def test_a_gate_does_not_widen_the_field_and_is_told() -> None:
    measured = measure_own("gated")
    fields = find_receptive_fields(measured)
    assert fields.sides[last_convolution(measured)] == 3 + 2 * 2
    assert [measured.symbolic.paths[node] for node in fields.gates] == ["mul"]


def test_a_normalisation_over_the_image_is_a_gate() -> None:
    measured = measure_own("group_norm")
    fields = find_receptive_fields(measured)
    assert fields.sides[last_convolution(measured)] == 3 + 2 * 2
    assert [measured.symbolic.paths[node] for node in fields.gates] == ["layers.0"]


def test_what_is_added_widens_the_field_to_the_whole_image() -> None:
    measured = measure_own("added_mean")
    assert find_receptive_fields(measured).sides[last_convolution(measured)] == 64


@pytest.mark.parametrize("name", ["enlarged", "running_sum", "circular", "turned", "back_from_tokens", "rows_joined"])
def test_from_what_is_not_understood_on_nothing_is_claimed(name: str) -> None:
    measured = measure_own(name)
    nodes = list(measured.symbolic.graph.nodes)
    fields = find_receptive_fields(measured)
    after = nodes[nodes.index(last_convolution(measured)) :]
    assert {fields.sides[node] for node in after if node in fields.sides} == {None}
    assert fields.sides[nodes[1]] == 3
    assert list_cuts(f"receptive_networks:{name}", image_size=64, classes=2)[-1].receptive_field is None


# --- transformers: which rows change when a row of pixels does --------------------------------------


def measure_by_change(backbone: str, size: int, wanted: Collection[fx.Node], rows_dim: int) -> dict[fx.Node, int]:
    """Return the largest number of rows of pixels that one row of features depends on, with random weights."""
    torch.manual_seed(0)
    model = build_backbone(backbone, image_size=size).double().eval()
    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.Sigmoid):
            model.set_submodule(path, _Ones())
    image = torch.randn(1, 3, size, size, dtype=torch.float64)
    plain = _run_up_to(model, image, wanted)
    changes: dict[fx.Node, list[Tensor]] = {node: [] for node in wanted}
    for rows in torch.arange(size).split(16):
        changed = image.repeat(len(rows), 1, 1, 1)
        for number, row in enumerate(rows):
            changed[number, :, row] += 10 * torch.randn(3, size, dtype=torch.float64)
        for node, value in _run_up_to(model, changed, wanted).items():
            others = [dim for dim in (1, 2, 3) if dim != rows_dim]
            # What Swin masks it multiplies by exp(-100), about 1e-44.
            changes[node].append((value - plain[node]).abs().amax(others) > 1e-12)
    return {node: _longest(torch.cat(rows)) for node, rows in changes.items()}


@torch.no_grad()
def _run_up_to(model: nn.Module, image: Tensor, wanted: Collection[fx.Node]) -> dict[fx.Node, Tensor]:
    run = _Run(model, next(iter(wanted)).graph, wanted)
    run.run(image)
    return run.kept


def _longest(changes: Tensor) -> int:
    """Return the longest span of pixels that one position depends on, from `(pixels, positions)`."""
    spans = [column.nonzero().flatten() for column in changes.T]
    return max(int(span[-1] - span[0]) + 1 for span in spans)


@pytest.mark.parametrize(
    ("backbone", "size"),
    [("swin_t", 100), *(pytest.param(*case, marks=pytest.mark.slow) for case in (("swin_t", 112), ("swin_v2_t", 96)))],
)
def test_attention_in_shifted_windows_sees_what_changes_it(backbone: str, size: int) -> None:
    places = find_places(backbone, size)[:6]
    expected = measure_by_change(backbone, size, [place.node for place in places], rows_dim=1)
    assert [place.receptive_field for place in places] == [expected[place.node] for place in places]


@pytest.mark.slow
def test_attention_in_windows_and_grids_sees_what_changes_it() -> None:
    places = find_places("maxvit_t", 224)[:5]
    expected = measure_by_change("maxvit_t", 224, [place.node for place in places], rows_dim=2)
    assert [min(place.receptive_field or 0, 224) for place in places] == [expected[place.node] for place in places]
