"""Networks of the user's own: found in the working folder, cut like any other, refused with a reason."""

from pathlib import Path

import pytest
import torch

from ttl_deploy.errors import UsageError
from ttl_deploy.models.backbones import find_backbone
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.truncation import build
from ttl_deploy.records.models import ModelSpec

SOURCE = """
import torch
from torch import nn
from torch.nn import functional

class Net(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3)
        self.second = nn.Conv2d(4, 8, 3)
        self.last = nn.Linear(8, 3)
    def forward(self, x):
        x = functional.dropout(functional.relu(self.first(x)), 0.5, self.training)
        x = functional.relu(self.second(x))
        return self.last(x.mean((2, 3)))

class Branching(Net):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)

class Choosy(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
    def forward(self, x):
        return self.inner(x) if x.shape[-1] > 1 else x

class WithChoosyPart(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.part = nn.Sequential(Choosy(4), Choosy(4))
        self.last = nn.Linear(4, 3)
    def forward(self, x):
        return self.last(self.part(self.first(x)).mean((2, 3)))

class TwoFaced(Net):
    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits

class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()
    def forward(self, x):
        return self.net(x)

class Returning(Net):
    def forward(self, x):
        return super().forward(x) + x.mean((1, 2, 3))[:, None]

class WithSoftmax(Net):
    def forward(self, x):
        return functional.softmax(super().forward(x), dim=1)

class WithLayers(nn.Sequential):
    def __init__(self):
        super().__init__(Net(), nn.Sigmoid())

class Pair(Net):
    def forward(self, x):
        return super().forward(x), x

class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.last = nn.Conv2d(4, 2, 1)
    def forward(self, x):
        return self.last(functional.relu(self.first(x)))

class NoLayers(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))

def five_channels(): return Net(5)
def needs_something(size): return Net(size)
def fails(): raise KeyError("no such checkpoint")
def a_dictionary(): return {}
a_number = 3
"""


@pytest.fixture(autouse=True)
def in_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hospital_nets.py").write_text(SOURCE)
    (tmp_path / "broken_nets.py").write_text("def net(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    find_backbone.cache_clear()


def names(backbone: str) -> list[str]:
    return [cut.name for cut in list_cuts(backbone, image_size=32, classes=2)]


def test_a_class_or_a_function_of_ones_own_is_cut_like_any_network() -> None:
    assert names("hospital_nets:Net") == ["first", "second", "full"]
    assert names("hospital_nets:Deep") == ["net.first", "net.second", "full"]


def test_a_part_that_cannot_be_traced_stays_whole_and_is_cut_around() -> None:
    assert names("hospital_nets:WithChoosyPart") == ["first", "part.0", "part.1", "full"]


def test_a_functional_dropout_in_the_forward_still_switches() -> None:
    trunk = build(ModelSpec(backbone="hospital_nets:Net", cut="second", classes=2, image_size=32)).trunk
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(trunk.eval()(images), trunk(images))
    assert not torch.equal(trunk.train()(images), trunk(images))


@pytest.mark.parametrize("name", ["WithSoftmax", "WithLayers"])
def test_a_final_softmax_or_sigmoid_is_left_out_because_losses_take_logits(name: str) -> None:
    prefix = "0." if name == "WithLayers" else ""
    model = build(ModelSpec(backbone=f"hospital_nets:{name}", cut="full", classes=3, image_size=32)).eval()
    plain = find_backbone("hospital_nets:Net").build(32).eval()
    plain.load_state_dict(
        {key.partition(".")[2].removeprefix(prefix): value for key, value in model.state_dict().items()}
    )
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(images), plain(images))


def test_building_it_is_repeatable_under_a_seed() -> None:
    spec = ModelSpec(backbone="hospital_nets:Net", cut="second", classes=2, image_size=40)
    torch.manual_seed(5)
    first = build(spec).state_dict()  # traced now
    torch.manual_seed(5)
    again = build(spec).state_dict()  # known already
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [
        ("hospital_nets:Nope", "has no attribute 'Nope'"),
        ("hospital_net:Net", "there is no module 'hospital_net' in .* run from the folder that holds it"),
        ("broken_nets:net", "importing it fails .SyntaxError"),
        ("hospital_nets:needs_something", "cannot be built .TypeError.*needs no arguments"),
        ("hospital_nets:fails", "cannot be built .KeyError: 'no such checkpoint'"),
        ("hospital_nets:a_dictionary", "returned a dict, not a torch.nn.Module"),
        ("hospital_nets:a_number", "is a int: give package.module:function"),
        ("hospital_nets:Branching", "cannot be traced by torch.fx .TraceError.*must not branch on values"),
        ("hospital_nets:TwoFaced", "in training its forward does something else than in evaluation"),
        ("hospital_nets:five_channels", "takes images of 5 channels: 1 .grey. or 3 .RGB. are allowed"),
        ("hospital_nets:Returning", "does not depend on the input of its last layer, last, alone"),
        ("hospital_nets:Pair", "returns a tuple: it must return one tensor of logits"),
        ("hospital_nets:Segmenter", "returns .1, 2, 30, 30. for one image: a classifier returns .1, classes."),
        ("hospital_nets:NoLayers", "has no linear layer or convolution to classify with"),
        ("hospital nets:Net", "an own network is given as package.module:function"),
        ("hospital_nets:", "an own network is given as package.module:function"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(backbone: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        names(backbone)
