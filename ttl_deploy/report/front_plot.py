"""The figure of validation AUROC against cost, as plotly's own JSON: one axis for each cost that was measured.

Names from data and models are cleaned first: plotly reads a subset of HTML in labels. Colours
are mid-tones that stand on light and dark paper alike; text and grid get theirs from the page.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ttl_deploy.evidence.metrics import METRIC_WORDS
from ttl_deploy.records.scores import Axis, Choice, Front, FrontPoint, Metric, Standing
from ttl_deploy.report.file_sizes import BY_FILE_SIZE, find_sizes, stand_by_size
from ttl_deploy.report.front_layers import draw_files, draw_seeds
from ttl_deploy.report.listing import AXIS_WORDS, SPLIT_WORDS, auroc_of
from ttl_deploy.report.looks import Look, clean_label, label_strategy, looks_of
from ttl_deploy.report.numbers import (
    format_bytes,
    format_latency,
    format_quantity,
    format_score,
    format_share,
)
from ttl_deploy.report.plots import Plot, fit_scores, make_layout
from ttl_deploy.report.story import RunStory

_FRONT, _OTHER, _CHOSEN, _REFERENCE = "#2f7fc1", "#7f8b98", "#d9702b", "#7a5fc0"
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


Cost = Literal[Axis, "size_bytes"]
COST_WORDS: dict[Cost, str] = dict([*AXIS_WORDS.items(), ("size_bytes", BY_FILE_SIZE)])
"""The horizontal axes to choose from; of the size of the file no verdicts are known, so its front is drawn from the
scores alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """How a cost axis is drawn: its title, and by how much the SI value is divided."""

    title: str
    unit: float
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawing:
    """One axis: what each candidate, by name, costs on it, and where it stands."""

    axis: Cost
    scale: _Scale
    costs: Mapping[str, float]
    standings: Mapping[str, Standing]
    story: RunStory
    front: Front

    def x(self, point: FrontPoint) -> float:
        return self.costs[point.name] / self.scale.unit


def draw_front(story: RunStory, front: Front) -> Plot:
    """Draw validation AUROC with its intervals against each cost that was measured.

    The traces of one axis carry its name in `meta`, those of a layer that can be switched on its name too, and only the
    first axis without layers is visible. `axes` holds, by axis, the button's label and the layout to apply with it,
    `layers` the switches' labels.
    """
    drawings = [one for axis in COST_WORDS if (one := _prepare(axis, story, front)).costs]
    first = drawings[0]
    traces = [
        {"meta": {"axis": one.axis}, **trace, "visible": one is first and "meta" not in trace}
        for one in drawings
        for trace in (*_draw_axis(one), *_draw_layers(one))
    ]
    axes = {
        one.axis: {
            "label": COST_WORDS[one.axis],
            "layout": {
                "xaxis.title.text": one.scale.title,
                "xaxis.type": one.scale.kind,
                **{f"xaxis.{name}": value for name, value in _ticks(one).items()},
            },
        }
        for one in drawings
    }
    layers = {layer: words for layer, words in _LAYERS.items() if any(layer in trace["meta"] for trace in traces)}
    layout = make_layout(x_title=first.scale.title, y_title="validation AUROC")
    layout["xaxis"] |= {"type": first.scale.kind, **_ticks(first)}
    validation = [auroc_of(point.validation) for point in front.points]
    fit_scores(layout, (end for score in validation for end in (score.value, score.low, score.high)))
    return {"data": traces, "layout": layout, "axes": axes, "layers": layers | _name_precisions(traces)}


def _ticks(drawing: _Drawing) -> Plot:
    """Name the ticks of a logarithmic axis in full: plotly would write 2 and 5 for 0.2 and 0.5."""
    if drawing.scale.kind != "log":
        return {"tickmode": "auto"}
    shown = [cost / drawing.scale.unit for cost in drawing.costs.values() if cost]
    decades = range(math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown))) + 1)
    values = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    return {"tickmode": "array", "tickvals": values, "ticktext": [f"{value:g}" for value in values]}


