"""The papers' experiments: settings that exist, searches that share, and a rerun that goes on where it was."""

import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main

from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.models.backbones import build_backbone
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.records.data import Reading
from ttl_deploy_cli.main import app
from ttl_deploy_cli.settings import build_settings

NAMES = ["ttl-sweep", "ttl-ways", "transfusion", "transfusion-cbr", "davila"]
WEIGHTS = {False: {"resnet50": "weights.pth"}, True: {"mobilenet_v2": "weights.pth"}}


@pytest.fixture(scope="module")
def read(papers: Any) -> Any:
    """Experiments by whether they are reduced; reading them builds every network, so it is done once."""
    known: dict[bool, Any] = {}

    def read_once(reduced: bool) -> Any:
        if reduced not in known:
            known[reduced] = papers["experiments"].read_experiments(
                "data", reading=Reading(label_col="finding"), weights=WEIGHTS[reduced], reduced=reduced
            )
        return known[reduced]

    return read_once


# ---- settings and plan ----


@pytest.mark.parametrize("reduced", [False, True])
def test_the_public_search_accepts_every_candidate_of_every_experiment(read: Any, reduced: bool) -> None:
    found = read(reduced)
    assert [one.name for one in found] == NAMES
    assert {one.name: (one.left_out, one.cannot) for one in found} == dict.fromkeys(NAMES, ("", {}))


@pytest.mark.parametrize("reduced", [False, True])
def test_what_several_experiments_want_is_trained_once_and_nothing_else_is(
    papers: Any, read: Any, reduced: bool
) -> None:
    experiments = read(reduced)
    plan = papers["plan"].make_plan(experiments)
    trained = Counter(
        (search.settings.backbone, search.settings.split_seed, str(search.settings.train), cut, strategy)
        for search in plan.searches
        for cut in search.settings.cuts
        for strategy in search.settings.strategies
    )
    assert set(trained.values()) == {1}
    wanted = {
        (entrant.backbone, split.split_seed, str(split.train), entrant.cut, entrant.strategy)
        for one in experiments
        for split in one.splits
        for entrant in one.entrants
    }
    assert wanted <= set(trained)
    assert {cut for _, _, _, cut, _ in set(trained) - wanted} <= {"full"}  # a search always trains the whole
    for one in experiments:
        for entrant in one.entrants:
            settings = plan.find(entrant, one.splits[-1]).settings
            assert (settings.backbone, settings.weights) == (entrant.backbone, entrant.weights)
            assert settings.train == one.splits[-1].train
    assert len({search.folder for search in plan.searches}) == len(plan.searches)


@pytest.mark.parametrize("reduced", [False, True])
def test_the_commands_of_the_page_ask_for_the_very_settings_of_the_searches(
    papers: Any, read: Any, reduced: bool
) -> None:
    command = typer.main.get_command(app).commands["search"]
    for search in papers["plan"].make_plan(read(reduced)).searches:
        words = shlex.split(papers["plan"].command_of(search.settings))
        assert words[:2] == ["ttl-deploy", "search"]
        given = command.make_context("search", words[2:], resilient_parsing=True).params
        known = {name: value for name, value in given.items() if value is not None}
        for name in ("out", "device", "executor", "dry_run", "progress", "as_json", "folds", "config"):
            known.pop(name, None)
        asked = build_settings(known)
        own = replace(search.settings, skip=(), data="DATA", weights=asked.weights)
        assert asked == own
        network = next(iter(WEIGHTS[reduced]))
        assert asked.weights == ("none" if search.settings.backbone.startswith("cbr:") else f"{network}.pth")


def test_names_and_files_that_are_none_are_refused_with_the_allowed_ones(papers: Any, tmp_path: Path) -> None:
    read, parse = papers["experiments"].read_experiments, papers["experiments"].parse_weights
    options = {"reading": Reading(), "reduced": True}
    with pytest.raises(
        UnknownNameError, match=r"experiment 'ttl'.*allowed: ttl-sweep, ttl-ways, transfusion, .*davila"
    ):
        read("data", weights=WEIGHTS[True], only=["ttl"], **options)
    with pytest.raises(UnknownNameError, match="network of the reduced experiments 'resnet50': known: mobilenet_v2"):
        read("data", weights=WEIGHTS[False], **options)
    with pytest.raises(UsageError, match="nothing can be run, no weights: give --weights mobilenet_v2=FILE"):
        read("data", weights={}, **options)
    with pytest.raises(UsageError, match=r"--image-size 4: .* 8\.\.2048"):
        read("data", weights=WEIGHTS[True], image_size=4, only=["davila"], **options)
    for text in ("resnet50", f"resnet50={tmp_path / 'missing.pth'}"):
        with pytest.raises(UsageError, match=r"give NAME=FILE, such as resnet50=weights\.pth, a file there is"):
            parse([text])


