"""The figure of the verdicts: by how much each model's test AUROC differs from the reference's, beside the margin."""

from ttl_deploy.records.scores import Comparison, NonInferiority, PairedDifference, Verdict
from ttl_deploy.report.looks import clean_label
from ttl_deploy.report.numbers import format_difference
from ttl_deploy.report.plots import Plot, make_layout
from ttl_deploy.report.verdicts import format_margin

_COLOURS: dict[Verdict, str] = {"non-inferior": "#2f8f5b", "inconclusive": "#8a949e", "inferior": "#c0392b"}
_MARGIN, _ZERO, _BOUND = "#c0392b", "#7a5fc0", "#6b7785"
_ROW_PX, _FRAME_PX = 30, 120
_TICK_PX = 18


def draw_verdicts(comparison: Comparison) -> Plot | None:
    """Draw a row per model: the paired difference with its interval, and the loss that is excluded.

    That loss is the corrected bound on which the verdict rests: where its tick stands right of the margin, the model
    is non-inferior. The interval is not corrected. None where no difference is defined. `height` is what the rows
    need, in pixels.
    """
    rows = [(one, one.difference) for one in comparison.verdicts if one.difference is not None]
    if not rows:
        return None
    layout = make_layout(x_title="difference in test AUROC", y_title="")
    layout["yaxis"] |= {
        "tickvals": list(range(len(rows))),
        "ticktext": [clean_label(one.model) for one, _ in rows],
        "range": [len(rows) - 0.5, -0.5],
        "showgrid": False,
    }
    layout["shapes"] = [
        _shade(comparison, rows),
        _line(-comparison.margin, _MARGIN, "dash"),
        _line(0, _ZERO, "dot"),
    ]
    traces = [
        *(
            _draw(verdict, [(at, *row) for at, row in enumerate(rows) if row[0].verdict == verdict])
            for verdict in _COLOURS
        ),
        _draw_bounds([(at, one) for at, (one, _) in enumerate(rows)]),
    ]
    drawn = [trace for trace in traces if trace["x"]]
    return {"data": drawn, "layout": layout, "height": _FRAME_PX + _ROW_PX * len(rows)}


def _draw(verdict: Verdict, rows: list[tuple[int, NonInferiority, PairedDifference]]) -> Plot:
    colour = _COLOURS[verdict]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": verdict,
        "x": [gap.value for _, _, gap in rows],
        "y": [at for at, _, _ in rows],
        "error_x": {
            "type": "data",
            "array": [gap.high - gap.value for _, _, gap in rows],
            "arrayminus": [gap.value - gap.low for _, _, gap in rows],
            "thickness": 1.6,
            "width": 4,
            "color": colour,
        },
        "marker": {"size": 9, "color": colour},
        "text": [_hover(one, gap) for _, one, gap in rows],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _draw_bounds(rows: list[tuple[int, NonInferiority]]) -> Plot:
    """Draw the loss from which on each model's is excluded, where any can be claimed."""
    known = [(at, bound) for at, one in rows if (bound := _find_bound(one)) is not None]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "smallest margin",
        "x": [-bound for _, bound in known],
        "y": [at for at, _ in known],
        "marker": {"size": _TICK_PX, "symbol": "line-ns-open", "color": _BOUND, "line": {"width": 2, "color": _BOUND}},
        "text": [f"a loss of {format_margin(bound)} or more is excluded" for _, bound in known],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _find_bound(found: NonInferiority) -> float | None:
    return None if format_margin(found.smallest_margin) == "none" else found.smallest_margin


def _shade(comparison: Comparison, rows: list[tuple[NonInferiority, PairedDifference]]) -> Plot:
    """Shade what counts as worse: from the margin to below everything that is drawn."""
    ends = [gap.low for _, gap in rows]
    ends += [-bound for one, _ in rows if (bound := _find_bound(one)) is not None]
    left = min(-2 * comparison.margin, 1.1 * min(ends))
    return {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": left,
        "x1": -comparison.margin,
        "y0": 0,
        "y1": 1,
        "fillcolor": "rgba(192,57,43,0.10)",
        "line": {"width": 0},
        "layer": "below",
    }


def _line(x: float, colour: str, dash: str) -> Plot:
    stroke = {"color": colour, "width": 1.5, "dash": dash}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": stroke}


def _hover(found: NonInferiority, gap: PairedDifference) -> str:
    return f"<b>{clean_label(found.model)}</b><br>{format_difference(gap)}<br>{found.verdict}"