_LAYERS = {"seeds": "every seed"}


def _name_precisions(traces: list[Plot]) -> dict[str, str]:
    """Return a switch for each precision in which an exported file was measured."""
    found = dict.fromkeys(key for trace in traces for key in trace["meta"] if key.startswith("file "))
    return {key: f"exported file, {key.removeprefix('file ')}" for key in found}


def _draw_layers(drawing: _Drawing) -> list[Plot]:
    axis, unit = drawing.axis, drawing.scale.unit
    seeds = draw_seeds([point for point in drawing.front.points if point.name in drawing.costs], drawing.x)
    layers = [("seeds", trace) for trace in seeds]
    layers += [(f"file {precision}", trace) for precision, trace in draw_files(drawing.story, axis, unit).items()]
    return [{**trace, "meta": {"axis": axis, layer: True}} for layer, trace in layers]


def _prepare(axis: Cost, story: RunStory, front: Front) -> _Drawing:
    costs: Mapping[str, float] = (
        find_sizes(story, front)
        if axis == "size_bytes"
        else {point.name: cost for point in front.points if (cost := getattr(point, axis)) is not None}
    )
    standings = (
        stand_by_size(front, costs)
        if axis == "size_bytes"
        else {point.name: standing for point in front.points if (standing := point.standing(axis))}
    )
    scale = _scale(axis, costs, front.target)
    return _Drawing(axis=axis, scale=scale, costs=costs, standings=standings, story=story, front=front)


