"""Weights for grey images in colour networks and the other way round, against the networks they are from."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from ttl_deploy.errors import WeightsError
from ttl_deploy.models.graph.tracing import trace_backbone
from ttl_deploy.models.input_conventions import Feeding, fit_channels, parse_convention
from ttl_deploy.models.truncation import build
from ttl_deploy.models.weights.first_convolution import adapt_first_convolution, count_file_channels
from ttl_deploy.models.weights.loading import check_weights, load_pretrained
from ttl_deploy.records.models import FULL, InputConvention, ModelSpec
from ttl_deploy.training.batches import normalise

IMAGENET = "0.485,0.456,0.406/0.229,0.224,0.225"
SHARED_MEAN = "0.45/0.229,0.224,0.225"


class Net(nn.Module):
    """A convolution with or without bias, padding and BatchNorm, and something after it that can be cut."""

    def __init__(self, channels: int, *, bias: bool = False, padding: int = 1, norm: bool = True) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels, 6, 3, padding=padding, bias=bias)
        self.norm = nn.BatchNorm2d(6) if norm else nn.Tanh()
        self.second = nn.Conv2d(6, 4, 3)
        self.last = nn.Linear(4, 3)
        if isinstance(self.norm, nn.BatchNorm2d):
            nn.init.uniform_(self.norm.running_mean, -1, 1)
            nn.init.uniform_(self.norm.running_var, 0.5, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.second(torch.relu(self.norm(self.entry(images)))))
        return self.last(features.mean((2, 3)))

    def features(self, images: Tensor) -> Tensor:
        """Return what the first cut holds, the way the class itself computes it."""
        return torch.relu(self.norm(self.entry(images)))


class Stacked(Net):
    """Looks at the image twice: in a convolution and beside it."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.features(images) + images.mean(1, keepdim=True))
        return self.last(features.mean((2, 3)))


NETWORKS: dict[str, Callable[[int], Net]] = {
    "plain": Net,
    "biased": lambda channels: Net(channels, bias=True, norm=False),
    "unpadded": lambda channels: Net(channels, padding=0),
    "bare": lambda channels: Net(channels, norm=False),
    "stacked": Stacked,
}


@pytest.fixture(autouse=True)
def networks() -> Iterator[None]:
    """Offer the networks as backbones `eyes:grey_plain`, `eyes:colour_plain` …"""
    module = ModuleType("eyes")
    for name, make in NETWORKS.items():
        setattr(module, f"grey_{name}", lambda make=make: make(1))
        setattr(module, f"colour_{name}", lambda make=make: make(3))
    sys.modules["eyes"] = module
    yield
    del sys.modules["eyes"]


def grey_images(count: int = 4, side: int = 16) -> Tensor:
    pixels = torch.randint(0, 256, (count, 1, side, side), generator=torch.Generator().manual_seed(5))
    return pixels.to(torch.uint8).expand(-1, 3, -1, -1)


def compare(kind: str, given: str, *, colour_file: bool, tmp_path: Path) -> tuple[Tensor, Tensor, str]:
    """Return the features of the file's network, of ours, and the note; each fed in its own way."""
    torch.manual_seed(1)
    original = NETWORKS[kind](3 if colour_file else 1).eval()
    path = tmp_path / "weights.pth"
    torch.save(original.state_dict(), path)
    backbone = f"eyes:{'grey' if colour_file else 'colour'}_{kind}"
    spec = ModelSpec(backbone=backbone, cut=FULL, classes=2, image_size=16)
    model = build(spec)
    used = check_weights(str(path), backbone, (), image_size=16, normalise=given)
    feeding = Feeding(file=used.file_input, network=used.input)
    note = load_pretrained(model, spec, str(path), feeding=feeding).text
    ours = build_first_part(model.trunk)
    images = grey_images()
    with torch.no_grad():
        expected = original.features(normalise(images, feeding.file))
        found = ours(normalise(images, feeding.network))
    return expected, found, note


def build_first_part(trunk: nn.Module) -> Callable[[Tensor], Tensor]:
    trunk.eval()
    return lambda images: torch.relu(trunk.norm(trunk.entry(images)))


def test_one_channel_in_a_colour_network_computes_on_the_mean_of_the_channels(tmp_path: Path) -> None:
    expected, found, note = compare("plain", "0.5/0.25", colour_file=False, tmp_path=tmp_path)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert note == "weights.pth covers the trunk; first convolution adapted from 1 to 3 channels"


def test_a_file_of_one_channel_means_the_average_of_a_convention_of_three(tmp_path: Path) -> None:
    expected, found, _ = compare("plain", "imagenet", colour_file=False, tmp_path=tmp_path)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["plain", "biased", "unpadded", "bare"])
def test_three_channels_of_a_shared_mean_become_one_exactly(kind: str, tmp_path: Path) -> None:
    expected, found, note = compare(kind, SHARED_MEAN, colour_file=True, tmp_path=tmp_path)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert note.endswith("; first convolution adapted from 3 to 1 channel")


@pytest.mark.parametrize("kind", ["plain", "biased"])
def test_channels_of_different_means_become_one_that_is_exact_inside_and_not_at_the_border(
    kind: str, tmp_path: Path
) -> None:
    expected, found, note = compare(kind, IMAGENET, colour_file=True, tmp_path=tmp_path)
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-5, atol=1e-5)
    assert float((found - expected).abs().max()) > 1e-3
    assert note.endswith(
        "first convolution adapted from 3 to 1 channel, exact but at the image's border, "
        "where padding stands for mean 0.449 instead of 0.485, 0.456, 0.406"
    )


def test_at_the_border_ours_is_the_original_padded_with_our_mean(tmp_path: Path) -> None:
    _, found, _ = compare("plain", IMAGENET, colour_file=True, tmp_path=tmp_path)
    torch.manual_seed(1)
    original = NETWORKS["plain"](3).eval()
    original.entry.padding = (0, 0)
    convention = parse_convention(IMAGENET)
    framed = nn.functional.pad(grey_images().float(), (1, 1, 1, 1), value=255 * (0.485 + 0.456 + 0.406) / 3)
    with torch.no_grad():
        expected = original.features(normalise(framed, convention))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_without_padding_there_is_no_border_to_be_wrong_at(tmp_path: Path) -> None:
    expected, found, note = compare("unpadded", IMAGENET, colour_file=True, tmp_path=tmp_path)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert note.endswith("adapted from 3 to 1 channel")


def test_where_nothing_can_take_up_the_difference_of_means_the_note_says_so(tmp_path: Path) -> None:
    expected, found, note = compare("bare", IMAGENET, colour_file=True, tmp_path=tmp_path)
    assert float((found - expected).abs().mean()) > 1e-3
    assert note.endswith("not exact: it sees mean 0.449 instead of 0.485, 0.456, 0.406")


def test_an_image_that_goes_elsewhere_too_is_not_adapted(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="the image goes into mean and not only into plain convolutions"):
        compare("stacked", "0.5/0.25", colour_file=False, tmp_path=tmp_path)


def test_torchvisions_rescaling_of_the_input_is_not_adapted() -> None:
    tensors = {"conv1.conv.weight": torch.zeros(64, 1, 7, 7)}
    feeding = Feeding(file=InputConvention(mean=(0.5,), std=(0.5,)), network=fit_channels(parse_convention("0/1"), 3))
    with pytest.raises(WeightsError, match="cannot be adapted"):
        adapt_first_convolution(tensors, trace_backbone("googlenet", 64), feeding)


@pytest.mark.parametrize(
    ("backbone", "name"),
    [
        ("resnet18", "conv1"),
        ("vgg11", "features.0"),
        ("convnext_tiny", "features.0.0"),
        ("vit_b_16", "conv_proj"),
        ("swin_t", "features.0.0"),
    ],
)
def test_the_first_convolution_is_found_in_every_family_and_tripled(backbone: str, name: str) -> None:
    symbolic = trace_backbone(backbone, 64)
    layer = symbolic.model.get_submodule(name)
    one = torch.randn(layer.out_channels, 1, *layer.kernel_size)
    tensors = {f"{name}.weight": one}
    assert count_file_channels(tensors, symbolic) == 1
    convention = parse_convention("0.5/0.25")
    feeding = Feeding(file=convention, network=fit_channels(convention, 3))
    adapted = adapt_first_convolution(tensors, symbolic, feeding).tensors[f"{name}.weight"]
    assert adapted.shape == layer.weight.shape
    torch.testing.assert_close(adapted.sum(dim=1, keepdim=True), one)
