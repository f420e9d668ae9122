"""Two strategies, two cuts, two seeds, from the search to an exported candidate; one learns from a teacher."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import call, kill_when
from .test_interruption import facts

Run = Callable[..., subprocess.CompletedProcess[str]]
OPTIONS = (
    *("search", "--backbone", "shufflenet_v2_x0_5", "--weights", "none", "--image-size", "32", "--epochs", "1"),
    *("--data", "phantom:texture?patients=30&size=32&seed=1", "--batch-size", "16", "--workers", "2"),
    *("--profile-seconds", "0.05", "--cuts", "stage2.3", "--seeds", "0,1"),
)
SEARCH = (*OPTIONS, "--strategy", "linear-probe,distill?weight=0.5&features=0")
PUPIL = "distill?weight=0.5&features=0"
# The teacher, which was not asked for, comes right before the first whom it teaches.
ORDER = [
    *("full__linear-probe__s0", "full__linear-probe__s1"),
    *("full__full__s0", "full__distill-weight-0.5-features-0__s0"),
    *("full__full__s1", "full__distill-weight-0.5-features-0__s1"),
    *("stage2.3__linear-probe__s0", "stage2.3__linear-probe__s1"),
    *("stage2.3__distill-weight-0.5-features-0__s0", "stage2.3__distill-weight-0.5-features-0__s1"),
]


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished search."""
    here = tmp_path_factory.mktemp("strategies")
    done = call([*SEARCH, "-o", "run"], cwd=here, TTL_DEPLOY_CACHE=str(cache))
    assert done.returncode == 0, done.stderr
    return here / "run"


def trained(run: Path) -> list[str]:
    return [str(fact["key"]) for fact in facts(run) if str(fact["event"]).startswith("trial_")]


@pytest.mark.slow
def test_every_candidate_and_the_teacher_is_trained_once_in_the_order_of_the_plan(run: Path) -> None:
    assert trained(run) == ORDER
    assert {path.name for path in (run / "trials").iterdir()} == set(ORDER)
    teachers = {path.parent.name: json.loads(path.read_text())["teacher"] for path in run.glob("trials/*/trial.json")}
    assert teachers == {key: f"full__full__{key[-2:]}" if "distill" in key else None for key in ORDER}


@pytest.mark.slow
def test_the_front_compares_all_of_them_and_the_tables_say_which_is_which(ttl_deploy: Run, run: Path) -> None:
    front = json.loads(ttl_deploy("front", run, "--json").stdout)["front"]
    names = [point["name"] for point in front["points"]]
    assert names == [
        *("stage2.3 (linear-probe)", f"stage2.3 ({PUPIL})"),
        *("full (linear-probe)", f"full ({PUPIL})", "full (full)"),
    ]
    full = {point["name"]: point["validation"][0]["value"] for point in front["points"] if point["cut"] == "full"}
    assert full[front["reference"]] == max(full.values())
    said = ttl_deploy("front", run).stdout
    assert "front of 5 candidates (2 cuts, 3 strategies)" in said
    assert said.count(PUPIL) >= 2
    with open(run / "front.csv", newline="") as file:
        assert [(row["cut"], row["strategy"]) for row in csv.DictReader(file)] == [
            (point["cut"], point["strategy"]) for point in front["points"]
        ]


@pytest.mark.slow
def test_the_choice_names_a_candidate_and_its_test_split_was_opened(run: Path) -> None:
    chosen = json.loads((run / "chosen.json").read_text())
    assert chosen["sentence"].count(f"{chosen['cut']} ({chosen['strategy']})") >= 1
    front = json.loads((run / "front.json").read_text())
    tested = {(point["cut"], point["strategy"]) for point in front["points"] if point["test"]}
    assert (chosen["cut"], chosen["strategy"]) in tested
    (opening,) = [fact for fact in facts(run) if fact["event"] == "test_opened"]
    opened = {tuple(key.split("__")[:2]) for key in opening["content"]["trials"]}  # type: ignore[index] # JSON
    assert {(cut, strategy.replace("?", "-").replace("=", "-").replace("&", "-")) for cut, strategy in tested} == opened


@pytest.mark.slow
def test_the_report_shows_both_strategies_and_the_teacher(ttl_deploy: Run, run: Path) -> None:
    done = ttl_deploy("report", run)
    assert done.returncode == 0, done.stderr
    page = (run / "report.html").read_text(encoding="utf-8")
    plot = json.loads(page.split('id="front-plot">')[1].split("</script>")[0])
    names = {trace["name"] for trace in plot["data"] if trace["mode"] == "lines+markers"}
    assert names == {"linear-probe", "distill?weight=0.5, features=0", "full"}
    assert "<td>linear-probe</td>" in page


@pytest.mark.slow
def test_a_named_candidate_is_exported_to_a_folder_of_its_own_and_verifies(ttl_deploy: Run, run: Path) -> None:
    done = ttl_deploy("export", run, "--cut", "stage2.3", "--strategy", PUPIL, "--seed", "1", "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert (manifest["strategy"], manifest["seed"], manifest["model"]["cut"]) == (PUPIL, 1, "stage2.3")
    artifact = run / "exports" / "stage2.3__distill-weight-0.5-features-0"
    assert (artifact / "model.onnx").is_file()
    result = json.loads((run / "trials" / ORDER[-1] / "result.json").read_text())
    assert manifest["weights_sha256"] == result["weights_sha256"]
    verified = json.loads(ttl_deploy("verify", artifact, "--json").stdout)
    assert verified["parity"]["decisions_flipped"] == 0
    # Without a strategy the better of the two is taken, and said.
    unnamed = ttl_deploy("export", run, "--cut", "stage2.3", "--json")
    front = json.loads((run / "front.json").read_text())
    values = {p["strategy"]: p["validation"][0]["value"] for p in front["points"] if p["cut"] == "stage2.3"}
    best = max(values, key=lambda strategy: values[strategy])
    assert json.loads(unnamed.stdout)["strategy"] == best
    assert f"stage2.3 by {best}, which did best there on validation" in unnamed.stderr
    assert len(list((run / "exports").iterdir())) == len({PUPIL, best})
    refused = ttl_deploy("export", run, "--cut", "stage2.3", "--strategy", "full")
    assert refused.returncode == 2
    assert "linear-probe" in refused.stderr


@pytest.mark.slow
def test_a_search_killed_while_a_pupil_learns_ends_with_the_ledger_of_an_uninterrupted_one(
    run: Path, cache: Path, tmp_path: Path
) -> None:
    kill_when(
        lambda: list((tmp_path / "run").glob("trials/*distill*/trial.json")),
        [*SEARCH, "-o", "run"],
        cwd=tmp_path,
        cache=cache,
    )
    again = call([*SEARCH, "-o", "run"], cwd=tmp_path, TTL_DEPLOY_CACHE=str(cache))
    assert again.returncode == 0, again.stderr
    assert facts(tmp_path / "run") == facts(run)
    for key in ORDER:
        ours, theirs = (folder / "trials" / key / "best.safetensors" for folder in (tmp_path / "run", run))
        assert ours.read_bytes() == theirs.read_bytes()
