"""The report's figures as plotly's own JSON; the page draws them, so nothing here imports plotly.

Names from data and models are cleaned first: plotly reads a subset of HTML in labels. Colours
are mid-tones that stand on light and dark paper alike; text and grid get theirs from the page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ttl_deploy.records.scores import METRICS, Axis, Choice, Front, FrontPoint
from ttl_deploy.records.trials import CutProfile, EpochRecord, Profile
from ttl_deploy.report.depth import Growth, growths, name_stages, seen_shares
from ttl_deploy.report.listing import AXIS_WORDS, METRIC_WORDS, auroc_of
from ttl_deploy.report.numbers import (
    format_bytes,
    format_latency,
    format_quantity,
    format_score,
    format_share,
)
from ttl_deploy.report.story import RunStory

Plot = dict[str, Any]
_FRONT, _OTHER, _CHOSEN, _REFERENCE = "#2f7fc1", "#8a96a3", "#d9702b", "#7a5fc0"
_SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up"}
_LEGEND_CUTS = 12
_WIDE_RANGE = 30  # costs that differ by more than this factor are drawn on a logarithmic axis


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """How a cost axis is drawn: its title, and by how much the SI value is divided."""

    title: str
    unit: float
    kind: str


def clean_label(text: str) -> str:
    """Strip what plotly would read as markup from a name."""
    return text.replace("<", "").replace("&", "")


def draw_front(story: RunStory, front: Front) -> Plot:
    """Draw validation AUROC with its intervals against each cost that was measured.

    The traces of one axis carry its name as `meta`, and only the first axis is visible; `axes` holds,
    by axis, the button's label and the layout to apply with it.
    """
    scales = {axis: _scale(axis, front) for axis in AXIS_WORDS if any(_cost(axis, point) for point in front.points)}
    first = next(iter(scales))
    traces = [
        {**trace, "meta": axis, "visible": axis == first}
        for axis, scale in scales.items()
        for trace in _draw_axis(axis, scale, story, front)
    ]
    axes = {
        axis: {"label": AXIS_WORDS[axis], "layout": {"xaxis.title.text": scale.title, "xaxis.type": scale.kind}}
        for axis, scale in scales.items()
    }
    layout = _layout(x_title=scales[first].title, y_title="validation AUROC")
    layout["xaxis"]["type"] = scales[first].kind
    return {"data": traces, "layout": layout, "axes": axes}


def draw_curves(story: RunStory) -> Plot:
    """Draw each trial's validation AUROC by epoch, one colour per cut, shallow to deep; best epochs are ringed."""
    drawn = {key: curve for key, curve in story.curves.items() if any(line.val_auroc is not None for line in curve)}
    cut_of = {trial.key: trial.cut for trial in story.trials}
    cuts = _cuts_by_depth(story, {cut_of[key] for key in drawn if key in cut_of})
    colours = {cut: _colour(i, len(cuts)) for i, cut in enumerate(cuts)}
    best = {trial.key: trial.best_epoch for trial in story.results}
    order = sorted((key for key in drawn if key in cut_of), key=lambda key: (cuts.index(cut_of[key]), key))
    traces = [
        {
            **_draw_curve(key, drawn[key], colour=colours[cut_of[key]], best=best.get(key)),
            "name": clean_label(cut_of[key]),
            "legendgroup": cut_of[key],
            "showlegend": cut_of[key] not in {cut_of[earlier] for earlier in order[:i]},
        }
        for i, key in enumerate(order)
    ]
    layout = _layout(x_title="epoch", y_title="validation AUROC")
    layout["xaxis"]["tickformat"] = "d"
    layout["xaxis"]["rangemode"] = "normal"
    layout["showlegend"] = len(cuts) <= _LEGEND_CUTS
    return {"data": traces, "layout": layout}


