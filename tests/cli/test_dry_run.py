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
    "exhaustive": ("--epochs", "1"),
    "hierarchical": ("--epochs", "1", "--skip", "profile"),
    "halving": ("--epochs", "4", "--skip", "profile,test"),
    "guided": ("--epochs", "3", "--skip", "profile", "--patience", "1", "--seeds", "0,1"),
}


def foretell(*arguments: str, here: Path, cache: Path) -> dict[str, Any]:
    """Forecast a search into `here`, which must be as empty afterwards as before."""
    done = call([*SEARCH, *arguments, "--dry-run", "--json"], cwd=here, TTL_DEPLOY_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    assert list(here.iterdir()) == []
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy", [name if name == "guided" else pytest.param(name, marks=pytest.mark.slow) for name in POLICIES]
)
def test_what_a_search_does_lies_within_its_forecast(policy: str, cache: Path, tmp_path: Path) -> None:
    arguments = ("--policy", policy, *POLICIES[policy], "-o", "run")
    found = foretell(*arguments, here=tmp_path, cache=cache)
    done = call([*SEARCH, *arguments], cwd=tmp_path, TTL_DEPLOY_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    real = describe_stages(RunFolder(tmp_path / "run"))
    assert real is not None
    stages = {stage["stage"]: stage for stage in found["stages"]}
    assert set(stages) - {"profile"} == {stage.stage for stage in real.stages} - {"profile"}
    for stage in real.stages[1:]:  # behind the profile, which trains nothing
        told = stages[stage.stage]
        assert told["trainings"]["least"] <= stage.trials <= told["trainings"]["most"]
        assert told["macs"]["least"] <= stage.macs * 1.000001
        assert stage.macs <= told["macs"]["most"] * 1.000001
    assert found["trainings"]["least"] <= sum(stage.trials for stage in real.stages) <= found["trainings"]["most"]
    assert found["macs"]["least"] <= real.macs * 1.000001 <= found["macs"]["most"] * 1.000002
    assert found["full_macs"] == pytest.approx(real.full_macs)
    assert found["exhaustive_macs"] == pytest.approx(real.exhaustive_macs)
    kept = sum(path.stat().st_size for path in (tmp_path / "run" / "trials").rglob("*.safetensors"))
    assert 0.9 * found["disk"]["trials"]["least"] <= kept <= 1.1 * found["disk"]["trials"]["most"]


def test_people_get_a_plan_with_time_and_disk(ttl_deploy: Run, tmp_path: Path) -> None:
    done = ttl_deploy(*SEARCH, "--dry-run", "--policy", "exhaustive", "--epochs", "1", "--skip", "profile")
    assert done.returncode == 0, done.stderr
    for word in ("confirm", "stage2.3, stage3.3, stage3.7, full", "MACs", "time", "disk", "--dry-run"):
        assert word in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_existing_search_is_named_and_left_as_it_is(ttl_deploy: Run, finished: Path, run_folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")}
    done = ttl_deploy(*SEARCH, "--dry-run", "--epochs", "1", "--skip", "profile", "-o", run_folder)
    assert done.returncode == 0, done.stderr
    assert "goes on" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in run_folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("given", "code"),
    [
        pytest.param(("--data", "nowhere"), 2, marks=pytest.mark.slow),
        pytest.param(("--data", "one.csv"), 3, marks=pytest.mark.slow),
        (("--max-params", "10"), 5),
        pytest.param(("--device", "cuda:77"), 2, marks=pytest.mark.slow),
    ],
)
def test_what_a_search_would_refuse_is_refused_in_the_same_words(
    ttl_deploy: Run, tmp_path: Path, given: tuple[str, ...], code: int
) -> None:
    (tmp_path / "one.csv").write_text("path,label\nnowhere.png,good\n", encoding="utf-8")
    foretold = ttl_deploy(*SEARCH, *given, "--dry-run")
    assert [path.name for path in tmp_path.iterdir()] == ["one.csv"]
    real = ttl_deploy(*SEARCH, *given)
    assert (foretold.returncode, real.returncode) == (code, code), foretold.stderr
    assert foretold.stderr.splitlines()[-1] == real.stderr.splitlines()[-1]
    assert foretold.stderr.splitlines()[-1].startswith("error: ")
