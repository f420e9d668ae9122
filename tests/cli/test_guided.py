"""The guided search from the probe to an exported exit, killed in between, and without some of its stages."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ttl_deploy.models.torchvision_border import load_torchvision

from .conftest import call, kill_when
from .test_interruption import facts

Run = Callable[..., subprocess.CompletedProcess[str]]
DATA = (
    "--backbone",
    "shufflenet_v2_x0_5",
    "--data",
    "phantom:texture?patients=30&size=32&seed=1",
    "--image-size",
    "32",
)
SEARCH = (
    *("search", *DATA, "--epochs", "2", "--batch-size", "16", "--lr", "3e-3", "--seeds", "0,1", "--workers", "2"),
    *("--profile-seconds", "0.05", "--cuts", "stage2.3,stage3.3,stage3.7", "--warm-start"),
)
CUTS = ("stage2.3", "stage3.3", "stage3.7", "full")
JOINT = "all-exits__full__s0"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a network whose normalisations know its features, as a trained one's do; nothing else in it is learned."""
    torch.manual_seed(0)
    network = load_torchvision().models.shufflenet_v2_x0_5(num_classes=1000)
    for _ in range(40):
        network(torch.randn(16, 3, 32, 32))
    path = tmp_path_factory.mktemp("weights") / "shufflenet.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def run(cache: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished guided search."""
    here = tmp_path_factory.mktemp("guided")
    done = call([*SEARCH, "--weights", str(weights), "-o", "run"], cwd=here, TTL_DEPLOY_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    return here / "run"


def trained(run: Path) -> list[str]:
    return [str(fact["key"]) for fact in facts(run) if str(fact["event"]).startswith("trial_")]


def test_the_joint_training_comes_first_then_the_full_network_and_finalists(run: Path) -> None:
    joint, *alone = trained(run)
    assert joint == JOINT
    assert alone[:2] == ["full__full__s0", "full__full__s1"]
    assert 2 < len(alone) <= 2 * len(CUTS)
    exits = {path.parent.name for path in run.glob("trials/*__joint__s0/result.json")}
    assert exits == {f"{cut}__joint__s0" for cut in CUTS}


def test_the_front_holds_every_exit_beside_what_was_trained_by_itself(ttl_deploy: Run, run: Path) -> None:
    front = json.loads(ttl_deploy("front", run, "--json").stdout)["front"]
    assert {point["cut"] for point in front["points"] if point["strategy"] == "joint"} == set(CUTS)
    assert {point["cut"] for point in front["points"] if point["strategy"] == "full"} == {"full"}
    assert {point["cut"] for point in front["points"] if point["strategy"] == "from-joint"}
    report = ttl_deploy("report", run)
    assert report.returncode == 0, report.stderr


@pytest.mark.slow
def test_an_exit_is_exported_and_makes_the_decisions_of_the_joint_network(ttl_deploy: Run, run: Path) -> None:
    done = ttl_deploy("export", run, "--cut", "stage2.3", "--strategy", "joint", "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert (manifest["model"]["cut"], manifest["strategy"], manifest["model"]["exits"]) == ("stage2.3", "joint", [])
    verified = json.loads(ttl_deploy("verify", run / "exports" / "stage2.3__joint", "--split", "val", "--json").stdout)
    assert verified["parity"]["decisions_flipped"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("probe.safetensors", marks=pytest.mark.slow),
        pytest.param(f"trials/{JOINT}/metrics.jsonl", marks=pytest.mark.slow),
        pytest.param("trials/stage2.3__joint__s0", marks=pytest.mark.slow),
        "trials/*from-joint*/last.ckpt",
    ],
)
def test_a_search_killed_at_any_stage_ends_as_an_uninterrupted_one(
    run: Path, weights: Path, cache: Path, tmp_path: Path, moment: str
) -> None:
    command = [*SEARCH, "--weights", str(weights), "-o", "run"]
    kill_when(lambda: list((tmp_path / "run").glob(moment)), command, cwd=tmp_path, cache=cache)
    again = call(command, cwd=tmp_path, TTL_DEPLOY_CACHE=str(cache))
    assert again.returncode == 0, again.stderr
    assert facts(tmp_path / "run") == facts(run)
    for path in run.glob("trials/*/best.safetensors"):
        assert (tmp_path / path.relative_to(run.parent)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_without_confirmation_and_test_the_joint_network_alone_is_trained_and_the_test_split_stays_closed(
    ttl_deploy: Run, weights: Path, tmp_path: Path
) -> None:
    done = ttl_deploy(*SEARCH, "--weights", weights, "--skip", "confirm,test,profile", "-o", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert trained(tmp_path / "run") == [JOINT]
    front = json.loads(done.stdout)["front"]
    assert {(point["cut"], point["strategy"]) for point in front["points"]} == {(cut, "joint") for cut in CUTS}
    assert all(point["test"] == [] and point["latency_s"] is None for point in front["points"])
    assert "test_opened" not in {fact["event"] for fact in facts(tmp_path / "run")}
    assert ttl_deploy("report", "run").returncode == 0


@pytest.mark.slow
def test_without_the_joint_training_the_probe_names_the_finalists(
    ttl_deploy: Run, weights: Path, tmp_path: Path
) -> None:
    done = ttl_deploy(*SEARCH, "--weights", weights, "--skip", "joint", "-o", "run")
    assert done.returncode == 0, done.stderr
    assert [fact["event"] for fact in facts(tmp_path / "run")].count("probed") == 1
    assert {"full__full__s0", "full__full__s1"} < set(trained(tmp_path / "run"))
    assert JOINT not in trained(tmp_path / "run")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (("--skip", "probe,joint"), "nothing would guide"),
        (("--skip", "joint,confirm"), "nothing would be trained"),
        (("--skip", "prob"), "did you mean probe"),
        (("--skip", "joint", "--policy", "halving"), "no such stage"),
        (("--skip", "profile", "--max-latency", "5ms"), "max_latency"),
        pytest.param(
            ("--strategy", "from-joint", "--skip", "joint", "--weights", "none"),
            "a head at every cut",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_stages_that_cannot_be_left_out_are_refused(ttl_deploy: Run, given: tuple[str, ...], word: str) -> None:
    done = ttl_deploy(*SEARCH, *given)
    assert done.returncode == 2, done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_probe_scores_every_cut_and_trains_nothing(ttl_deploy: Run, tmp_path: Path) -> None:
    done = ttl_deploy("probe", *DATA, "--weights", "none", "--cuts", "stages", "-o", "probe.json", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [score["cut"] for score in found["probe"]["cuts"]] == [cut["name"] for cut in found["cuts"]]
    assert found["cuts"][-1]["name"] == "full"
    assert all(0 <= score["validation"]["value"] <= 1 for score in found["probe"]["cuts"])
    assert json.loads((tmp_path / "probe.json").read_text())["probe"]["cuts"] == found["probe"]["cuts"]
    assert not (tmp_path / "runs").exists()
    table = ttl_deploy("probe", *DATA, "--weights", "none", "--cuts", "stage3.7")
    assert "stage3.7" in table.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "word"),
    [
        (("--cuts", "stage9"), "stage9"),
        pytest.param(("--weights", "nowhere.pth"), "nowhere.pth", marks=pytest.mark.slow),
    ],
)
def test_a_probe_refuses_what_it_cannot_use(ttl_deploy: Run, given: tuple[str, str], word: str) -> None:
    done = ttl_deploy("probe", *DATA, "--weights", "none", *given)
    assert done.returncode == 2 or "weights" in done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_joint_is_no_strategy(ttl_deploy: Run) -> None:
    done = ttl_deploy("search", *DATA, "--strategy", "full,joint")
    assert done.returncode == 2
    assert "--policy guided" in done.stderr
