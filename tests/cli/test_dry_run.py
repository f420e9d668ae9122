"""`search --dry-run`: the forecast holds what a real search then does, and leaves nothing behind."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.stages import describe_stages

from .conftest import call

Run = Callable[..., subprocess.CompletedProcess[str]]
SEARCH = (
    *("search", "--backbone", "shufflenet_v2_x0_5", "--weights", "none", "--image-size", "32", "--batch-size", "16"),
    *("--data", "phantom:texture?patients=30&size=32&seed=1", "--cuts", "stage2.3,stage3.3,stage3.7"),
    *("--workers", "2", "--profile-seconds", "0.05", "--lr", "3e-3"),
)
POLICIES = {
    "exhaustive": ("--epochs", "2"),
    "hierarchical": ("--epochs", "2"),
    "halving": ("--epochs", "4", "--seeds", "0,1"),
    "guided": ("--epochs", "3", "--patience", "1", "--seeds", "0,1"),
}


def foretell(*arguments: str, here: Path, cache: Path) -> dict[str, Any]:
    """Forecast a search into `here`, which must be as empty afterwards as before."""
    done = call([*SEARCH, *arguments, "--dry-run", "--json"], cwd=here, TTL_DEPLOY_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    assert list(here.iterdir()) == []
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("policy", POLICIES)
def test_what_a_search_does_lies_within_its_forecast(policy: str, cache: Path, tmp_path: Path) -> None:
    arguments = ("--policy", policy, *POLICIES[policy], "-o", "run")
    found = foretell(*arguments, here=tmp_path, cache=cache)
    done = call([*SEARCH, *arguments], cwd=tmp_path, TTL_DEPLOY_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    real = describe_stages(RunFolder(tmp_path / "run"))
    assert real is not None
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert set(stages) == {stage.stage for stage in real.stages}
    for stage in real.stages:
        told = stages[stage.stage]
        assert told["trainings"]["least"] <= stage.trials <= told["trainings"]["most"]
        assert told["macs"]["least"] <= stage.macs * 1.000001
        assert stage.macs <= told["macs"]["most"] * 1.000001
    assert found["trainings"]["least"] <= sum(stage.trials for stage in real.stages) <= found["trainings"]["most"]
    assert found["macs"]["least"] <= real.macs * 1.000001 <= found["macs"]["most"] * 1.000002
    assert found["full_macs"] == pytest.approx(real.full_macs)
    assert found["exhaustive_macs"] == pytest.approx(real.exhaustive_macs)


def test_weights_and_predictions_of_a_search_are_no_more_than_foretold(cache: Path, tmp_path: Path) -> None:
    arguments = ("--policy", "exhaustive", "--epochs", "1", "-o", "run")
    disk = foretell(*arguments, here=tmp_path, cache=cache)["disk"]
    assert call([*SEARCH, *arguments], cwd=tmp_path, TTL_DEPLOY_CACHE=str(cache)).returncode == 0
    kept = sum(path.stat().st_size for path in (tmp_path / "run" / "trials").rglob("*.safetensors"))
    assert disk["trials"]["least"] == disk["trials"]["most"]
    assert 0.9 * kept <= disk["trials"]["most"] <= 1.1 * kept


def test_people_get_a_plan_with_time_and_disk(ttl_deploy: Run, tmp_path: Path) -> None:
    done = ttl_deploy(*SEARCH, "--dry-run", "--policy", "exhaustive", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    for word in ("confirm", "stage2.3, stage3.3, stage3.7, full", "MACs", "time", "disk", "--dry-run"):
        assert word in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_existing_search_is_named_and_left_as_it_is(ttl_deploy: Run, finished: Path, run_folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")}
    done = ttl_deploy(*SEARCH, "--dry-run", "--epochs", "1", "-o", run_folder)
    assert done.returncode == 0, done.stderr
    assert "goes on" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("given", "code", "word"),
    [
        (("--cuts", "stage9"), 2, "stage9"),
        (("--policy", "nonsense"), 2, "nonsense"),
        (("--data", "nowhere"), 3, "nowhere"),
        (("--weights", "nowhere.pth"), 2, "nowhere.pth"),
        (("--max-params", "10"), 5, "at most"),
        (("--device", "cuda:77"), 2, "cuda:77"),
    ],
)
def test_what_a_search_would_refuse_is_refused(
    ttl_deploy: Run, tmp_path: Path, given: tuple[str, ...], code: int, word: str
) -> None:
    done = ttl_deploy(*SEARCH, "--epochs", "1", "--dry-run", *given)
    real = ttl_deploy(*SEARCH, "--epochs", "1", *given, cwd=tmp_path, TTL_DEPLOY_X="")
    assert (done.returncode, real.returncode) == (code, code), done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr
