"""A limit decides before training: what is over it is measured, named, and not trained."""

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ttl_deploy.errors import InfeasibleError
from ttl_deploy.models.cuts import list_cuts, resolve_cuts
from ttl_deploy.records.models import FULL
from ttl_deploy.records.trials import Profile, SearchSettings
from ttl_deploy.search.feasibility import keep_feasible, refuse_by_size
from ttl_deploy.search.profile import describe_costs

Run = Callable[..., subprocess.CompletedProcess[str]]
CUTS = resolve_cuts(["layer1.1", "layer2.1", "layer3.1", FULL], list_cuts("resnet18", image_size=224, classes=2))
LATENCY_S = (0.004, 0.0073, 0.012, 0.02)
PROFILE = Profile(
    target="onnxruntime-cpu",
    runtime="onnxruntime 1.0",
    precision="fp32",
    threads=1,
    batch=1,
    machine="test",
    cuts=tuple(replace(describe_costs(cut), latency_s=s) for cut, s in zip(CUTS, LATENCY_S, strict=True)),
)


def settings(**limits: float) -> SearchSettings:
    return replace(SearchSettings(backbone="resnet18", data="phantom"), **limits)


def kept(**limits: float) -> tuple[list[str], list[str]]:
    notes: list[str] = []
    return [cut.name for cut in keep_feasible(settings(**limits), PROFILE, CUTS, note=notes.append)], notes


def test_cuts_over_the_limit_are_left_out_and_the_full_network_stays_as_the_reference() -> None:
    assert kept(max_latency_s=0.0073) == (
        ["layer1.1", "layer2.1", FULL],
        [
            "over the limit, and not trained: layer3.1, 12 ms per image (64.4 % over). "
            "full, 20 ms per image (2.74 times as much), is trained as the reference only"
        ],
    )


def test_without_a_limit_or_far_below_it_all_are_trained_and_nothing_is_said() -> None:
    for limits in ({}, {"max_latency_s": 1.0, "max_params": 10**9}):
        assert kept(**limits) == ([cut.name for cut in CUTS], [])


def test_a_limit_that_no_cut_meets_names_the_fastest_and_the_shallower_cuts() -> None:
    with pytest.raises(InfeasibleError) as caught:
        kept(max_latency_s=0.001)
    assert str(caught.value) == (
        "no cut answers in at most 1 ms per image: the fastest, layer1.1, takes 4 ms per image (4 times as much). "
        "2 shallower cuts are no candidates yet: name some, such as --cuts maxpool,layer1.0, or all of them with "
        "--cuts all (`ttl-deploy cuts --backbone resnet18 --latency` times them); or raise the limit"
    )


def test_where_there_is_nothing_shallower_it_says_so() -> None:
    cuts = resolve_cuts(["maxpool", FULL], list_cuts("resnet18", image_size=224, classes=2))
    with pytest.raises(InfeasibleError, match=r"the cheapest, maxpool, needs .* These are the shallowest cuts"):
        refuse_by_size(settings(max_macs=1000), cuts)


def test_limits_on_size_are_checked_without_any_latency() -> None:
    refuse_by_size(settings(max_latency_s=1e-9, max_params=10**9), CUTS)
    with pytest.raises(InfeasibleError, match=r"no cut has at most 1 k parameters: the smallest, layer1\.1, has 158 k"):
        refuse_by_size(settings(max_params=1000), CUTS)


@pytest.mark.parametrize(
    ("limit", "figure"),
    [(["--max-latency", "1us"], "the fastest, stage2.3, takes"), (["--max-params", "5"], "stage2.3, has")],
)
def test_an_impossible_limit_ends_with_code_5_before_any_image_is_decoded(
    ttl_deploy: Run, search_arguments: list[str], cache: Path, tmp_path: Path, limit: list[str], figure: str
) -> None:
    fresh = [argument.replace("seed=1", f"seed={len(figure)}") for argument in search_arguments]
    before = {kind: sorted(cache.glob(f"{kind}/*")) for kind in ("pixels", "profiles")}
    done = ttl_deploy(*fresh, *limit, "-o", tmp_path / "run")
    assert done.returncode == 5, done.stderr
    assert figure in done.stderr
    assert "shallower cuts are no candidates yet: name some, such as --cuts" in done.stderr
    assert sorted(cache.glob("pixels/*")) == before["pixels"]
    if limit[0] == "--max-params":
        assert sorted(cache.glob("profiles/*")) == before["profiles"]
    assert not (tmp_path / "run" / "trials").exists()
    assert not (tmp_path / "run" / "ledger.jsonl").exists()


@pytest.mark.slow
def test_only_feasible_cuts_and_the_reference_are_trained(
    ttl_deploy: Run, search_arguments: list[str], tmp_path: Path
) -> None:
    done = ttl_deploy(*search_arguments, "--max-params", "10k", "-o", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("over the limit, and not trained: stage3.7, ") == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines if line["event"].startswith("trial_")] == [
        "full__full__s0",
        "stage2.3__full__s0",
    ]
    profiled = json.loads((tmp_path / "run" / "profile.json").read_text())["cuts"]
    assert [cut["cut"] for cut in profiled] == ["stage2.3", "stage3.7", "full"]
    assert all(cut["latency_s"] > 0 for cut in profiled)
    with open(tmp_path / "run" / "results.csv", newline="") as file:
        status = {row["cut"]: (row["status"], row["reason"]) for row in csv.DictReader(file)}
    assert status["stage3.7"][0] == "over the limit"
    assert "parameters" in status["stage3.7"][1]
    assert status["stage2.3"][0] == status["full"][0] == "finished"
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "1 over the limit and not trained" in page
    assert "Trials that failed" not in page
    again = ttl_deploy("front", tmp_path / "run", "--max-params", "10M", "--pick", "best", "--json")
    assert {point["cut"] for point in json.loads(again.stdout)["front"]["points"]} == {"stage2.3", "full"}


@pytest.mark.slow
def test_trials_in_a_ledger_stay_on_the_front_whatever_the_limit_is_now(
    ttl_deploy: Run, search_arguments: list[str], run_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("front.json", "chosen.json"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"max_params": 10_000}))
    done = ttl_deploy(*search_arguments, "--max-params", "10k", "-o", copy)
    assert done.returncode == 0, done.stderr
    front = json.loads((copy / "front.json").read_text())
    assert [point["cut"] for point in front["points"]] == ["stage2.3", "stage3.7", "full"]
