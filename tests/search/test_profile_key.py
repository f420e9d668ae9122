"""The key of a latency changes with everything that changes the latency, and with nothing else."""

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.records.models import FULL, ModelSpec
from ttl_deploy.runtime import machine
from ttl_deploy.search import profile_key
from ttl_deploy.search.profile_key import ProfilePlan, latency_keys

SPEC = ModelSpec(backbone="resnet18", cut="layer2.1", classes=2, image_size=64)
NET = """
import torch
class Scale(torch.nn.Module):
    def forward(self, x):
        return x * {factor}
def build():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), Scale(), torch.nn.Conv2d(4, 4, 3), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(4, 10),
    )
"""


def key(spec: ModelSpec = SPEC, **plan: Any) -> str:
    return latency_keys({"it": spec}, ProfilePlan(**plan))["it"]


BEFORE = key()


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 65},
        {"pool": "max"},
        {"classes": 3},
        {"cut": "layer2.0"},
        {"cut": FULL},
        {"backbone": "resnet34"},
    ],
    ids=str,
)
def test_another_model_has_another_key(change: dict[str, Any]) -> None:
    assert key(replace(SPEC, **change)) != BEFORE


@pytest.mark.parametrize(
    "change", [{"threads": 2}, {"target": "openvino-cpu"}, {"seconds": 2.0}, {"rounds": 5}], ids=str
)
def test_another_plan_has_another_key(change: dict[str, Any]) -> None:
    assert key(**change) != BEFORE


def test_all_cuts_of_a_backbone_have_keys_of_their_own() -> None:
    cuts = list_cuts("mobilenet_v3_small", image_size=64, classes=2)
    specs = {cut.name: ModelSpec(backbone="mobilenet_v3_small", cut=cut.name, classes=2, image_size=64) for cut in cuts}
    assert len(set(latency_keys(specs, ProfilePlan()).values())) == len(cuts)


def test_another_version_of_a_runtime_or_of_our_measurement_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(profile_key, "installed_versions", lambda packages: {"python": "3.11", "onnxruntime": "0.1"})
        assert key() != BEFORE
    with monkeypatch.context() as patch:
        patch.setattr(profile_key, "MEASUREMENT_VERSION", profile_key.MEASUREMENT_VERSION + 1)
        assert key() != BEFORE
    assert key() == BEFORE


def test_another_processor_or_number_of_cores_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = machine.examine_processor()
    for changed in (replace(processor, name="another"), replace(processor, cores=999)):
        with monkeypatch.context() as patch:
            patch.setattr(machine, "examine_processor", lambda root, changed=changed: changed)
            assert key() != BEFORE


def test_host_name_load_and_dropout_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "node", lambda: "another-host")
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 99.0, 99.0))
    assert key(replace(SPEC, dropout=0.5)) == BEFORE


def test_a_key_is_the_same_in_another_process_and_follows_the_users_own_code(tmp_path: Path) -> None:
    code = (
        "from ttl_deploy.records.models import ModelSpec\n"
        "from ttl_deploy.search.profile_key import ProfilePlan, latency_keys\n"
        f"known = {SPEC!r}\n"
        "own = ModelSpec(backbone='net:build', cut='full', classes=2, image_size=16)\n"
        "print(*latency_keys({'known': known, 'own': own}, ProfilePlan()).values())\n"
    )
    found = []
    for factor in (1, 2):
        (tmp_path / "net.py").write_text(NET.format(factor=factor))
        done = subprocess.run(
            [sys.executable, "-B", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())
    (known, own), (known_again, own_again) = found
    assert known == known_again == BEFORE
    assert own != own_again
