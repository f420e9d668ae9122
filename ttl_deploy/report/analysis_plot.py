"""Similarity against depth, as in the papers on layer reuse (Raghu et al. 2019; Peng et al. 2021)."""

from typing import Any

from ttl_deploy.records.analysis import PAIR_WORDS, Analysis, LayerSimilarity, Pair
from ttl_deploy.report.analysis_listing import find_noise
from ttl_deploy.report.looks import clean_label
from ttl_deploy.report.plots import Plot, make_layout

MEASURES = {"svcca": "SVCCA", "cka": "debiased CKA"}
_LOOKS: dict[Pair, tuple[str, str]] = {
    "full-start": ("#0072b2", "solid"),
    "cut-start": ("#d55e00", "solid"),
    "cut-full": ("#009e73", "solid"),
    "full-random": ("#8a6fc2", "dash"),
    "cut-random": ("#8a6fc2", "dash"),
    "random-random": ("#8a949e", "dash"),
}
_NAMES: dict[Pair, str] = {
    "full-start": "full network, before and after",
    "cut-start": "truncated model, before and after",
    "cut-full": "truncated model and full network",
    "full-random": "full network and a random one",
    "cut-random": "truncated model and a random one",
    "random-random": "two random networks",
}
_NOISE = "#8a949e"


def draw_similarity(found: Analysis) -> Plot:
    """Draw how alike networks are at every cut, shallow to deep: a line per pair, dashed where one is random.

    The traces of a measure carry its name in `meta`; only the first measure is visible. `measures` holds the words of
    the buttons by measure.
    """
    traces = [_draw_pair(found, pair, measure) for measure in MEASURES for pair in found.pairs]
    traces.append(_draw_noise(found))
    layout = make_layout(x_title="depth, shallow to deep", y_title="similarity")
    layout["xaxis"] |= {
        "tickvals": list(range(len(found.depths))),
        "ticktext": [clean_label(depth.cut) for depth in found.depths],
        "range": [-0.5, len(found.depths) - 0.5],
    }
    layout["yaxis"] |= {"rangemode": "tozero"}
    return {"data": traces, "layout": layout, "measures": MEASURES}


def _draw_pair(found: Analysis, pair: Pair, measure: str) -> Plot:
    colour, dash = _LOOKS[pair]
    known = [found.similarity(pair, depth.cut) for depth in found.depths]
    return {
        **_line(measure, colour, dash),
        "name": _NAMES[pair],
        "x": list(range(len(known))),
        "y": [None if one is None else getattr(one, measure) for one in known],
        "marker": {"size": 6, "color": colour},
        "text": ["" if one is None else _describe(one, measure) for one in known],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _describe(one: LayerSimilarity, measure: str) -> str:
    value = getattr(one, measure)
    told = "undefined" if value is None else f"{value:.3f}"
    lines = [f"<b>{clean_label(one.cut)}</b>", PAIR_WORDS[one.pair], f"{MEASURES[measure]} {told}"]
    if measure == "svcca":
        lines.append(f"{one.samples} samples, {one.directions[0]} and {one.directions[1]} directions")
    return "<br>".join(lines)


def _draw_noise(found: Analysis) -> Plot:
    values = [find_noise(found, depth.cut) for depth in found.depths]
    return {
        **_line("svcca", _NOISE, "dot"),
        "mode": "lines",
        "name": "Gaussian noise",
        "x": list(range(len(values))),
        "y": values,
        "text": [f"<b>{clean_label(depth.cut)}</b><br>Gaussian noise" for depth in found.depths],
        "hovertemplate": "%{text}<br>SVCCA %{y:.3f}<extra></extra>",
    }


def _line(measure: str, colour: str, dash: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "line": {"width": 1.8, "color": colour, "dash": dash},
        "meta": {"measure": measure},
        "visible": measure == next(iter(MEASURES)),
    }
