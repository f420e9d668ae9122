"""The papers' experiments: settings that exist, and verdicts by the stated rules."""

import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ttl_deploy.errors import UsageError
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.records.data import Reading
from ttl_deploy.records.scores import PairedDifference, Score
from ttl_deploy.training.strategies import find_strategy

PAPERS = Path(__file__).resolve().parents[2] / "benchmarks" / "papers"
MODULES = ("experiments", "outcomes", "claims", "page", "shared", "reproduce", "results", "scoring")


@pytest.fixture
def papers(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The scripts' modules, imported as when they are run, and forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [str(PAPERS), *sys.path])
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import claims
    import experiments
    import outcomes
    import page

    found = {"claims": claims, "experiments": experiments, "outcomes": outcomes, "page": page}
    for name in MODULES:
        sys.modules.pop(name, None)
    return found


@pytest.mark.parametrize("reduced", [False, True])
def test_every_cut_and_strategy_of_the_experiments_exists(papers: Any, reduced: bool, tmp_path: Path) -> None:
    weights = dict.fromkeys(("resnet50", "mobilenet_v2"), "weights.pth")
    found = papers["experiments"].read_experiments("data", reading=Reading(), weights=weights, reduced=reduced)
    assert [one.name for one in found] == ["ttl-sweep", "ttl-ways", "ttl-hybrid", "transfusion", "davila"]
    known: dict[tuple[str, int], set[str]] = {}
    for settings in (settings for one in found for settings in one.searches):
        key = (settings.backbone, settings.decode.image_size)
        if key not in known:
            known[key] = {cut.name for cut in list_cuts(key[0], image_size=key[1], classes=2, pool="avg")}
        assert set(settings.cuts) <= known[key]
        assert all(find_strategy(text) for text in settings.strategies)
    assert all(one.searches for one in found) != reduced  # a reduced rerun has no hybrid, and says so
    assert [one.left_out for one in found if not one.searches] == (
        ["hybrids are made of ResNets with bottlenecks and of DenseNets, whose weights are large"] if reduced else []
    )


def test_an_experiment_without_its_weights_says_which_are_missing(papers: Any) -> None:
    found = papers["experiments"].read_experiments("data", reading=Reading(), weights={}, reduced=False)
    assert {one.left_out for one in found} == {"no weights: give --weights resnet50=FILE"}
    with pytest.raises(UsageError, match="give NAME=FILE"):
        papers["experiments"].parse_weights(["resnet50"])


def test_published_rows_are_those_of_the_sweeps_cuts_with_our_counts_of_macs() -> None:
    published = tomllib.loads((PAPERS / "published.toml").read_text())["ttl-sweep"]
    cuts = {cut.name: cut for cut in list_cuts("resnet50", image_size=224, classes=2, pool="avg")}
    for row in published["rows"]:
        assert cuts[row["name"]].macs / 1e9 == pytest.approx(row["gmacs"], abs=6e-4)


def score(value: float) -> Score:
    return Score(
        metric="auroc", split="test", value=value, low=None, high=None, level=0.95, images=9, patients=9,
        per_class=(value,), defined=1, method="",
    )  # fmt: skip # a table of fields


def outcome(papers: Any, rows: list[Any], intervals: dict[tuple[str, str], tuple[float, float]]) -> Any:
    """Make an outcome whose differences to the whole network are given instead of computed."""

    class Given(papers["outcomes"].Outcome):  # type: ignore[misc] # imported by name
        def compare(self, ours: Any, reference: Any) -> list[PairedDifference]:
            low, high = intervals[ours.cut, ours.strategy]
            return [PairedDifference(reference="", value=(low + high) / 2, low=low, high=high, level=0.95)]

    return Given(experiment=None, rows=tuple(rows), runs=())


def row(papers: Any, cut: str, strategy: str = "full", auroc: float = 0.9, macs: float = 1.0, curve: Any = ()) -> Any:
    return papers["outcomes"].Row(
        cut=cut, strategy=strategy, macs_share=macs, params_share=macs / 2, scores=(score(auroc),), curves=(curve,)
    )


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((-0.01, 0.03), "agrees"), ((-0.05, 0.01), "cannot be told"), ((-0.09, -0.03), "does not agree")],
)
def test_a_shallow_cut_is_enough_where_a_loss_of_the_margin_is_excluded(
    papers: Any, interval: tuple[float, float], verdict: str
) -> None:
    rows = [row(papers, "a", auroc=0.5, macs=0.1), row(papers, "b", macs=0.6), row(papers, "full")]
    found = outcome(papers, rows, {("a", "full"): (-0.6, -0.3), ("b", "full"): interval})
    enough, rises = list(papers["claims"].judge({"ttl-sweep": found}))
    assert enough.verdict == verdict
    assert rises.verdict == "agrees"
    assert "from b on, 60% of the MACs" in rises.seen


@pytest.mark.parametrize(
    ("random", "verdict"),
    [((0.5, 0.6, 0.9), "agrees"), ((0.9, 0.9, 0.9), "cannot be told"), ((0.95, 0.9, 0.9), "cannot be told")],
)
def test_who_learns_fastest_is_read_off_the_epochs(papers: Any, random: tuple[float, ...], verdict: str) -> None:
    slow = (0.5, 0.6, 0.7)
    rows = [
        row(papers, "full", "full", curve=(0.9, 0.91, 0.92)),
        row(papers, "full", "scratch", curve=random),
        *(row(papers, "full", name, curve=slow) for name in ("gabor", "mean-var", "transfusion?upto=x")),
    ]
    near = {("full", name): (-0.01, 0.01) for name in ("scratch", "transfusion?upto=x")}
    claims = list(papers["claims"].judge({"transfusion": outcome(papers, rows, near)}))
    assert [claim.verdict for claim in claims] == ["agrees", verdict, "agrees"]
