"""The figure of validation AUROC against cost, as plotly's own JSON: one axis for each cost that was measured.

Names from data and models are cleaned first: plotly reads a subset of HTML in labels. Colours
are mid-tones that stand on light and dark paper alike; text and grid get theirs from the page.
"""

from dataclasses import dataclass

from ttl_deploy.evidence.metrics import METRIC_WORDS
from ttl_deploy.records.scores import Axis, Choice, Front, FrontPoint, Metric, Standing
from ttl_deploy.report.listing import AXIS_WORDS, auroc_of
from ttl_deploy.report.looks import Look, clean_label, label_strategy, looks_of
from ttl_deploy.report.numbers import (
    format_bytes,
    format_latency,
    format_quantity,
    format_score,
    format_share,
)
from ttl_deploy.report.plots import Plot, make_layout
from ttl_deploy.report.story import RunStory

_FRONT, _OTHER, _CHOSEN, _REFERENCE = "#2f7fc1", "#8a96a3", "#d9702b", "#7a5fc0"
_STANDINGS: dict[Standing, tuple[str, str]] = {
    "on the front": ("", _FRONT),
    "not clearly worse": ("-open-dot", _FRONT),
    "clearly worse": ("-open", _OTHER),
    "off the front": ("-open", _OTHER),
}
"""The variant of a mark, and its colour where strategies have none."""
_STANDING_WORDS: dict[Standing, str] = {
    "on the front": "on the front",
    "not clearly worse": "off it, but not clearly worse",
    "clearly worse": "clearly worse than another",
    "off the front": "off the front",
}
_TOLD: tuple[Metric, ...] = ("auroc", "auprc", "accuracy")
"""What a hover text names of the validation split; the page's tables hold the rest."""
_WIDE_RANGE = 30  # costs that differ by more than this factor are drawn on a logarithmic axis


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """How a cost axis is drawn: its title, and by how much the SI value is divided."""

    title: str
    unit: float
    kind: str


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
    layout = make_layout(x_title=scales[first].title, y_title="validation AUROC")
    layout["xaxis"]["type"] = scales[first].kind
    return {"data": traces, "layout": layout, "axes": axes}


def _draw_axis(axis: Axis, scale: _Scale, story: RunStory, front: Front) -> list[Plot]:
    points = sorted((p for p in front.points if _cost(axis, p) is not None), key=lambda p: (_cost(axis, p), p.macs))
    several = len(front.strategies) > 1
    on = [point for point in points if axis in point.on_front]
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "front",
        "x": [_x(axis, scale, point) for point in on],
        "y": [auroc_of(point.validation).value for point in on],
        "line": {"shape": "hv", "width": 1.5, "color": _OTHER if several else _FRONT, "dash": "dot"},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    marks = [
        _draw_points(
            _STANDING_WORDS[standing],
            [point for point in points if point.standing(axis) == standing],
            axis,
            scale,
            story,
            colour=colour,
            symbol=f"circle{variant}",
        )
        for standing, (variant, colour) in _STANDINGS.items()
    ]
    if several:
        marks = [
            *(
                _draw_strategy([p for p in points if p.strategy == strategy], look, axis, scale, story)
                for strategy, look in looks_of(front.strategies).items()
            ),
            *_draw_key(points, axis),
        ]
    rings = _draw_rings(points, axis, scale, story.choice, front)
    return [trace for trace in (line, *marks, *rings) if trace["x"]]


def _draw_points(
    name: str, points: list[FrontPoint], axis: Axis, scale: _Scale, story: RunStory, *, colour: str, symbol: str
) -> Plot:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [_x(axis, scale, point) for point in points],
        "y": [auroc_of(point.validation).value for point in points],
        **_draw_bars(points, points, axis, scale, colour=colour),
        "marker": {"size": 9, "color": colour, "symbol": symbol, "line": {"width": 1.5, "color": colour}},
        "text": [_describe(point, story) for point in points],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _draw_strategy(points: list[FrontPoint], look: Look, axis: Axis, scale: _Scale, story: RunStory) -> Plot:
    """Draw the cuts trained by one strategy, joined by a line.

    All strategies stand at the same costs, so that their bars would hide each other: only what is on the front,
    or chosen, has some.
    """
    barred = [point for point in points if axis in point.on_front or _is_chosen(point, story.choice)]
    trace = _draw_points(look.label, points, axis, scale, story, colour=look.colour, symbol=look.symbol)
    trace["marker"]["symbol"] = [f"{look.symbol}{_variant(point, axis)}" for point in points]
    return {
        **trace,
        **_draw_bars(points, barred, axis, scale, colour=look.colour),
        "mode": "lines+markers",
        "line": {"width": 1.4, "color": look.colour, "dash": look.dash},
    }


