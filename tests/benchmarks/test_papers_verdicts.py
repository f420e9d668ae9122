"""The papers' claims are judged by the stated rules, and the page and its picture tell what was found."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ttl_deploy.records.scores import PairedDifference, Score
from ttl_deploy.records.trials import SearchSettings

# ---- verdicts ----


def score(value: float) -> Score:
    return Score(
        metric="auroc", split="test", value=value, low=value - 0.01, high=value + 0.01, level=0.95, images=9,
        patients=9, per_class=(value,), defined=1, method="",
    )  # fmt: skip # a table of fields


Interval = tuple[float, float]


@dataclass(frozen=True)
class Entered:
    """What is made of an entrant: its place in the sweep and what its training came to."""

    name: str
    interval: Interval = (-0.01, 0.01)
    curve: tuple[float, ...] = ()
    cut: str = "full"
    strategy: str = "full"
    macs: float = 1.0
    auroc: float = 0.9
    failure: str = ""


def outcome(papers: Any, *entered: Entered, name: str = "ttl-sweep", images: int = 500) -> Any:
    """Make an outcome whose differences to anything are given by the first named, instead of computed."""

    class Given(papers["outcomes"].Outcome):  # type: ignore[misc] # imported by name
        def compare(self, ours: Any, reference: Any, **_: float) -> list[PairedDifference]:
            low, high = next(
                one.interval for one in entered if (one.name, one.cut) == (ours.entrant.name, ours.entrant.cut)
            )
            return [PairedDifference(reference="", value=(low + high) / 2, low=low, high=high, level=0.95)]

    rows = tuple(
        papers["outcomes"].Row(
            entrant=papers["experiments"].Entrant(
                name=one.name, backbone="b", cut=one.cut, strategy=one.strategy, weights="w"
            ),
            macs_share=one.macs,
            params_share=one.macs / 2,
            steps=30.0,
            scores=() if one.failure else (score(one.auroc),),
            curves=() if one.failure else (one.curve,),
            failure=one.failure,
        )
        for one in entered
    )
    experiment = papers["experiments"].Experiment(
        name=name, paper="P", title="T", source="S", unlike="U", concludes="C", network="b", cannot={},
        entrants=tuple(row.entrant for row in rows), splits=(SETTINGS,),
    )  # fmt: skip # a table of fields
    return Given(experiment=experiment, rows=rows, images=(images,), tested=9)


SETTINGS = SearchSettings(backbone="resnet18", data="some/where/set")


def judge(papers: Any, found: Any) -> dict[str, Any]:
    """Return claims by the beginnings of what they say."""
    claims = papers["claims"].judge([found.experiment], {found.experiment.name: found})
    return {" ".join(claim.said.split()[:3]): claim for claim in claims}


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((-0.01, 0.03), "agrees"), ((-0.05, 0.01), "cannot be told"), ((-0.09, -0.03), "does not agree")],
)
def test_a_shallow_cut_is_enough_where_a_loss_of_the_margin_is_excluded(
    papers: Any, interval: Interval, verdict: str
) -> None:
    sweep = [
        Entered("full"),
        Entered("", interval=(-0.6, -0.3), cut="a", macs=0.1, auroc=0.5),
        Entered("", interval=interval, cut="b", macs=0.6),
    ]
    claims = judge(papers, outcome(papers, *sweep))
    assert claims["a truncated network"].verdict == verdict
    assert claims["scores rise with"].verdict == "agrees"
    assert "from b on, 60% of the MACs" in claims["scores rise with"].seen


@pytest.mark.parametrize(
    ("interval", "equal", "not_worse", "below"),
    [
        ((-0.019, 0.019), "agrees", "agrees", "does not agree"),
        ((-0.015, -0.001), "agrees", "agrees", "does not agree"),
        ((-0.03, -0.001), "cannot be told", "cannot be told", "agrees"),
        ((-0.03, 0.03), "cannot be told", "cannot be told", "cannot be told"),
        ((-0.09, -0.03), "does not agree", "does not agree", "agrees"),
        ((0.03, 0.09), "does not agree", "agrees", "does not agree"),
    ],
)
def test_verdicts_follow_from_where_the_interval_lies(
    papers: Any, interval: Interval, equal: str, not_worse: str, below: str
) -> None:
    ways = [
        Entered("FTL"),
        *(Entered(name, interval=interval) for name in ("TF", "TTL-2", "LWFT-1", "LWFT, all frozen")),
        Entered("FAT", interval=interval, cut="c", strategy="linear-probe"),
        Entered("TTL-1", cut="c"),
    ]
    claims = judge(papers, outcome(papers, *ways, name="ttl-ways"))
    assert claims["TF, with half"].verdict == claims["freezing the lowest"].verdict == equal
    assert claims["truncating (TTL, 86.1"].verdict == not_worse
    assert claims["freezing the truncated"].verdict == claims["freezing all layers"].verdict == below


def test_what_was_not_trained_cannot_be_told_and_the_reason_stands_there(papers: Any) -> None:
    found = outcome(papers, Entered("FT"), Entered("LP", failure="ran out of memory"), name="davila")
    claims = judge(papers, found)
    assert claims["linear probing alone"].seen == "LP: ran out of memory"
    assert claims["LP-FT is better"].seen == "LP-FT is not in this setting"
    assert {claim.verdict for claim in claims.values()} == {"cannot be told"}


def test_two_perfect_scores_are_no_evidence_that_two_are_equal(papers: Any) -> None:
    ways = [Entered(name, auroc=1.0) for name in ("FTL", "TF")]
    found = outcome(papers, *ways, name="ttl-ways")
    real = papers["outcomes"].Outcome(experiment=found.experiment, rows=found.rows, images=(500,))
    claim = judge(papers, real)["TF, with half"]
    assert claim.verdict == "cannot be told"
    assert claim.seen == "both rank every test image right, so nothing could differ"


@pytest.mark.parametrize(
    ("random", "verdict"),
    [((0.5, 0.6, 0.9), "agrees"), ((0.9, 0.9, 0.9), "cannot be told"), ((float("nan"), 0.6, 0.7), "agrees")],
)
def test_who_learns_fastest_is_read_off_the_epochs(papers: Any, random: tuple[float, ...], verdict: str) -> None:
    slow = (0.5, 0.6, 0.7)
    rows = [
        Entered("transfer", curve=(0.9, 0.91, 0.92)),
        Entered("random", curve=random),
        Entered("Slim", curve=(0.6, 0.9, 0.9)),
        *(Entered(name, curve=slow) for name in ("Gabor", "Mean-Var")),
    ]
    claims = judge(papers, outcome(papers, *rows, name="transfusion"))
    fastest = claims["transfer learns faster"]
    assert fastest.verdict == verdict
    assert "transfer 0 to 30 steps, random " in fastest.seen
    assert claims["Slim learns about"].verdict == "agrees"  # an epoch more
    assert claims["Gabor filters in"].verdict == ("cannot be told" if random[-1] < 0.8 else "does not agree")


@pytest.mark.parametrize(("images", "few", "many"), [(500, True, False), (50_000, False, False), (10**6, False, True)])
def test_a_claim_about_few_or_many_images_is_judged_with_as_many_only(
    papers: Any, images: int, few: bool, many: bool
) -> None:
    rows = [Entered("transfer"), Entered("random", interval=(-0.1, -0.05))]
    claims = judge(papers, outcome(papers, *rows, name="transfusion", images=images))
    assert (claims["with few images"].verdict == "agrees") == few
    assert (claims["with many images"].verdict == "does not agree") == many
    assert ("training images here are not" in claims["with few images"].seen) != few


@pytest.mark.parametrize(
    ("sizes", "seen", "verdict"),
    [
        ({"CBR-LargeT, random": 0.7, "CBR-Tiny, random": 0.3}, "70% of the parameters", "agrees"),
        ({"CBR-Small, random": 0.5, "CBR-Tiny, random": 1.9}, "50% of the parameters", "agrees"),
        ({"CBR-Tiny, random": 1.9}, "is not smaller than b here", "cannot be told"),
        ({}, "no CBR network could be trained", "cannot be told"),
    ],
)
def test_small_against_large_is_judged_of_a_network_that_is_smaller(
    papers: Any, sizes: dict[str, float], seen: str, verdict: str
) -> None:
    rows = [Entered("ResNet-50, transfer", macs=2.0), *(Entered(name, macs=2 * size) for name, size in sizes.items())]
    claim = judge(papers, outcome(papers, *rows, name="transfusion-cbr"))["a small network"]
    assert seen in claim.seen
    assert claim.verdict == verdict


# ---- all of it ----


# ---- page and picture ----


@pytest.fixture
def rendered(papers: Any) -> tuple[str, Any]:
    sweep = [
        Entered("full", auroc=0.995),
        Entered("", interval=(-0.3, -0.2), cut="a", macs=0.1, auroc=0.5),
        Entered("", interval=(-0.01, 0.03), cut="b", macs=0.6, auroc=0.995),
    ]
    found = outcome(papers, *sweep)
    missing = replace(found.experiment, name="davila", left_out="no weights: give --weights b=FILE", entrants=())
    experiments, outcomes = (found.experiment, missing), {"ttl-sweep": found}
    claims = tuple(papers["claims"].judge(experiments, outcomes))
    text = papers["page"].render(experiments, outcomes, claims, reduced=True, command="COMMAND", minutes=2.0)
    return text, found


def test_the_page_begins_with_the_counts_and_puts_published_beside_own(rendered: tuple[str, Any]) -> None:
    text, _ = rendered
    assert text.splitlines()[2] == "**4 claims: 2 agree, 0 do not, 2 cannot be told.**"
    assert "**A reduced setting**" in text
    assert "Data: set, 2 classes." in text
    # layer2.3 and layer3.1 are k = 8 and 10; 0.6 of the MACs is nearest to 2.404 / 4.087 = 58.8 %.
    assert (
        "| 60% (30%) | 99.5 [98.5, 100.5] | +1.0 [-1.0, +3.0] | layer3.1 (59% of the MACs) | 86.1 ± 0.77 | +1.2 |"
        in text
    )
    assert "| -25.0 [-30.0, -20.0] | layer1.0 (9% of the MACs) | 70.25 ± 1.35 | -14.6 | above ours |" in text
    assert "The reference has 99.5 here: so near to 100" in text
    assert "Not run: no weights: give --weights b=FILE." in text
    assert "ttl-deploy search --backbone b --data DATA" in text


def test_the_picture_has_a_mark_with_its_interval_for_every_cut(papers: Any, rendered: tuple[str, Any]) -> None:
    _, found = rendered
    picture = ET.fromstring(papers["picture"].draw(found))
    space = "{http://www.w3.org/2000/svg}"
    titles = [element.text for element in picture.iter(f"{space}title")]
    assert len(titles) == 16 + 2
    assert "b: +1.0 [-1.0, +3.0]" in titles
    assert "layer3.1: +1.2 [+0.4, +2.0]" in titles
    width, height = (float(number) for number in picture.attrib["viewBox"].split()[2:])
    for mark in (*picture.iter(f"{space}circle"), *picture.iter(f"{space}rect")):
        x, y = (float(mark.get("cx") or mark.get("x") or 0), float(mark.get("cy") or mark.get("y") or 0))
        assert 0 <= x <= width
        assert 0 <= y <= height
    assert "prefers-color-scheme: dark" in "".join(element.text or "" for element in picture.iter(f"{space}style"))
