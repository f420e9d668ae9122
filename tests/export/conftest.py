"""A small convolutional classifier with BatchNorm, and the manifest to ship it with."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402 # torch may be missing

from ttl_deploy.records.artifacts import ArtifactManifest, InputSpec  # noqa: E402 # torch may be missing
from ttl_deploy.records.data import DataFingerprint, DecodeSettings, SplitCount  # noqa: E402 # torch may be missing
from ttl_deploy.records.models import ModelSpec  # noqa: E402 # torch may be missing
from ttl_deploy.records.scores import Score  # noqa: E402 # torch may be missing

SIDE = 24
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class SmallNet(nn.Module):
    """Convolutions, a concatenation, pooling, dropout and a linear layer: what truncated models are made of."""

    def __init__(self, classes=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, classes))

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.relu(self.norm(torch.cat([x, self.branch(x)], dim=1))))


def make_net(classes=3):
    """Build a net with random weights, BatchNorm statistics that matter, and clearly different answers."""
    torch.manual_seed(0)
    net = SmallNet(classes)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        net.head[-1].weight.mul_(10)
    return net


@pytest.fixture
def net():
    return make_net()


@pytest.fixture(scope="session")
def shipped_manifest():
    score = Score(
        metric="auroc",
        split="test",
        value=0.91,
        low=0.85,
        high=0.95,
        level=0.95,
        images=100,
        patients=50,
        per_class=(0.9, 0.91, 0.92),
        defined=3,
        method="percentile bootstrap over patients",
    )
    classes = ("normal", "bacterial, severe", "<viral>")
    return ArtifactManifest(
        name="smallnet-stem",
        format="onnx",
        precision="fp32",
        model=ModelSpec(backbone="smallnet", cut="stem", classes=3, image_size=SIDE),
        classes=classes,
        decode=DecodeSettings(image_size=SIDE, fit="pad"),
        input=InputSpec(name="", height=SIDE, width=SIDE, mean=MEAN, std=STD, max_batch=1),
        output="",
        decision="argmax",
        threshold=None,
        scores=(score,),
        params=1000,
        macs=20000,
        data=DataFingerprint(
            name="chests",
            reader="folder",
            sha256="ab" * 32,
            classes=classes,
            counts=(SplitCount(split="test", images=100, patients=50, per_class=(40, 30, 30)),),
            patients_known=False,
        ),
        strategy="full",
        seed=3,
        weights_sha256="cd" * 32,
        weights_note="",
        versions={"torch": "2.13.0"},
        opset=0,
        ir_version=0,
        created="2026-01-01T00:00:00+00:00",
        intended_use="Research. Not for clinical use without validation.",
    )


@pytest.fixture(scope="session")
def real_images():
    """Sixty-four smooth random images, as unlike the golden ones as radiographs are."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (64, 3, 3, 1))
    return np.repeat(np.kron(coarse, np.ones((1, 8, 8, 1))), 3, axis=3).astype(np.uint8)


@pytest.fixture(scope="session")
def normalise():
    """Return the preprocessing written out the long way, as training does it."""

    def long_way(images):
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).double() / 255
        mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (MEAN, STD))
        return ((pixels - mean) / std).float()

    return long_way


@pytest.fixture(scope="session")
def new_net():
    return make_net