def draw_depth(profile: Profile) -> Plot:
    """Draw what share of the full network's costs each cut has, and below it how much of the image it sees."""
    cuts = profile.cuts
    seen = seen_shares(cuts, profile.image_size)
    texts = [_describe_costs(cut, share) for cut, share in zip(cuts, seen, strict=True)]
    traces = [_draw_growth(one, texts) for one in growths(cuts)]
    ticks = name_stages(cuts)
    layout = _layout(x_title="depth, shallow to deep", y_title="share of the full network")
    layout["xaxis"] |= {
        "tickvals": list(ticks),
        "ticktext": [clean_label(name) for name in ticks.values()],
        "range": [-0.5, len(cuts) - 0.5],
    }
    layout["yaxis"] |= {"tickformat": ".0%", "rangemode": "tozero"}
    if any(share is not None for share in seen):
        traces.append(_draw_seen(seen, texts))
        layout["yaxis"]["domain"] = [0.36, 1]
        layout["yaxis2"] = {
            **layout["yaxis"],
            "domain": [0, 0.26],
            "title": {"text": "share of<br>the side"},
            "range": [0, 1.05],
            "nticks": 4,
        }
        layout["xaxis"]["anchor"] = "y2"
    return {"data": traces, "layout": layout}


def _draw_growth(one: Growth, texts: list[str]) -> Plot:
    trace: Plot = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": one.name,
        "x": list(range(len(one.shares))),
        "y": list(one.shares),
        "line": {"width": 1.8, "color": one.colour},
        "marker": {"size": 5, "color": one.colour, "symbol": _SYMBOLS[one.marker]},
        "text": texts,
        "hovertemplate": "%{text}<extra></extra>",
    }
    if any(one.noise):
        noise = [0.0 if noise is None else noise for noise in one.noise]
        trace["error_y"] = {"type": "data", "array": noise, "thickness": 1.2, "width": 3, "color": one.colour}
    return trace


def _draw_seen(seen: Sequence[float | None], texts: list[str]) -> Plot:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "receptive field",
        "x": list(range(len(seen))),
        "y": list(seen),
        "yaxis": "y2",
        "fill": "tozeroy",
        "fillcolor": "rgba(125, 79, 158, 0.15)",
        "line": {"width": 1.8, "color": "#7d4f9e"},
        "text": texts,
        "hovertemplate": "%{text}<extra></extra>",
    }


def _describe_costs(cut: CutProfile, seen: float | None) -> str:
    noise = "" if cut.latency_noise_s is None else f", noise {format_latency(cut.latency_noise_s)}"
    lines = [
        f"<b>{clean_label(cut.cut)}</b>",
        f"{format_quantity(cut.macs)} MACs ({format_share(cut.macs_share)} of the full network)",
        f"{format_quantity(cut.params)} parameters ({format_share(cut.params_share)})",
        f"latency {format_latency(cut.latency_s)}{noise}",
    ]
    if seen is not None:
        lines.append(f"one position sees {cut.receptive_field} pixels, {format_share(seen)} of the image's side")
    return "<br>".join(lines)


def _draw_axis(axis: Axis, scale: _Scale, story: RunStory, front: Front) -> list[Plot]:
    points = sorted((p for p in front.points if _cost(axis, p) is not None), key=lambda p: (_cost(axis, p), p.macs))
    on = [point for point in points if axis in point.on_front]
    off = [point for point in points if axis not in point.on_front]
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "front",
        "x": [_x(axis, scale, point) for point in on],
        "y": [auroc_of(point.validation).value for point in on],
        "line": {"shape": "hv", "width": 1.5, "color": _FRONT, "dash": "dot"},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    marks = [
        _draw_points("on the front", on, axis, scale, story, colour=_FRONT, symbol="circle"),
        _draw_points("other cuts", off, axis, scale, story, colour=_OTHER, symbol="circle-open"),
    ]
    rings = [
        _draw_ring("full network", [p for p in points if p.cut == front.reference], axis, scale, _REFERENCE),
        _draw_ring("chosen", [p for p in points if _is_chosen(p, story.choice)], axis, scale, _CHOSEN),
    ]
    return [trace for trace in (line, *marks, *rings) if trace["x"]]


def _draw_points(
    name: str, points: list[FrontPoint], axis: Axis, scale: _Scale, story: RunStory, *, colour: str, symbol: str
) -> Plot:
    scores = [auroc_of(point.validation) for point in points]
    up = [0.0 if s.high is None or s.value is None else s.high - s.value for s in scores]
    down = [0.0 if s.low is None or s.value is None else s.value - s.low for s in scores]
    trace: Plot = {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [_x(axis, scale, point) for point in points],
        "y": [score.value for score in scores],
        "error_y": {"type": "data", "array": up, "arrayminus": down, "thickness": 1.2, "width": 3, "color": colour},
        "marker": {"size": 9, "color": colour, "symbol": symbol, "line": {"width": 1.5, "color": colour}},
        "text": [_describe(point, story) for point in points],
        "hovertemplate": "%{text}<extra></extra>",
    }
    if axis == "latency_s":
        noise = [(point.latency_noise_s or 0.0) / scale.unit for point in points]
        trace["error_x"] = {"type": "data", "array": noise, "thickness": 1.2, "width": 3, "color": colour}
    return trace


