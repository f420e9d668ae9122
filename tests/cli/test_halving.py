"""A halving search from the first rung to the choice, and killed in between."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import call, kill_when
from .test_interruption import facts

Run = Callable[..., subprocess.CompletedProcess[str]]
SEARCH = (
    *("search", "--backbone", "shufflenet_v2_x0_5", "--weights", "none", "--policy", "halving", "--seeds", "0,1"),
    *("--data", "phantom:texture?patients=30&size=32&seed=1", "--image-size", "32", "--batch-size", "16"),
    *("--cuts", "stage2.3,stage3.3,stage3.7", "--epochs", "4", "--workers", "2", "--profile-seconds", "0.05"),
)


pytestmark = pytest.mark.slow  # the policy itself is in tests/contracts/test_policies.py


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished halving search."""
    here = tmp_path_factory.mktemp("halving")
    done = call([*SEARCH, "-o", "run"], cwd=here, TTL_DEPLOY_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    return here / "run"


def keys(run: Path, event: str) -> list[str]:
    return [str(fact["key"]) for fact in facts(run) if fact["event"] == event]


def test_half_of_the_cuts_goes_on_after_each_rung_and_the_full_network_always(run: Path) -> None:
    rests = keys(run, "trial_paused")
    assert [sum(key.endswith(f"@{epoch}") for key in rests) for epoch in (1, 2)] == [4, 3]
    assert {"full__full__s0@1", "full__full__s0@2"} <= set(rests)
    ended = keys(run, "trial_finished")
    assert len(ended) == 4
    assert {"full__full__s0", "full__full__s1"} <= set(ended)


def test_those_that_rest_for_ever_are_on_no_front_and_the_report_is_made(ttl_deploy: Run, run: Path) -> None:
    front = json.loads(ttl_deploy("front", run, "--json").stdout)["front"]
    assert {point["cut"] for point in front["points"]} == {
        key.partition("__")[0] for key in keys(run, "trial_finished")
    }
    report = ttl_deploy("report", run)
    assert report.returncode == 0, report.stderr


@pytest.mark.parametrize("moment", ["trials/*/metrics.jsonl", "trials/*/predictions_val-epoch2.npz"])
def test_a_halving_search_that_was_killed_ends_as_an_uninterrupted_one(
    run: Path, cache: Path, tmp_path: Path, moment: str
) -> None:
    kill_when(lambda: list((tmp_path / "run").glob(moment)), [*SEARCH, "-o", "run"], cwd=tmp_path, cache=cache)
    again = call([*SEARCH, "-o", "run"], cwd=tmp_path, TTL_DEPLOY_CACHE=str(cache))
    assert again.returncode == 0, again.stderr
    assert facts(tmp_path / "run") == facts(run)
