"""The report of several strategies: a column, a line, a colour and a name for each, for two and for many."""

import csv
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest

from ttl_deploy.evidence.choice import choose
from ttl_deploy.evidence.front import LabelledSplit, add_test_scores, build_front, pareto_members
from ttl_deploy.records.candidates import Candidate
from ttl_deploy.records.scores import AXES
from ttl_deploy.records.trials import TrialResult
from ttl_deploy.report.front_plot import draw_front
from ttl_deploy.report.listing import front_rows
from ttl_deploy.report.looks import label_strategy, looks_of
from ttl_deploy.report.page import render_page
from ttl_deploy.report.plots import draw_curves
from ttl_deploy.report.tables import FRONT_COLUMNS, write_front_csv

STRATEGIES = ("full", "linear-probe", "lp-ft?probe=0.3", "l2-sp", "lwft?freeze=features.4&decay=10", "<b>own&amp;")


def predict(story, split, candidates, *, seed):
    """Draw predictions of every candidate and seed; later strategies are a little worse."""
    generator = np.random.default_rng(seed)
    labels, patients = np.tile([0, 1], 60), np.arange(120) // 2
    depth = {cost.cut: i for i, cost in enumerate(story.profile.cuts)}
    predictions = {}
    for cut, strategy in candidates:
        strength = 0.8 + 0.35 * depth[cut] - 0.12 * STRATEGIES.index(strategy)
        positive = {s: 1 / (1 + np.exp(0.5 - strength * labels - generator.normal(size=120))) for s in (0, 1)}
        predictions[Candidate(cut, strategy)] = {s: np.stack([1 - one, one], axis=1) for s, one in positive.items()}
    return predictions, LabelledSplit(split=split, labels=labels, patients=patients)


def spread(story, count):
    """Return the story as a search over `count` strategies would tell it."""
    strategies = STRATEGIES[:count]
    candidates = [(cost.cut, strategy) for cost in story.profile.cuts for strategy in strategies]
    front = build_front(
        story.profile, *predict(story, "val", candidates, seed=1), strategies=strategies, replicates=100
    )
    opened = [front.point(name).candidate for name in dict.fromkeys([*pareto_members(front), front.reference])]
    front = add_test_scores(front, *predict(story, "test", opened, seed=2), replicates=100)
    trials = tuple(
        replace(trial, key=f"{trial.cut}__{i}__s{trial.seed}", strategy=strategy)
        for i, strategy in enumerate(strategies)
        for trial in story.trials
    )
    curves = {
        trial.key: next(c for key, c in story.curves.items() if key.startswith(f"{trial.cut}__"))
        for trial in trials
        if isinstance(trial, TrialResult)
    }
    return replace(
        story,
        settings=replace(story.settings, strategies=strategies),
        front=front,
        choice=choose(front, "smallest-within-interval"),
        trials=trials,
        curves=curves,
    )


@pytest.fixture(scope="module", params=[2, 6])
def many(request, story):
    return spread(story, request.param)


def strategy_traces(plot, axis):
    return [t for t in plot["data"] if t["meta"] == {"axis": axis} and t["mode"] == "lines+markers"]


def test_plotly_accepts_the_figures(many):
    for plot in (draw_front(many, many.front), draw_curves(many)):
        go.Figure({"data": plot["data"], "layout": plot["layout"]})


@pytest.mark.parametrize(("axis", "unit"), [("macs", 1e6), ("params", 1e6), ("latency_s", 1e-3)])
def test_each_strategy_is_a_line_of_its_own_look_through_its_cuts(many, axis, unit):
    traces = strategy_traces(draw_front(many, many.front), axis)
    strategies = many.settings.strategies
    assert [trace["name"] for trace in traces] == [label_strategy(strategy) for strategy in strategies]
    looks = [(t["line"]["color"], t["marker"]["symbol"][0].partition("-open")[0]) for t in traces]
    assert len(set(looks)) == len(strategies)
    for trace, strategy in zip(traces, strategies, strict=True):
        points = sorted((p for p in many.front.points if p.strategy == strategy), key=lambda p: getattr(p, axis))
        assert trace["x"] == pytest.approx([getattr(point, axis) / unit for point in points])
        assert trace["y"] == [point.validation[0].value for point in points]
        for text, point in zip(trace["text"], points, strict=True):
            assert text.startswith(f"<b>{point.cut}</b><br>by {label_strategy(strategy)}<br>")


