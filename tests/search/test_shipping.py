"""Which candidate `export` means, and where its artifact lies."""

from dataclasses import replace
from pathlib import Path

import pytest

from ttl_deploy.errors import UnknownNameError
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import Candidate, name_candidates
from ttl_deploy.records.scores import Choice, Front, FrontPoint, Score
from ttl_deploy.records.trials import SearchSettings
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.findings import Found
from ttl_deploy.search.shipping import find_candidate

SCORES = {("a", "full"): 0.8, ("a", "l2-sp"): 0.9, ("b", "full"): 0.95, ("full", "full"): 0.94}


def make_point(name: str, candidate: Candidate, value: float) -> FrontPoint:
    score = Score(
        metric="auroc",
        split="val",
        value=value,
        low=None,
        high=None,
        level=0.95,
        images=10,
        patients=10,
        per_class=(value,),
        defined=1,
        method="",
    )
    return FrontPoint(
        name=name,
        cut=candidate.cut,
        strategy=candidate.strategy,
        params=1,
        macs=1,
        layers=1,
        params_share=1.0,
        macs_share=1.0,
        latency_s=None,
        latency_noise_s=None,
        validation=(score,),
        test=(),
        seeds=(0,),
        seed_values=(value,),
        to_best=None,
        on_front=(),
    )


def make_found(*, chosen: tuple[str, str] | None = ("b", "full")) -> Found:
    candidates = [Candidate(*pair) for pair in SCORES]
    names = name_candidates(candidates)
    front = Front(
        best="b (full)",
        reference="full (full)",
        target="t",
        points=tuple(make_point(names[one], one, SCORES[one]) for one in candidates),
    )
    choice = chosen and Choice(
        cut=chosen[0],
        strategy=chosen[1],
        seed=0,
        rule="best",
        max_latency_s=None,
        max_params=None,
        max_macs=None,
        sentence="",
    )
    return Found(front=front, choice=choice or None)


@pytest.mark.parametrize(
    ("cut", "strategy", "expected"),
    [
        (None, None, ("b", "full")),
        (None, "full", ("b", "full")),
        ("a", "full", ("a", "full")),
        ("a", "l2-sp", ("a", "l2-sp")),
        ("full", None, ("full", "full")),
    ],
)
def test_what_is_named_is_taken_and_the_rest_is_the_choice(
    cut: str | None, strategy: str | None, expected: tuple[str, str]
) -> None:
    assert find_candidate(make_found(), cut, strategy) == (expected, "")


def test_of_several_strategies_the_best_on_validation_is_taken_and_named() -> None:
    found, note = find_candidate(make_found(), "a", None)
    assert found == ("a", "l2-sp")
    assert note == "a by l2-sp, which did best there on validation; with --strategy also full"


@pytest.mark.parametrize(
    ("cut", "strategy", "told"),
    [
        ("c", None, "unknown trained cut 'c': known: a, b, full"),
        ("b", "l2-sp", "unknown trained strategy 'l2-sp': known: full. The cut was b"),
        (None, "scratch", "unknown trained strategy 'scratch': known: full. The cut was b"),
        ("a", "lp-ft", "known: full, l2-sp. The cut was a"),
    ],
)
def test_what_was_not_trained_is_refused_with_what_was(cut: str | None, strategy: str | None, told: str) -> None:
    with pytest.raises(UnknownNameError, match=told):
        find_candidate(make_found(), cut, strategy)


def run_with(tmp_path: Path, *strategies: str) -> RunFolder:
    settings = SearchSettings(backbone="resnet18", data="images")
    codec.save(tmp_path / "config.json", replace(settings, strategies=strategies))
    return RunFolder(tmp_path)


def test_one_strategy_exports_to_a_folder_of_the_cuts_name(tmp_path: Path) -> None:
    run = run_with(tmp_path, "l2-sp?alpha=0.1")
    assert run.export(Candidate("a", "l2-sp?alpha=0.1")) == tmp_path / "exports" / "a"


def test_no_two_candidates_share_a_folder_and_a_teacher_has_its_own(tmp_path: Path) -> None:
    run = run_with(tmp_path, "full", "l2-sp?alpha=0.1&beta=0.2")
    both = [run.export(Candidate("a", strategy)).name for strategy in run.settings().strategies]
    assert both == ["a__full", "a__l2-sp-alpha-0.1-beta-0.2"]
    taught = run_with(tmp_path, "distill")
    assert taught.export(Candidate("full", "distill")).name == "full"
    assert taught.export(Candidate("full", "full")).name == "full__full"