def _draw_axis(drawing: _Drawing) -> list[Plot]:
    front = drawing.front
    points = sorted((p for p in front.points if p.name in drawing.costs), key=lambda p: (drawing.costs[p.name], p.macs))
    several = len(front.strategies) > 1
    on = [point for point in points if drawing.standings.get(point.name) == "on the front"]
    line = {
        "type": "scatter",
        "mode": "lines",
        "name": "front",
        "x": [drawing.x(point) for point in on],
        "y": [auroc_of(point.validation).value for point in on],
        "line": {"shape": "hv", "width": 1.5, "color": _OTHER if several else _FRONT, "dash": "dot"},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    marks = [
        _draw_points(
            _STANDING_WORDS[standing],
            [point for point in points if drawing.standings.get(point.name) == standing],
            drawing,
            colour=colour,
            symbol=f"circle{variant}",
        )
        for standing, (variant, colour) in _STANDINGS.items()
    ]
    if several:
        marks = [
            *(
                _draw_strategy([p for p in points if p.strategy == strategy], look, drawing)
                for strategy, look in looks_of(front.strategies).items()
            ),
            *_draw_key(points, drawing),
        ]
    return [trace for trace in (line, *marks, *_draw_rings(points, drawing)) if trace["x"]]


def _draw_points(name: str, points: list[FrontPoint], drawing: _Drawing, *, colour: str, symbol: str) -> Plot:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [drawing.x(point) for point in points],
        "y": [auroc_of(point.validation).value for point in points],
        **_draw_bars(points, points, drawing, colour=colour),
        "marker": {"size": 9, "color": colour, "symbol": symbol, "line": {"width": 1.5, "color": colour}},
        "text": [_describe(point, drawing.story) for point in points],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _draw_strategy(points: list[FrontPoint], look: Look, drawing: _Drawing) -> Plot:
    """Draw the cuts trained by one strategy, joined by a line.

    All strategies stand at the same costs, so that their bars would hide each other: only what is on the front,
    or chosen, has some.
    """
    barred = [
        point
        for point in points
        if drawing.standings.get(point.name) == "on the front" or _is_chosen(point, drawing.story.choice)
    ]
    trace = _draw_points(look.label, points, drawing, colour=look.colour, symbol=look.symbol)
    trace["marker"]["symbol"] = [f"{look.symbol}{_variant(point, drawing)}" for point in points]
    return {
        **trace,
        **_draw_bars(points, barred, drawing, colour=look.colour),
        "mode": "lines+markers",
        "line": {"width": 1.4, "color": look.colour, "dash": look.dash},
    }


def _draw_key(points: list[FrontPoint], drawing: _Drawing) -> list[Plot]:
    """Return entries of the legend alone: what the marks of all strategies say of the candidates' standing."""
    shown = {drawing.standings.get(point.name) for point in points}
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


def _variant(point: FrontPoint, drawing: _Drawing) -> str:
    standing = drawing.standings.get(point.name)
    return "" if standing is None else _STANDINGS[standing][0]


def _draw_bars(points: list[FrontPoint], barred: list[FrontPoint], drawing: _Drawing, *, colour: str) -> Plot:
    """Return the intervals of the `barred` points, and the noise of their latencies; None where there is no bar."""
    scores = [auroc_of(point.validation) if point in barred else None for point in points]
    look = {"type": "data", "thickness": 1.2, "width": 3, "color": colour}
    up = [s and (0.0 if s.high is None or s.value is None else s.high - s.value) for s in scores]
    down = [s and (0.0 if s.low is None or s.value is None else s.value - s.low) for s in scores]
    bars: Plot = {"error_y": {**look, "array": up, "arrayminus": down}}
    if drawing.axis == "latency_s":
        noise = [(p.latency_noise_s or 0.0) / drawing.scale.unit if p in barred else None for p in points]
        bars["error_x"] = {**look, "array": noise}
    return bars


def _draw_rings(points: list[FrontPoint], drawing: _Drawing) -> list[Plot]:
    """Ring the reference and the choice, as far as they stand on this axis."""
    front, choice = drawing.front, drawing.story.choice
    several = len(front.strategies) > 1
    reference = [point for point in points if point.name == front.reference]
    chosen = [point for point in points if _is_chosen(point, choice)]
    return [
        *(
            _draw_ring(
                f"reference: {_label(point, several=True)}" if several else "full network",
                point,
                drawing,
                marker={"size": 15, "symbol": "diamond-open"},
                colour=_REFERENCE,
            )
            for point in reference
        ),
        *(
            _draw_ring(
                f"chosen: {_label(point, several=several)}",
                point,
                drawing,
                marker={"size": 19, "symbol": "circle-open"},
                colour=_CHOSEN,
            )
            for point in chosen
        ),
    ]


def _draw_ring(name: str, point: FrontPoint, drawing: _Drawing, *, marker: Plot, colour: str) -> Plot:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [drawing.x(point)],
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
        *(f"{SPLIT_WORDS[score.split]} {METRIC_WORDS[score.metric]} {format_score(score)}" for score in told),
        *([f"verdict on test: {verdict.verdict}"] if verdict else []),
        *(f"{AXIS_WORDS[one.axis]}: clearly worse than {clean_label(one.by)}" for one in point.dominated_by or ()),
        f"{format_quantity(point.macs)} MACs ({format_share(point.macs_share)} of the full network)",
        f"{format_quantity(point.params)} parameters ({format_share(point.params_share)})",
        f"latency {format_latency(point.latency_s)}",
    ]
    return "<br>".join([*lines, f"ONNX file {format_bytes(profiled.size_bytes)}"] if profiled else lines)


def _scale(axis: Cost, found: Mapping[str, float], target: str) -> _Scale:
    costs = [cost for cost in found.values() if cost]
    kind = "log" if costs and max(costs) > _WIDE_RANGE * min(costs) else "linear"
    if axis == "latency_s":
        return _Scale(title=f"latency on {clean_label(target)} (ms per image)", unit=1e-3, kind=kind)
    if axis == "params":
        return _Scale(title="parameters (millions)", unit=1e6, kind=kind)
    if axis == "size_bytes":
        return _Scale(title="ONNX file (MB of 10⁶ bytes)", unit=1e6, kind=kind)
    unit, title = (1e9, "GMACs per image") if costs and max(costs) >= 1e9 else (1e6, "MMACs per image")
    return _Scale(title=title, unit=unit, kind=kind)


def _is_chosen(point: FrontPoint, choice: Choice | None) -> bool:
    return choice is not None and point.candidate == choice.candidate
