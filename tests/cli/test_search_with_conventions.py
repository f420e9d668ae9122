"""A search from weights that want other pixels than ImageNet's, down to the file it ships."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from ttl_deploy.files import sha256_file
from ttl_deploy.models.torchvision_border import load_torchvision

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMON = (
    *("--data", "phantom:texture?patients=30&size=32&seed=1", "--image-size", "32", "--epochs", "1"),
    *("--workers", "1", "--profile-seconds", "0.02", "-o", "run", "--no-progress"),
)
GREY_NETWORK = """
from torch import nn

def net():
    body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3))
    return nn.Sequential(*body, nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
"""


def read(path: Path) -> dict[str, object]:
    return json.loads(path.read_text(encoding="utf-8"))


def succeed(ttl_deploy: Run, *arguments: object) -> str:
    done = ttl_deploy(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_torchxrayvisions_weights_train_and_ship_with_their_own_pixels(ttl_deploy: Run, tmp_path: Path) -> None:
    network = load_torchvision().models.densenet121(weights=None)
    network.features.conv0 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    network.classifier = nn.Linear(1024, 18)
    network.register_buffer("op_threshs", torch.zeros(18))
    torch.save(network.state_dict(), tmp_path / "xrv.pth")
    search = ("search", "--backbone", "densenet121", "--weights", "xrv.pth", "--cuts", "features.transition1", *COMMON)
    adapted = "first convolution adapted from 1 to 3 channels"
    assert adapted in succeed(ttl_deploy, *search)
    run = tmp_path / "run"
    decisive = read(run / "env.json")["decisive"]
    assert decisive["input"].startswith("torchxrayvision: ")
    used = read(run / "weights.json")
    assert used["path"] == str(tmp_path / "xrv.pth")
    assert used["sha256"] == decisive["weights_sha256"] == sha256_file(tmp_path / "xrv.pth")
    assert used["changes"] == [adapted]
    assert [(cut["cut"], cut["covered"]) for cut in used["cuts"]] == [("features.transition1", True), ("full", True)]
    result = read(run / "trials" / "features.transition1__full__s0" / "result.json")
    assert result["weights_note"] == f"xrv.pth covers the trunk; {adapted}"
    succeed(ttl_deploy, "export", "run", "--cut", "features.transition1")
    artifact = run / "exports" / "features.transition1"
    manifest = read(artifact / "manifest.json")
    assert manifest["input"]["mean"] == [0.5] * 3
    assert manifest["input"]["std"] == [0.5 / 1024] * 3
    assert manifest["input"]["normalisation"].startswith("torchxrayvision: ")
    assert adapted in manifest["weights_note"]
    assert "torchxrayvision: " in (artifact / "model_card.md").read_text(encoding="utf-8")
    succeed(ttl_deploy, "verify", artifact, "--data", "phantom:texture?patients=30&size=32&seed=1")


@pytest.fixture
def grey_search(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "mine.py").write_text(GREY_NETWORK)
    return ("search", "--backbone", "mine:net", "--weights", "none", "--cuts", "3", *COMMON)


@pytest.mark.slow
def test_a_grey_network_trains_and_ships_on_the_mean_of_the_channels(
    ttl_deploy: Run, grey_search: tuple[str, ...], tmp_path: Path
) -> None:
    succeed(ttl_deploy, *grey_search, "--normalise", "0.5/0.25")
    run = tmp_path / "run"
    assert read(run / "weights.json")["note"] == "as built by mine:net"
    trial = read(run / "trials" / "3__full__s0" / "trial.json")
    assert (trial["input"]["mean"], trial["input"]["std"]) == ([0.5], [0.25])
    succeed(ttl_deploy, "export", "run", "--cut", "3")
    artifact = run / "exports" / "3"
    manifest = read(artifact / "manifest.json")
    assert (manifest["input"]["mean"], manifest["weights_note"]) == ([0.5], "as built by mine:net")
    assert "on the mean of red, green and blue" in (artifact / "model_card.md").read_text(encoding="utf-8")
    graph = onnx.load(artifact / "model.onnx").graph
    assert [node.op_type for node in graph.node].count("ReduceMean") >= 1
    report = ttl_deploy("verify", artifact, "--data", "phantom:texture?patients=30&size=32&seed=1", "--json")
    assert report.returncode == 0, report.stderr
    assert json.loads(report.stdout)["parity"]["images"] > 0
    assert json.loads(report.stdout)["parity"]["max_difference"] < 1e-4


@pytest.mark.slow
def test_another_convention_is_another_run(ttl_deploy: Run, grey_search: tuple[str, ...], tmp_path: Path) -> None:
    succeed(ttl_deploy, *grey_search)
    done = ttl_deploy(*grey_search, "--normalise", "zero-one")
    assert done.returncode == 2
    assert "normalise: auto → zero-one" in done.stderr


@pytest.mark.parametrize(("given", "told"), [("imagnet", "did you mean imagenet"), ("128/64", "divide numbers")])
def test_a_convention_that_is_none_is_refused_before_a_folder_is_made(
    ttl_deploy: Run, tmp_path: Path, given: str, told: str
) -> None:
    done = ttl_deploy("search", "--backbone", "resnet18", *COMMON, "--normalise", given)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "run").exists()
