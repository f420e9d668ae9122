"""What a search cost stands behind its front, and the front fits the terminal."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ttl_deploy.records import codec
from ttl_deploy.records.candidates import JOINT, WARM
from ttl_deploy.records.scores import Front, FrontPoint, PairedDifference, Score
from ttl_deploy.records.stages import StageCosts
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.findings import Found
from ttl_deploy.search.stages import describe_stages
from ttl_deploy_cli.tables import print_front

Run = Callable[..., subprocess.CompletedProcess[str]]
SENTENCE = "trainings of the full network"


def make_point(cut: str, strategy: str) -> FrontPoint:
    score = Score(
        metric="auroc",
        split="val",
        value=0.9,
        low=0.8,
        high=0.95,
        level=0.95,
        images=10,
        patients=10,
        per_class=(0.9,),
        defined=1,
        method="",
    )
    return FrontPoint(
        name=f"{cut} ({strategy})",
        cut=cut,
        strategy=strategy,
        params=1000,
        macs=10**6,
        layers=3,
        params_share=0.1,
        macs_share=0.2,
        latency_s=0.001,
        latency_noise_s=None,
        validation=(score,),
        test=(),
        seeds=(0,),
        seed_values=(0.9,),
        to_best=PairedDifference(reference="x", value=-0.1, low=-0.2, high=0.1, level=0.95),
        on_front=("macs", "params", "latency_s"),
    )


def make_guided_front() -> Front:
    cuts = [*(f"features.denseblock{number}.end" for number in range(1, 11)), "full"]
    exits = (make_point(cut, JOINT) for cut in cuts)
    points = (*exits, make_point(cuts[3], WARM), make_point("full", "full"))
    return Front(best="full (full)", reference="full (full)", target="t", points=points)


def test_a_guided_front_has_a_line_per_candidate_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("NO_COLOR", "1"), ("COLUMNS", "80"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
    print_front(make_guided_front(), None)
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if "0.900 [0.800, 0.950]" in line]
    assert len(rows) == 13
    assert max(len(line.rstrip()) for line in rows) <= 80
    assert any(line.startswith("left out, as the terminal is narrow: to the best, params") for line in lines)


def test_a_pipe_gets_all_columns_and_both_names_explained(capsys: pytest.CaptureFixture[str]) -> None:
    print_front(make_guided_front(), None)
    out = capsys.readouterr().out
    assert "left out" not in out
    assert "on front by" in out
    assert "joint: an exit of one network" in out
    assert "from-joint: trained by itself" in out


def test_the_cost_stands_behind_the_front(ttl_deploy: Run, run_folder: Path) -> None:
    done = ttl_deploy("front", run_folder)
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("This search cost ")
    assert SENTENCE in last
    assert (run_folder / "stages.csv").read_text().startswith("stage,trainings,")
    assert SENTENCE in (run_folder / "report.html").read_text(encoding="utf-8")


def test_the_json_has_the_stages_beside_what_it_had(ttl_deploy: Run, run_folder: Path) -> None:
    content = json.loads(ttl_deploy("front", run_folder, "--json", blocked=("torch",)).stdout)
    assert list(content) == ["schema", "record", "front", "choice", "stages"]
    assert codec.from_builtins(Found, {key: content[key] for key in ("front", "choice")}).choice is not None
    assert codec.from_builtins(StageCosts, content["stages"]) == describe_stages(RunFolder(run_folder))