def test_marks_are_filled_and_have_bars_where_they_are_on_the_front(many):
    plot = draw_front(many, many.front)
    for axis in AXES:
        for trace, strategy in zip(strategy_traces(plot, axis), many.settings.strategies, strict=True):
            points = sorted((p for p in many.front.points if p.strategy == strategy), key=lambda p: getattr(p, axis))
            for i, point in enumerate(points):
                variant = trace["marker"]["symbol"][i].partition("-open")[1:]
                expected = {"on the front": ("", ""), "not clearly worse": ("-open", "-dot")}
                assert variant == expected.get(point.standing(axis), ("-open", ""))
                barred = axis in point.on_front or point.candidate == many.choice.candidate
                assert (trace["error_y"]["array"][i] is not None) == barred
                if barred:
                    score = point.validation[0]
                    assert trace["y"][i] + trace["error_y"]["array"][i] == pytest.approx(score.high)
                    assert trace["y"][i] - trace["error_y"]["arrayminus"][i] == pytest.approx(score.low)


def test_the_legend_says_what_the_marks_of_all_strategies_mean(many):
    for axis in AXES:
        key = [
            t["name"] for t in draw_front(many, many.front)["data"] if t["meta"] == {"axis": axis} and t["x"] == [None]
        ]
        standings = {point.standing(axis) for point in many.front.points}
        assert len(key) == len(standings) > 1
        assert key[0] == "on the front"


def test_the_front_line_joins_the_members_of_all_strategies(many):
    for axis in AXES:
        plot = draw_front(many, many.front)
        line = next(t for t in plot["data"] if t["meta"] == {"axis": axis} and t["mode"] == "lines")
        assert set(line["y"]) == {p.validation[0].value for p in many.front.points if axis in p.on_front}


def test_reference_and_choice_are_ringed_and_named(many):
    plot = draw_front(many, many.front)
    marks = [t for t in plot["data"] if t["meta"] == {"axis": "macs"} and t["mode"] == "markers" and t["x"] != [None]]
    rings = {t["name"]: (t["x"], t["y"]) for t in marks}
    reference = many.front.point(many.front.reference)
    chosen = many.front.point_of(*many.choice.candidate)
    expected = {
        f"{word}: {point.cut} ({label_strategy(point.strategy)})": (
            [pytest.approx(point.macs / 1e6)],
            [point.validation[0].value],
        )
        for word, point in (("reference", reference), ("chosen", chosen))
    }
    assert rings == expected


def test_curves_have_the_colours_of_their_strategies_and_one_legend_entry_each(many):
    plot = draw_curves(many)
    front_looks = {t["name"]: t["line"]["color"] for t in strategy_traces(draw_front(many, many.front), "macs")}
    assert len(plot["data"]) == len(many.curves)
    assert {(t["name"], t["line"]["color"]) for t in plot["data"]} == set(front_looks.items())
    shown = [t for t in plot["data"] if t["showlegend"]]
    assert sorted(t["name"] for t in shown) == sorted(front_looks)
    assert {t["opacity"] for t in shown} == {1}
    assert plot["layout"]["showlegend"]


def test_more_strategies_than_colours_still_look_different():
    looks = looks_of([f"s{i}" for i in range(30)])
    assert len({(one.colour, one.symbol, one.dash) for one in looks.values()}) == 30


def test_the_terminal_has_a_column_of_strategies_only_where_there_are_several(story, many):
    assert "strategy" not in front_rows(story.front, story.choice).columns
    listing = front_rows(many.front, many.choice)
    rows = [dict(zip(listing.columns, row, strict=True)) for row in listing.rows]
    assert [(row["cut"], row["strategy"]) for row in rows] == [point.candidate for point in many.front.points]
    assert [(row["cut"], row["strategy"]) for row in rows if row[""]] == [many.choice.candidate]
    assert not listing.numeric[listing.columns.index("strategy")]


def test_the_csv_always_says_the_strategy(tmp_path, story, many):
    for told in (story, many):
        write_front_csv(tmp_path / "front.csv", told.front)
        with open(tmp_path / "front.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert tuple(rows[0]) == FRONT_COLUMNS
        assert [(row["cut"], row["strategy"]) for row in rows] == [point.candidate for point in told.front.points]
        (best,) = [row for row in rows if row["best"] == "yes"]
        (reference,) = [row for row in rows if row["reference"] == "yes"]
        assert (best["cut"], best["strategy"]) == told.front.point(told.front.best).candidate
        assert (reference["cut"], reference["strategy"]) == told.front.point(told.front.reference).candidate


def test_the_page_marks_one_row_as_chosen_and_names_its_strategy(story, many):
    page = render_page(many)
    tables = page[page.index('id="cuts-title"') : page.index('id="choice-title"')]
    assert tables.count('<tr class="chosen">') == 3  # scores, costs, more scores
    assert tables.count(">Strategy</th>") == 3
    assert f"by {many.choice.strategy}, seed" in page
    assert "A colour, a mark and a line for each strategy" in page
    one = render_page(story)
    assert "Strategy</th>" not in one
    assert "strategy" not in one[one.index("<body") : one.index('id="data-title"')]
