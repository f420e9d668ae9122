"""Where training begins: random weights, means and variances, a transfused bottom, Gabor filters."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.models.truncation import TruncatedModel, build
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.training.strategies import find_strategy
from ttl_deploy.training.strategies.gabor import draw_filters

REDRAWING = ("scratch", "mean-var", "transfusion?upto=layer1", "gabor")
OWN = """
import torch
from torch import nn

def build():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.linspace(-1, 1, 108).view(4, 3, 3, 3))
    return network
"""


def spec_of(backbone: str = "resnet18", cut: str = "layer3.1") -> ModelSpec:
    return ModelSpec(backbone=backbone, cut=cut, classes=2, image_size=64)


def trained(spec: ModelSpec) -> TruncatedModel:
    """Return a model whose numbers, statistics too, are none that an initialisation gives."""
    torch.manual_seed(7)
    model = build(spec)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) + 0.5)
        else:
            tensor.fill_(99)
    return model


def prepare(strategy: str, model: nn.Module, spec: ModelSpec, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    find_strategy(strategy).prepare(model, spec)
    return model.state_dict()


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def is_fresh(name: str, tensor: Tensor) -> bool:
    """Tell whether a tensor is as a BatchNorm begins."""
    begins_at_one = name.endswith(("running_var", "weight"))
    return torch.equal(tensor, torch.ones_like(tensor) if begins_at_one else torch.zeros_like(tensor))


def norms_in(model: nn.Module) -> set[str]:
    return {
        f"{name}.{own}"
        for name, layer in model.get_submodule("trunk").named_modules(prefix="trunk")
        if isinstance(layer, nn.BatchNorm2d)
        for own in layer.state_dict()
    }


@pytest.mark.parametrize("strategy", REDRAWING)
def test_the_same_seed_begins_the_same_and_another_does_not(strategy: str) -> None:
    spec = spec_of(cut="layer2.1")
    first, again, other = (copies_after(strategy, spec, seed) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "trunk.layer2.0.conv1.weight"
    assert not torch.equal(first[name], other[name])


def copies_after(strategy: str, spec: ModelSpec, seed: int) -> dict[str, Tensor]:
    return prepare(strategy, trained(spec), spec, seed)


@pytest.mark.parametrize("strategy", REDRAWING)
def test_the_head_stays_and_everything_learns(strategy: str) -> None:
    spec = spec_of()
    model = trained(spec)
    before = copies(model)
    after = prepare(strategy, model, spec)
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("head."))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_scratch_ignores_what_was_loaded() -> None:
    spec = spec_of()
    from_trained = prepare("scratch", trained(spec), spec)
    torch.manual_seed(0)
    built = build(spec).state_dict()
    trunk = [name for name in built if name.startswith("trunk.")]
    assert len(trunk) > 50
    assert all(torch.equal(from_trained[name], built[name]) for name in trunk)


def test_scratch_refuses_a_network_that_puts_in_weights_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "network_with_weights.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    spec = spec_of("network_with_weights:build", "full")
    with pytest.raises(UsageError, match=r"begins with the same 0\.weight each time"):
        prepare("scratch", build(spec), spec)


def test_mean_var_keeps_mean_and_variance_of_each_tensor_and_nothing_else() -> None:
    spec = spec_of()
    model = trained(spec)  # uniform on 0.5 … 1.5, so neither centred nor normal
    before = copies(model)
    after = prepare("mean-var", model, spec)
    for name in ("trunk.conv1.weight", "trunk.layer2.1.conv2.weight", "trunk.layer3.0.downsample.0.weight"):
        count, sd = before[name].numel(), math.sqrt(1 / 12)
        # Standard errors of the mean and the variance of `count` normal numbers, 5 of them.
        assert abs(after[name].mean() - before[name].mean()) < 5 * sd / math.sqrt(count)
        assert abs(after[name].var() - before[name].var()) < 5 * sd**2 * math.sqrt(2 / count)
        correlation = torch.corrcoef(torch.stack([before[name].flatten(), after[name].flatten()]))[0, 1]
        assert abs(correlation) < 5 / math.sqrt(count)
        assert after[name].max() > 1.5  # the tail of a normal distribution


def test_mean_var_takes_each_tensors_own_numbers() -> None:
    spec = spec_of()
    model = trained(spec)
    model.state_dict()["trunk.layer2.0.conv1.weight"].mul_(0.01).sub_(3)
    after = prepare("mean-var", model, spec)
    assert after["trunk.layer2.0.conv1.weight"].mean() == pytest.approx(-2.99, abs=1e-3)
    assert after["trunk.layer2.0.conv2.weight"].mean() == pytest.approx(1.0, abs=0.01)


def test_mean_var_starts_batch_norm_anew() -> None:
    spec = spec_of()
    model = trained(spec)
    names = norms_in(model)
    after = prepare("mean-var", model, spec)
    assert len(names) == 5 * 15  # five tensors each: one at the bottom, two in each of six blocks, two in shortcuts
    assert all(is_fresh(name, after[name]) for name in names)


def test_transfusion_keeps_the_bottom_bit_for_bit_and_changes_the_rest() -> None:
    spec = spec_of()
    model = trained(spec)
    before = copies(model)
    after = prepare("transfusion?upto=layer1", model, spec)
    kept = {name for name in before if name.startswith(("trunk.conv1.", "trunk.bn1.", "trunk.layer1.", "head."))}
    assert "trunk.layer1.1.bn2.running_var" in kept
    assert all(torch.equal(after[name], before[name]) for name in kept)
    assert not [name for name in before.keys() - kept if torch.equal(after[name], before[name])]
    assert all(is_fresh(name, after[name]) for name in norms_in(model) - kept)


def test_transfusion_keeps_everything_at_cuts_no_deeper_than_its_depth() -> None:
    spec = spec_of(cut="layer1.0")
    model = trained(spec)
    before = copies(model)
    after = prepare("transfusion?upto=layer1", model, spec)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_transfusion_asks_for_a_depth_that_exists() -> None:
    with pytest.raises(UsageError, match="upto=layer2"):
        find_strategy("transfusion")
    spec = spec_of()
    with pytest.raises(UnknownNameError, match="layer9"):
        prepare("transfusion?upto=layer9", build(spec), spec)


def grating(side: int, *, wavelength: float, angle: float) -> Tensor:
    """Return a wave `(side, side)` of amplitude 1 along a direction, in complex numbers, so of any phase."""
    steps = torch.arange(side) - (side - 1) / 2
    along = steps[None, :] * math.cos(angle) + steps[:, None] * math.sin(angle)
    return torch.exp(2j * math.pi * along / wavelength)


def response(bank: Tensor, wave: Tensor) -> Tensor:
    return (bank * wave).sum(dim=(1, 2)).abs()


@pytest.mark.parametrize(("count", "side"), [(64, 7), (63, 7), (32, 3), (96, 4), (64, 11), (768, 16)])
def test_gabor_filters_are_distinct_of_mean_0_and_norm_1(count: int, side: int) -> None:
    bank = draw_filters(count, height=side, width=side)
    assert bank.shape == (count, side, side)
    assert bank.mean(dim=(1, 2)).abs().max() < 1e-6
    torch.testing.assert_close(bank.flatten(1).norm(dim=1), torch.ones(count))
    distances = torch.cdist(bank.flatten(1), bank.flatten(1)) + torch.eye(count)
    assert distances.min() > 1e-3


def test_gabor_filters_come_in_32_even_orientations_at_two_frequencies() -> None:
    bank = draw_filters(64, height=7, width=7)
    for half, wavelength in ((bank[:32], 3.5), (bank[32:], 7.0)):
        for step in range(32):
            angle = math.pi * step / 32
            matching = response(half, grating(7, wavelength=wavelength, angle=angle))
            orthogonal = response(half, grating(7, wavelength=wavelength, angle=angle + math.pi / 2))
            assert matching[step] > 2 * orthogonal[step]
            assert min((matching.argmax() - step) % 32, (step - matching.argmax()) % 32) <= 2  # 11°, on a 7 x 7 grid


def test_the_two_halves_prefer_their_own_frequency() -> None:
    bank = draw_filters(64, height=7, width=7)
    for step in (0, 8, 16, 24):
        short, long = (response(bank, grating(7, wavelength=w, angle=math.pi * step / 32)) for w in (3.5, 7.0))
        assert short[step] > long[step]
        assert long[32 + step] > short[32 + step]


@pytest.mark.parametrize(
    ("backbone", "cut", "convolution"),
    [
        ("resnet18", "layer1.0", "conv1"),
        ("mobilenet_v3_small", "features.1", "features.0.0"),
        ("swin_t", "features.1.0", "features.0.0"),
        ("cbr:tiny?widths=8-16", "unit1", "unit1.conv"),
    ],
)
def test_gabor_fills_the_first_convolution_at_the_scale_it_had_and_leaves_the_rest_random(
    backbone: str, cut: str, convolution: str
) -> None:
    spec = spec_of(backbone, cut)
    after = prepare("gabor", trained(spec), spec)
    random = prepare("scratch", trained(spec), spec)
    name = f"trunk.{convolution}.weight"
    weight = after[name]
    assert all(torch.equal(after[other], random[other]) for other in random if other != name)
    assert torch.equal(weight[:, 0], weight[:, 1])
    assert torch.equal(weight[:, 0], weight[:, 2])
    bank = draw_filters(weight.shape[0], height=weight.shape[2], width=weight.shape[3])
    torch.testing.assert_close(weight[:, 0] / weight[0, 0].norm(), bank)
    torch.testing.assert_close(weight.norm(), random[name].norm(), rtol=1e-4, atol=0)


def test_gabor_refuses_kernels_without_orientation() -> None:
    with pytest.raises(UsageError, match="3 x 3 can"):
        draw_filters(8, height=1, width=1)