def _draw_ring(name: str, points: list[FrontPoint], axis: Axis, scale: _Scale, colour: str) -> Plot:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": f"{name}: {clean_label(points[0].cut)}" if points and name == "chosen" else name,
        "x": [_x(axis, scale, point) for point in points],
        "y": [auroc_of(point.validation).value for point in points],
        "marker": {
            "size": 19 if name == "chosen" else 15,
            "symbol": "circle-open" if name == "chosen" else "diamond-open",
            "color": colour,
            "line": {"width": 2.5, "color": colour},
        },
        "hoverinfo": "skip",
    }


def _draw_curve(key: str, curve: tuple[EpochRecord, ...], *, colour: str, best: int | None) -> Plot:
    name = clean_label(key)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [line.epoch for line in curve],
        "y": [line.val_auroc for line in curve],
        "line": {"width": 1.8, "color": colour},
        "marker": {
            "size": [10 if line.epoch == best else 4 for line in curve],
            "symbol": ["circle-open" if line.epoch == best else "circle" for line in curve],
            "color": colour,
            "line": {"width": [2 if line.epoch == best else 0 for line in curve], "color": colour},
        },
        "text": [f"<b>{name}</b><br>epoch {line.epoch}<br>train loss {line.train_loss:.4g}" for line in curve],
        "hovertemplate": "%{text}<br>validation AUROC %{y:.4f}<extra></extra>",
    }


def _describe(point: FrontPoint, story: RunStory) -> str:
    profiled = story.cost(point.cut)
    lines = [
        f"<b>{clean_label(point.cut)}</b>",
        *(
            f"{score.split} {METRIC_WORDS[score.metric]} {format_score(score)}"
            for metric in METRICS
            for score in (*point.validation, *point.test)
            if score.metric == metric
        ),
        f"{format_quantity(point.macs)} MACs ({format_share(point.macs_share)} of the full network)",
        f"{format_quantity(point.params)} parameters ({format_share(point.params_share)})",
        f"latency {format_latency(point.latency_s)}",
    ]
    return "<br>".join([*lines, f"ONNX file {format_bytes(profiled.size_bytes)}"] if profiled else lines)


def _scale(axis: Axis, front: Front) -> _Scale:
    costs = [cost for point in front.points if (cost := _cost(axis, point))]
    kind = "log" if max(costs) > _WIDE_RANGE * min(costs) else "linear"
    if axis == "latency_s":
        return _Scale(title=f"latency on {clean_label(front.target)} (ms per image)", unit=1e-3, kind=kind)
    if axis == "params":
        return _Scale(title="parameters (millions)", unit=1e6, kind=kind)
    unit, title = (1e9, "GMACs per image") if max(costs) >= 1e9 else (1e6, "MMACs per image")
    return _Scale(title=title, unit=unit, kind=kind)


def _layout(*, x_title: str, y_title: str) -> Plot:
    line: Plot = {"gridcolor": "#d5dbe1", "zeroline": False, "automargin": True}
    return {
        "xaxis": {**line, "title": {"text": x_title}},
        "yaxis": {**line, "title": {"text": y_title}},
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#3a4550"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "#22303c", "bordercolor": "#22303c", "font": {"color": "#ffffff"}, "align": "left"},
    }


def _cost(axis: Axis, point: FrontPoint) -> float | None:
    cost: float | None = getattr(point, axis)
    return cost


def _x(axis: Axis, scale: _Scale, point: FrontPoint) -> float:
    return float(getattr(point, axis)) / scale.unit


def _is_chosen(point: FrontPoint, choice: Choice | None) -> bool:
    return choice is not None and point.cut == choice.cut


def _cuts_by_depth(story: RunStory, cuts: set[str]) -> list[str]:
    order: Mapping[str, int] = {cost.cut: i for i, cost in enumerate(story.profile.cuts)} if story.profile else {}
    return sorted(cuts, key=lambda cut: (order.get(cut, len(order)), cut))


def _colour(position: int, count: int) -> str:
    """Return a hue between teal (shallow) and orange (deep)."""
    share = position / max(1, count - 1)
    return f"hsl({190 - round(165 * share)}, 62%, 46%)"
