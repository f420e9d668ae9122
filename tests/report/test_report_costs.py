"""What the search cost, as a sentence, a table, a file and a figure; names of a guided search explained."""

import csv
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest

from ttl_deploy.evidence.choice import choose
from ttl_deploy.evidence.front import LabelledSplit, build_front
from ttl_deploy.records.candidates import ALL_EXITS, JOINT, WARM, Candidate
from ttl_deploy.records.probe import Probe, ProbeScore
from ttl_deploy.records.stages import StageCost, StageCosts
from ttl_deploy.records.trials import TrainSettings
from ttl_deploy.report.costs import cost_rows, format_count, format_part, tell_cost
from ttl_deploy.report.guidance_plot import draw_guidance
from ttl_deploy.report.listing import explain_strategies, fit_columns, front_rows
from ttl_deploy.report.page import render_page
from ttl_deploy.report.plots import draw_curves
from ttl_deploy.report.tables import STAGE_COLUMNS, write_stages_csv

PAYLOAD = "<img src=x onerror=alert(1)>&lt;"


def stage(name, macs, *, seconds=None, trials=0, told="it"):
    return StageCost(stage=name, macs=macs, seconds=seconds, trials=trials, told=told)


COSTS = StageCosts(
    stages=(
        stage("profile", 0.0, seconds=12.0),
        stage("probe", 3.0, seconds=4.0, told="=the best"),
        stage("joint", 100.0, seconds=600.0, trials=1),
        stage("confirm", 290.0, seconds=1800.0, trials=4),
        stage("test", 17.0),
    ),
    full_macs=100.0,
    exhaustive_macs=1000.0,
    finished=True,
)


@pytest.fixture(scope="module")
def guided(story):
    """The run as a guided search would tell it: probe, exits of all cuts, the full network and one warm finalist."""
    labels, patients = np.tile([0, 1], 60), np.arange(120) // 2
    generator = np.random.default_rng(0)
    alone = [("features.10", WARM), ("full", "full")]
    predictions = {}
    for cut, strategy in [*((cost.cut, JOINT) for cost in story.profile.cuts), *alone]:
        positive = 1 / (1 + np.exp(0.5 - 1.5 * labels - generator.normal(size=120)))
        predictions[Candidate(cut, strategy)] = {0: np.stack([1 - positive, positive], axis=1)}
    split = LabelledSplit(split="val", labels=labels, patients=patients)
    front = build_front(story.profile, predictions, split, replicates=100)
    scores = {point.cut: point.validation[0] for point in front.points if point.strategy == JOINT}
    probe = Probe(
        cuts=tuple(
            ProbeScore(cut=cut, features=4, cv_auroc=None, validation=score, penalty=1.0)
            for cut, score in scores.items()
        ),
        train_images=10,
        val_images=120,
        macs=3,
        seconds=4.0,
    )
    return replace(
        story, front=front, choice=choose(front, "smallest-within-interval"), probe=probe, stages=COSTS, exports=()
    )


def test_the_sentence_divides_by_one_training_and_by_all(story):
    settings = replace(story.settings, seeds=(0, 1, 2), train=TrainSettings(epochs=10))
    assert tell_cost(COSTS, settings) == (
        "This search cost 4.1 trainings of the full network, 41 % of training every cut on every seed for all "
        "10 epochs."
    )
    several = replace(settings, seeds=(0,), strategies=("full", "l2-sp"), train=TrainSettings(epochs=1))
    assert tell_cost(replace(COSTS, finished=False), several) == (
        "This search has cost 4.1 trainings of the full network so far, 41 % of training every cut by every strategy "
        "for an epoch."
    )


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (1.0, "1"), (4.14, "4.1"), (0.031, "0.031"), (1e-5, "under 0.001"), (123.4, "123.4")]
)
def test_small_numbers_of_trainings_keep_two_digits(count, text):
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (0.346, "35 %"), (1.2, "120 %"), (0.004, "0.4 %"), (1e-6, "under 0.1 %")]
)
def test_shares_are_whole_per_cent_above_one(share, text):
    assert format_part(share) == text


