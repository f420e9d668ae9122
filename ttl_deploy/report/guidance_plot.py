"""The figure of what guided a search: probe, exits of the joint network and cuts trained alone, over depth."""

from collections.abc import Iterable, Mapping

from ttl_deploy.records.candidates import JOINT
from ttl_deploy.records.scores import Score
from ttl_deploy.report.listing import auroc_of
from ttl_deploy.report.looks import Look, clean_label, label_strategy, looks_of
from ttl_deploy.report.numbers import format_score, format_share
from ttl_deploy.report.plots import Plot, fit_scores, make_layout
from ttl_deploy.report.story import RunStory

_PROBE = "#8a96a3"
_CHOSEN = "#d9702b"
_BAND = 0.16


def draw_guidance(story: RunStory) -> Plot | None:
    """Draw validation AUROC against the share of the full network's MACs; None where nothing guided.

    The curves of probe and joint training have bands, what was trained alone has bars; both are intervals over
    patients.
    """
    shares = {} if story.profile is None else {cut.cut: cut.macs_share for cut in story.profile.cuts}
    points = () if story.front is None else story.front.points
    looks = looks_of([] if story.front is None else story.front.strategies)
    by_strategy = {
        strategy: {point.cut: auroc_of(point.validation) for point in points if point.strategy == strategy}
        for strategy in looks
    }
    traces = []
    if story.probe is not None:
        probed = {one.cut: one.validation for one in story.probe.cuts}
        look = Look(label="probe of the frozen backbone", colour=_PROBE, symbol="circle", dash="dot")
        traces += _draw_curve(look, probed, shares)
    if JOINT in looks:
        traces += _draw_curve(looks[JOINT], by_strategy[JOINT], shares, label="exits of the joint network")
    if not traces:
        return None
    for strategy, scores in by_strategy.items():
        if strategy != JOINT:
            traces.append(_draw_alone(looks[strategy], scores, shares, label=f"alone, by {label_strategy(strategy)}"))
    if story.front is not None and story.choice is not None:
        chosen = story.front.point_of(*story.choice.candidate)
        traces.append(_draw_chosen(chosen.cut, auroc_of(chosen.validation), shares))
    layout = make_layout(x_title="share of the full network's MACs", y_title="validation AUROC")
    layout["xaxis"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    fit_scores(layout, (value for trace in traces for value in trace["y"]))
    return {"data": traces, "layout": layout}


def _draw_curve(look: Look, scores: Mapping[str, Score], shares: Mapping[str, float], *, label: str = "") -> list[Plot]:
    """Return a line through the cuts' values, and behind it the band of their intervals."""
    known = _in_order(scores, shares)
    bounded = [cut for cut in known if scores[cut].low is not None and scores[cut].high is not None]
    name = label or look.label
    band: Plot = {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "legendgroup": name,
        "showlegend": False,
        "x": [shares[cut] for cut in (*bounded, *reversed(bounded))],
        "y": [*(scores[cut].high for cut in bounded), *(scores[cut].low for cut in reversed(bounded))],
        "fill": "toself",
        "fillcolor": _translucent(look.colour),
        "line": {"width": 0},
        "hoverinfo": "skip",
    }
    line = {
        **_draw_values(known, scores, shares, name=name),
        "mode": "lines+markers",
        "legendgroup": name,
        "line": {"width": 1.8, "color": look.colour, "dash": look.dash},
        "marker": {"size": 6, "color": look.colour, "symbol": look.symbol},
    }
    return [*([band] if bounded else []), line]


def _draw_alone(look: Look, scores: Mapping[str, Score], shares: Mapping[str, float], *, label: str) -> Plot:
    known = _in_order(scores, shares)
    return {
        **_draw_values(known, scores, shares, name=label),
        "mode": "markers",
        "marker": {"size": 10, "color": look.colour, "symbol": look.symbol},
        "error_y": {
            "type": "data",
            "array": [_distance(scores[cut].high, scores[cut].value) for cut in known],
            "arrayminus": [_distance(scores[cut].value, scores[cut].low) for cut in known],
            "thickness": 1.4,
            "width": 5,
            "color": look.colour,
        },
    }


def _draw_values(cuts: list[str], scores: Mapping[str, Score], shares: Mapping[str, float], *, name: str) -> Plot:
    return {
        "type": "scatter",
        "name": name,
        "x": [shares[cut] for cut in cuts],
        "y": [scores[cut].value for cut in cuts],
        "text": [
            f"<b>{clean_label(cut)}</b><br>{name}<br>{format_score(scores[cut])}<br>"
            f"{format_share(shares[cut])} of the full network's MACs"
            for cut in cuts
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _draw_chosen(cut: str, score: Score, shares: Mapping[str, float]) -> Plot:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"chosen: {clean_label(cut)}",
        "x": [shares.get(cut)],
        "y": [score.value],
        "marker": {"size": 19, "symbol": "circle-open", "color": _CHOSEN, "line": {"width": 2.5, "color": _CHOSEN}},
        "hoverinfo": "skip",
    }


def _in_order(cuts: Iterable[str], shares: Mapping[str, float]) -> list[str]:
    """Return the cuts whose cost is known, cheapest first."""
    return sorted((cut for cut in cuts if cut in shares), key=lambda cut: shares[cut])


def _distance(upper: float | None, lower: float | None) -> float:
    return 0.0 if upper is None or lower is None else upper - lower


def _translucent(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {_BAND})"
