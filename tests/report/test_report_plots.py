"""The figures, validated by plotly itself and compared with the records."""

from dataclasses import replace

import plotly.graph_objects as go
import pytest

from ttl_deploy.records.scores import AXES
from ttl_deploy.report.front_plot import draw_front
from ttl_deploy.report.looks import clean_label
from ttl_deploy.report.plots import draw_curves


def marked(plot, axis):
    """Return every point drawn with a marker and a hover text on one axis."""
    traces = [trace for trace in plot["data"] if trace["meta"] == {"axis": axis} and "text" in trace]
    return {text: (x, y) for trace in traces for x, y, text in zip(trace["x"], trace["y"], trace["text"], strict=True)}


def test_plotly_accepts_both_figures(story):
    for plot in (draw_front(story, story.front), draw_curves(story)):
        go.Figure({"data": plot["data"], "layout": plot["layout"]})


@pytest.mark.parametrize(("axis", "unit"), [("macs", 1e6), ("params", 1e6), ("latency_s", 1e-3)])
def test_every_cut_stands_at_its_cost_and_auroc(story, axis, unit):
    drawn = marked(draw_front(story, story.front), axis)
    assert len(drawn) == len(story.front.points)
    for point in story.front.points:
        x, y = next(place for text, place in drawn.items() if text.startswith(f"<b>{point.cut}</b>"))
        assert x == pytest.approx(getattr(point, axis) / unit)
        assert y == point.validation[0].value


def test_error_bars_end_at_the_interval(story):
    points = {point.cut: point for point in story.front.points}
    for trace in draw_front(story, story.front)["data"]:
        if "error_y" not in trace:
            continue
        for i, text in enumerate(trace["text"]):
            score = points[text[3 : text.index("</b>")]].validation[0]
            assert trace["y"][i] + trace["error_y"]["array"][i] == pytest.approx(score.high)
            assert trace["y"][i] - trace["error_y"]["arrayminus"][i] == pytest.approx(score.low)


def test_the_front_line_joins_its_members_by_cost(story):
    for axis in AXES:
        line = next(
            trace
            for trace in draw_front(story, story.front)["data"]
            if trace["meta"] == {"axis": axis} and trace["mode"] == "lines"
        )
        assert line["x"] == sorted(line["x"])
        assert set(line["y"]) == {p.validation[0].value for p in story.front.points if axis in p.on_front}


def test_only_the_first_axis_is_visible_and_an_unmeasured_one_is_missing(story):
    points = tuple(replace(point, latency_s=None, latency_noise_s=None) for point in story.front.points)
    plot = draw_front(story, replace(story.front, points=points))
    assert tuple(plot["axes"]) == ("macs", "params", "size_bytes")
    assert all(trace["visible"] == (trace["meta"] == {"axis": "macs"}) for trace in plot["data"])


def test_widely_spread_costs_are_drawn_on_a_logarithmic_axis(story):
    axes = draw_front(story, story.front)["axes"]
    assert axes["params"]["layout"]["xaxis.type"] == "log"
    assert axes["macs"]["layout"]["xaxis.type"] == "linear"


def test_every_trial_has_a_curve_with_its_epochs(story):
    traces = draw_curves(story)["data"]
    assert len(traces) == len(story.curves)
    by_name = {trace["hovertemplate"].split("</b>")[0][3:]: trace for trace in traces}
    for key, curve in story.curves.items():
        assert by_name[key]["x"] == [line.epoch for line in curve]
        assert by_name[key]["y"] == [line.val_auroc for line in curve]


def test_a_trial_without_any_score_has_no_curve(story):
    key, curve = next(iter(story.curves.items()))
    blank = tuple(replace(line, val_auroc=None) for line in curve)
    assert draw_curves(replace(story, curves={key: blank}))["data"] == []


def test_labels_lose_what_plotly_reads_as_markup():
    assert clean_label('<a href="x">l&amp;</a>') == 'a href="x">lamp;/a>'