def test_an_experiment_without_its_weights_is_left_out_alone(papers: Any, tmp_path: Path) -> None:
    own = Path(papers["experiments"].__file__).with_name("experiments.toml").read_text(encoding="utf-8")
    davila = own.index("[davila]")
    path = tmp_path / "experiments.toml"
    path.write_text(own[:davila] + own[davila:].replace('"resnet50"', '"vgg19"', 1), encoding="utf-8")
    found = papers["experiments"].read_experiments(
        "data", reading=Reading(), weights=WEIGHTS[False], reduced=False, only=["transfusion", "davila"], path=path
    )
    assert [one.left_out for one in found] == ["", "no weights: give --weights vgg19=FILE"]
    claims = list(papers["claims"].judge(found[1:], {}))
    assert {claim.verdict for claim in claims} == {"cannot be told"}
    assert {claim.seen for claim in claims} == {"not run: no weights: give --weights vgg19=FILE"}


def test_a_network_that_needs_larger_images_is_left_out_with_the_reason(papers: Any) -> None:
    (found,) = papers["experiments"].read_experiments(
        "data", reading=Reading(), weights=WEIGHTS[True], reduced=True, only=["transfusion-cbr"], image_size=64
    )
    assert {one.backbone for one in found.cannot} == {"cbr:tiny", "cbr:small?kernel=5"}
    assert all("the smallest is --image-size 91" in why for why in found.cannot.values())
    assert [s.settings.backbone for s in papers["plan"].make_plan([found]).searches] == ["mobilenet_v2"]


# ---- published figures ----


def test_published_rows_are_those_of_the_sweeps_cuts_with_our_counts_of_macs(papers: Any) -> None:
    published = papers["published"].read_published()["ttl-sweep"]
    cuts = {cut.name: cut for cut in list_cuts("resnet50", image_size=224, classes=2, pool="avg")}
    assert len(published.figures) == 17
    for figure in published.figures:
        assert figure.share == pytest.approx(cuts[figure.name].macs / cuts["full"].macs, abs=2e-4)


@pytest.mark.parametrize("reduced", [False, True])
def test_every_name_of_a_candidate_is_one_with_published_figures(papers: Any, read: Any, reduced: bool) -> None:
    published = papers["published"].read_published()
    for one in read(reduced):
        known = {figure.name for figure in published[one.name].figures} | {published[one.name].reference}
        named = {entrant.name for entrant in one.entrants if entrant.name}
        unsaid = {"G-LF", "G-FL", "L1-SP", "L2-SP"}  # of which the abstract says nothing
        assert named - known <= unsaid
        assert one.entrants[0].name == published[one.name].reference


def test_a_published_difference_is_of_figures_for_as_many_images(papers: Any) -> None:
    published = papers["published"].read_published()["transfusion"]
    random, gabor = published.figure("random"), published.figure("Gabor")
    assert published.difference(random, few=True) == pytest.approx(92.2 - 94.6)
    assert published.difference(random, few=False) == pytest.approx(96.4 - 96.7)
    assert published.difference(gabor, few=True) is None
    assert (published.value(random, few=True), published.value(random, few=False)) == (92.2, 96.4)


@pytest.mark.slow
def test_a_rerun_on_other_data_prints_its_page_and_goes_on_where_it_was(
    papers: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(build_backbone("mobilenet_v2", image_size=32).state_dict(), tmp_path / "random.pth")
    options = ["--reduced", "--only", "ttl-ways", "--image-size", "32", "--out", str(tmp_path / "out")]
    command = ["--data", "phantom:blob?patients=80", "--weights", f"mobilenet_v2={tmp_path / 'random.pth'}", *options]
    main = papers["reproduce"].main
    assert main([*command, "--dry-run"]) == 0
    planned = capsys.readouterr()
    assert not planned.out
    assert "3 searches with 6 trainings, 0 searches are done" in planned.err
    assert "for the rest on this machine" in planned.err
    assert main(command) == 0
    first = capsys.readouterr()
    assert first.out.startswith("# The papers' experiments, run again\n\n**5 claims: ")
    assert first.out.count("| `features.13` by ") == 2
    assert "the reference | FTL | 84.9 ± 0.1 |" in first.out
    assert main(command) == 0
    again = capsys.readouterr()
    assert "3 searches are done" in again.err
    assert drop_minutes(again.out) == drop_minutes(first.out)


def drop_minutes(page: str) -> list[str]:
    return [line for line in page.splitlines() if "minutes" not in line]
