"""Real radiographs and ImageNet weights, where they lie beside the project."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
SHARED = Path(__file__).resolve().parents[2].parent / "shared"
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the shared data and weights are not here")
QUICK = ("--epochs", "1", "--profile-seconds", "0.1", "-o", "run")


def test_pretrained_features_tell_pneumonia_on_the_official_test_split(ttl_deploy: Run) -> None:
    weights = next((SHARED / "weights").glob("mobilenet_v2-*.pth"))
    data = SHARED / "data" / "cxr_kermany"
    options = ("--cuts", "features.6", "--image-size", "64", "--limit-train", "300", "--lr", "2e-3", "--skip", "joint")
    done = ttl_deploy("search", "--backbone", "mobilenet_v2", "--weights", weights, "--data", data, *options, *QUICK)
    assert done.returncode == 0, done.stderr
    exported = ttl_deploy("export", "run", "--json")
    manifest = json.loads(exported.stdout)
    test = [score for score in manifest["scores"] if (score["split"], score["metric"]) == ("test", "auroc")]
    assert test[0]["images"] == 624
    assert test[0]["value"] > 0.75
    report = json.loads(ttl_deploy("verify", "run", "--data", data, "--json").stdout)
    assert report["parity"]["decisions_flipped"] == 0
    assert report["parity"]["max_difference"] < 1e-4
    assert report["file_scores"][0]["value"] == pytest.approx(test[0]["value"], abs=1e-4)


@pytest.mark.slow
def test_weights_that_end_before_the_full_network_cost_only_the_reference(ttl_deploy: Run) -> None:
    weights = SHARED / "weights" / "resnet18-conv1_to_layer3.pth"
    data = SHARED / "data" / "cxr_kermany_native"
    options = ("--cuts", "layer1,layer2.0", "--image-size", "32", "--json")
    done = ttl_deploy(
        "search", "--backbone", "resnet18", "--weights", weights, "--data", data, *options, *QUICK, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert "there will be no reference" in done.stderr
    assert json.loads(done.stdout)["front"]["reference"] is None
    assert "layer4.0.conv1.weight" in done.stderr


@pytest.mark.slow
def test_a_wanted_cut_that_the_weights_do_not_cover_is_refused(ttl_deploy: Run) -> None:
    weights = SHARED / "weights" / "resnet18-conv1_to_layer3.pth"
    data = SHARED / "data" / "cxr_kermany_native"
    options = ("--cuts", "layer4.0", "--image-size", "32")
    done = ttl_deploy("search", "--backbone", "resnet18", "--weights", weights, "--data", data, *options, *QUICK)
    assert done.returncode == 2
    assert "layer4.0.conv1.weight is missing" in done.stderr
