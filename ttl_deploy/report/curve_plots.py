"""The figures of ROC and reliability curves as plotly's JSON: one class is shown, the page takes another on demand."""

import math

from ttl_deploy.report.looks import clean_label
from ttl_deploy.report.model_curves import ClassCurves, ModelCurves, ReliabilityBin, Role, RunCurves
from ttl_deploy.report.numbers import format_score
from ttl_deploy.report.plots import Plot, make_layout

_COLOURS: dict[Role, str] = {"chosen": "#d9702b", "reference": "#7a5fc0"}
_BANDS: dict[Role, str] = {"chosen": "rgba(217, 112, 43, 0.16)", "reference": "rgba(122, 95, 192, 0.14)"}
_DASHES: dict[Role, str] = {"chosen": "solid", "reference": "dash"}
_SYMBOLS: dict[Role, str] = {"chosen": "circle", "reference": "diamond"}
_EXPORTED = "#2f8f5b"
_DIAGONAL = "#7f8b98"
_LEAST_PX, _MORE_PX = 4, 12


def draw_roc(found: RunCurves) -> Plot:
    """Draw every class's ROC curves with their bands; traces name their class by `meta`, only the first is visible."""
    traces = [
        {**trace, "meta": {"class": str(position)}, "visible": position == 0}
        for model in found.models
        for position, curves in enumerate(model.classes)
        for trace in _draw_roc(model, curves, found)
    ]
    layout = _square("false positive rate (1 − specificity)", "sensitivity")
    return {"data": [_diagonal("chance"), *traces], "layout": layout}


def draw_reliability(found: RunCurves) -> Plot:
    """Draw how often each class came true by what probability it was given; `meta` as in `draw_roc`."""
    traces = [
        {**trace, "meta": {"class": str(position)}, "visible": position == 0}
        for model in found.models
        for position, curves in enumerate(model.classes)
        for trace in _draw_bins(model, curves)
    ]
    layout = _square("mean predicted probability", "share of images that had it")
    return {"data": [_diagonal("perfectly calibrated"), *traces], "layout": layout}


def _draw_roc(model: ModelCurves, curves: ClassCurves, found: RunCurves) -> list[Plot]:
    if curves.roc is None:
        return []
    roc, name = curves.roc, _name(model)
    area = next(score for score in curves.scores if score.metric == "auroc")
    line: Plot = {
        "type": "scatter",
        "mode": "lines",
        "name": f"{model.role}, AUROC {format_score(area)}",
        "legendgroup": model.role,
        "x": list(roc.false),
        "y": list(roc.true),
        "line": {"width": 2.2, "color": _COLOURS[model.role], "dash": _DASHES[model.role]},
        "hovertemplate": f"<b>{name}</b><br>sensitivity %{{y:.3f}}<br>specificity %{{customdata:.3f}}<extra></extra>",
        "customdata": [round(1 - one, 4) for one in roc.false],
    }
    if not roc.grid:
        return [line]
    band: Plot = {
        "type": "scatter",
        "mode": "lines",
        "name": f"{100 * found.level:g} % band of {name}",
        "legendgroup": model.role,
        "showlegend": False,
        "x": [*roc.grid, *reversed(roc.grid)],
        "y": [*roc.high, *reversed(roc.low)],
        "fill": "toself",
        "fillcolor": _BANDS[model.role],
        "line": {"width": 0},
        "hoverinfo": "skip",
    }
    return [band, line]


def _draw_bins(model: ModelCurves, curves: ClassCurves) -> list[Plot]:
    name, colour = _name(model), _COLOURS[model.role]
    look = {"colour": colour, "symbol": _SYMBOLS[model.role], "dash": _DASHES[model.role]}
    drawn = [{**_draw_points(name, curves.bins, **look), "name": model.role}]
    if model.role == "chosen" and curves.exported:
        told = f"exported file, temperature {model.temperature:.3g}"
        drawn.append(_draw_points(told, curves.exported, colour=_EXPORTED, symbol="square-open", dash="dot"))
    return [trace for trace in drawn if trace["x"]]


def _draw_points(name: str, bins: tuple[ReliabilityBin, ...], *, colour: str, symbol: str, dash: str) -> Plot:
    """Draw bins; a mark's area grows with their images, so that one of three images does not look like one of 300."""
    most = max((one.images for one in bins), default=1)
    ups = [0.0 if one.high is None else max(0.0, one.high - one.share) for one in bins]
    downs = [0.0 if one.low is None else max(0.0, one.share - one.low) for one in bins]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [one.probability for one in bins],
        "y": [one.share for one in bins],
        "error_y": {
            "type": "data",
            "array": ups,
            "arrayminus": downs,
            "thickness": 1,
            "width": 2,
            "color": f"{colour}99",
        },
        "cliponaxis": False,
        "line": {"width": 1.2, "color": colour, "dash": dash},
        "marker": {
            "size": [round(_LEAST_PX + _MORE_PX * math.sqrt(one.images / most), 1) for one in bins],
            "color": colour,
            "symbol": symbol,
        },
        "text": [_describe(name, one) for one in bins],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _describe(name: str, one: ReliabilityBin) -> str:
    bounds = "no interval" if one.low is None or one.high is None else f"{one.low:.3f} to {one.high:.3f}"
    lines = (
        f"<b>{name}</b>",
        f"mean probability {one.probability:.3f}",
        f"came true in {one.share:.3f} of {one.images} images ({bounds})",
    )
    return "<br>".join(lines)


def _name(model: ModelCurves) -> str:
    return f"{model.role}: {clean_label(model.key)}"


def _diagonal(name: str) -> Plot:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [0, 1],
        "y": [0, 1],
        "line": {"width": 1.2, "color": _DIAGONAL, "dash": "dot"},
        "hoverinfo": "skip",
    }


def _square(x_title: str, y_title: str) -> Plot:
    layout = make_layout(x_title=x_title, y_title=y_title)
    layout["xaxis"] |= {"range": [-0.02, 1.02], "constrain": "domain"}
    layout["yaxis"] |= {"range": [-0.02, 1.02], "scaleanchor": "x", "constrain": "domain"}
    # Room for the longest legend, so that the two figures beside each other stay equally large.
    layout["margin"] |= {"b": 138}
    bottom: Plot = {"yref": "container", "y": 0, "yanchor": "bottom", "x": 0}
    layout["legend"] = {"orientation": "v", **bottom, "tracegroupgap": 0}
    return layout