def test_the_rows_add_up_to_the_whole():
    rows = cost_rows(COSTS)
    assert sum(row.full_trainings for row in rows) == pytest.approx(COSTS.macs / COSTS.full_macs) == 4.1
    assert sum(row.exhaustive_share for row in rows) == pytest.approx(0.41)


def test_the_file_has_a_row_per_stage_and_empty_cells_where_nothing_was_taken(tmp_path):
    write_stages_csv(tmp_path / "stages.csv", COSTS)
    with open(tmp_path / "stages.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == STAGE_COLUMNS
    assert [row["stage"] for row in rows] == [one.stage for one in COSTS.stages]
    assert [row["trainings"] for row in rows] == ["0", "0", "1", "4", "0"]
    assert [row["seconds"] for row in rows] == ["12.0", "4.0", "600.0", "1800.0", ""]
    assert float(rows[3]["full_trainings"]) == 2.9
    assert rows[1]["told"] == "'=the best"


def section(page):
    return page[page.index('id="search-cost-title"') : page.index('id="depth-title"')]


def test_the_page_has_a_row_per_stage_and_the_sentence(guided):
    told = section(render_page(guided))
    assert tell_cost(COSTS, guided.settings) in told
    assert [told.index(f'<th scope="row">{one.stage}</th>') for one in COSTS.stages] == sorted(
        told.index(f'<th scope="row">{one.stage}</th>') for one in COSTS.stages
    )
    assert "41 %" in told
    assert "30 min 0 s" in told
    assert 'data-plot="guidance-plot"' in told


def test_a_run_without_stages_has_no_section(story):
    page = render_page(story)
    assert "What the search cost" not in page
    assert "guidance-plot" not in page


def test_an_exhaustive_run_has_the_table_without_the_figure(story):
    told = section(render_page(replace(story, stages=replace(COSTS, stages=COSTS.stages[:1]))))
    assert "counts and times" in told
    assert "guidance-plot" not in told


def test_what_a_stage_told_is_never_markup(guided):
    hostile = replace(COSTS, stages=(stage("probe", 1.0, told=PAYLOAD),))
    page = render_page(replace(guided, stages=hostile))
    assert PAYLOAD not in page
    assert "&lt;img src=x" in page


def test_the_figure_shows_probe_exits_and_single_trainings_where_they_stand(guided):
    plot = draw_guidance(guided)
    go.Figure(plot["data"], plot["layout"])  # plotly refuses what it does not know
    shares = {cost.cut: cost.macs_share for cost in guided.profile.cuts}
    values = {point.candidate: point.validation[0] for point in guided.front.points}
    lines = {trace["name"]: trace for trace in plot["data"] if trace.get("fill") is None}
    exits = lines["exits of the joint network"]
    assert dict(zip(exits["x"], exits["y"], strict=True)) == {shares[cut]: values[cut, JOINT].value for cut in shares}
    assert lines["probe of the frozen backbone"]["y"] == [one.validation.value for one in guided.probe.cuts]
    warm = lines[f"alone, by {WARM}"]
    score = values["features.10", WARM]
    assert (warm["x"], warm["y"]) == ([shares["features.10"]], [score.value])
    assert warm["y"][0] + warm["error_y"]["array"][0] == pytest.approx(score.high)
    assert warm["y"][0] - warm["error_y"]["arrayminus"][0] == pytest.approx(score.low)
    band = next(t for t in plot["data"] if t.get("fill") and t["name"] == exits["name"])
    count = len(shares)
    assert band["y"][:count] == [values[cut, JOINT].high for cut in shares]
    assert band["y"][count:][::-1] == [values[cut, JOINT].low for cut in shares]


def test_a_probe_alone_is_drawn_before_anything_is_trained(guided):
    plot = draw_guidance(replace(guided, front=None, choice=None))
    assert {trace["name"] for trace in plot["data"]} == {"probe of the frozen backbone"}
    assert draw_guidance(replace(guided, front=None, choice=None, probe=None)) is None
    undefined = replace(
        guided.probe.cuts[0].validation, value=None, low=None, high=None, reason="one class", per_class=(None,)
    )
    cuts = tuple(replace(one, validation=undefined) for one in guided.probe.cuts)
    plot = draw_guidance(replace(guided, front=None, choice=None, probe=replace(guided.probe, cuts=cuts)))
    assert [set(trace["y"]) for trace in plot["data"]] == [{None}]


def test_names_in_the_figure_are_cleaned(guided):
    points = tuple(
        replace(p, cut=PAYLOAD, name=PAYLOAD) if p.candidate == guided.choice.candidate else p
        for p in guided.front.points
    )
    cuts = tuple(replace(c, cut=PAYLOAD) if c.cut == guided.choice.cut else c for c in guided.profile.cuts)
    hostile = replace(
        guided,
        front=replace(guided.front, points=points),
        choice=replace(guided.choice, cut=PAYLOAD),
        profile=replace(guided.profile, cuts=cuts),
    )
    texts = [text for trace in draw_guidance(hostile)["data"] for text in (trace["name"], *trace.get("text", ()))]
    assert any("img src" in text for text in texts)
    assert not any("<img" in text for text in texts)


def test_the_two_names_of_a_guided_search_are_explained_where_they_stand(story, guided):
    joint, warm = explain_strategies(guided.front)
    assert joint.startswith("joint: an exit of one network")
    assert warm.startswith("from-joint: trained by itself")
    assert explain_strategies(story.front) == ()
    page = render_page(guided)
    assert page.count("an exit of one network") == 1
    assert "an exit of one network" not in render_page(story)


def test_the_joint_training_is_drawn_as_the_exits_are_named_and_not_as_the_full_network(guided):
    trial = next(one for one in guided.results if one.cut == "full")
    joint = replace(trial, key=f"{ALL_EXITS}__full__s0")
    drawn = replace(
        guided, trials=(*guided.trials, joint), curves={**guided.curves, joint.key: guided.curves[trial.key]}
    )
    (trace,) = [t for t in draw_curves(drawn)["data"] if joint.key in t["hovertemplate"]]
    assert trace["name"] == JOINT


def test_in_the_legend_no_strategy_is_pale_though_it_has_shallow_cuts_only(guided):
    trial = next(one for one in guided.results if one.cut == "features.10")
    warm = replace(trial, key="features.10__from-joint__s0", strategy=WARM)
    curves = {**guided.curves, warm.key: guided.curves[trial.key]}
    plot = draw_curves(replace(guided, trials=(*guided.trials, warm), curves=curves))
    assert {t["name"]: t["opacity"] for t in plot["data"] if t["showlegend"]} == {WARM: 1, "full": 1}


def width_of(listing, gap):
    cells = zip(*(listing.columns, *listing.rows), strict=True)
    return sum(max(map(len, column)) + gap for column in cells)


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160])
def test_rows_fit_the_terminal_as_far_as_columns_can_be_left_out(guided, width):
    whole = front_rows(guided.front, guided.choice)
    fitted, hidden = fit_columns(whole, width=width, gap=3)
    assert width_of(fitted, 3) <= max(width, 57)
    assert {"", "cut", "strategy", "val AUROC"} <= set(fitted.columns)
    assert set(fitted.columns) | set(hidden) == set(whole.columns)
    assert len(fitted.numeric) == len(fitted.columns)
    columns = dict(zip(whole.columns, zip(*whole.rows, strict=True), strict=True))
    for title, cells in zip(fitted.columns, zip(*fitted.rows, strict=True), strict=True):
        assert cells == columns[title]


def test_a_wide_terminal_gets_every_column(guided):
    whole = front_rows(guided.front, guided.choice)
    assert fit_columns(whole, width=400, gap=3) == (whole, ())