def _draw_key(points: list[FrontPoint], axis: Axis) -> list[Plot]:
    """Return entries of the legend alone: what the marks of all strategies say of the candidates' standing."""
    shown = {point.standing(axis) for point in points}
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": _STANDING_WORDS[standing],
            "x": [None],
            "y": [None],
            "marker": {
                "size": 9,
                "color": _OTHER,
                "symbol": f"circle{variant}",
                "line": {"width": 1.5, "color": _OTHER},
            },
            "hoverinfo": "skip",
        }
        for standing, (variant, _) in _STANDINGS.items()
        if standing in shown
    ]


def _variant(point: FrontPoint, axis: Axis) -> str:
    standing = point.standing(axis)
    return "" if standing is None else _STANDINGS[standing][0]


def _draw_bars(points: list[FrontPoint], barred: list[FrontPoint], axis: Axis, scale: _Scale, *, colour: str) -> Plot:
    """Return the intervals of the `barred` points, and the noise of their latencies; None where there is no bar."""
    scores = [auroc_of(point.validation) if point in barred else None for point in points]
    look = {"type": "data", "thickness": 1.2, "width": 3, "color": colour}
    up = [s and (0.0 if s.high is None or s.value is None else s.high - s.value) for s in scores]
    down = [s and (0.0 if s.low is None or s.value is None else s.value - s.low) for s in scores]
    bars: Plot = {"error_y": {**look, "array": up, "arrayminus": down}}
    if axis == "latency_s":
        noise = [(p.latency_noise_s or 0.0) / scale.unit if p in barred else None for p in points]
        bars["error_x"] = {**look, "array": noise}
    return bars


def _draw_rings(points: list[FrontPoint], axis: Axis, scale: _Scale, choice: Choice | None, front: Front) -> list[Plot]:
    """Ring the reference and the choice, as far as they stand on this axis."""
    several = len(front.strategies) > 1
    reference = [point for point in points if point.name == front.reference]
    chosen = [point for point in points if _is_chosen(point, choice)]
    return [
        *(
            _draw_ring(
                f"reference: {_label(point, several=True)}" if several else "full network",
                point,
                axis,
                scale,
                marker={"size": 15, "symbol": "diamond-open"},
                colour=_REFERENCE,
            )
            for point in reference
        ),
        *(
            _draw_ring(
                f"chosen: {_label(point, several=several)}",
                point,
                axis,
                scale,
                marker={"size": 19, "symbol": "circle-open"},
                colour=_CHOSEN,
            )
            for point in chosen
        ),
    ]


def _draw_ring(name: str, point: FrontPoint, axis: Axis, scale: _Scale, *, marker: Plot, colour: str) -> Plot:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [_x(axis, scale, point)],
        "y": [auroc_of(point.validation).value],
        "marker": {**marker, "color": colour, "line": {"width": 2.5, "color": colour}},
        "hoverinfo": "skip",
    }


def _label(point: FrontPoint, *, several: bool) -> str:
    cut = clean_label(point.cut)
    return f"{cut} ({label_strategy(point.strategy)})" if several else cut


def _describe(point: FrontPoint, story: RunStory) -> str:
    profiled = story.cost(point.cut)
    strategies = () if story.front is None else story.front.strategies
    verdict = None if story.front is None else story.front.verdict(point.name)
    told = [
        *(score for score in point.validation if score.metric in _TOLD),
        *([auroc_of(point.test)] if point.test else []),
    ]
    lines = [
        f"<b>{clean_label(point.cut)}</b>",
        *([f"by {label_strategy(point.strategy)}"] if len(strategies) > 1 else []),
        *(f"{score.split} {METRIC_WORDS[score.metric]} {format_score(score)}" for score in told),
        *([f"on test {verdict.verdict}"] if verdict else []),
        *(f"{AXIS_WORDS[one.axis]}: clearly worse than {clean_label(one.by)}" for one in point.dominated_by or ()),
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


def _cost(axis: Axis, point: FrontPoint) -> float | None:
    cost: float | None = getattr(point, axis)
    return cost


def _x(axis: Axis, scale: _Scale, point: FrontPoint) -> float:
    return float(getattr(point, axis)) / scale.unit


def _is_chosen(point: FrontPoint, choice: Choice | None) -> bool:
    return choice is not None and point.candidate == choice.candidate
