"""The report's figures as plotly's own JSON; the page draws them, so nothing here imports plotly.

Names from data and models are cleaned first: plotly reads a subset of HTML in labels. Colours
are mid-tones that stand on light and dark paper alike; text and grid get theirs from the page.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ttl_deploy.records.candidates import ALL_EXITS, JOINT, Candidate
from ttl_deploy.records.trials import CutProfile, EpochRecord, Profile, TrialFailure, TrialResult
from ttl_deploy.records.variants import is_variant
from ttl_deploy.report.depth import Growth, growths, name_stages, seen_shares
from ttl_deploy.report.looks import clean_label, looks_of
from ttl_deploy.report.numbers import format_latency, format_quantity, format_share
from ttl_deploy.report.story import RunStory

Plot = dict[str, Any]
_SYMBOLS = {"o": "circle", "s": "square", "^": "triangle-up"}
_LEGEND_CUTS = 12
_PALEST = 0.35
_FEW_EPOCHS = 12
_NARROW = 0.08  # scores closer than this have ticks of three digits


def draw_curves(story: RunStory) -> Plot:
    """Draw each trial's validation AUROC by epoch; best epochs are ringed.

    With one strategy a colour stands for a cut, shallow to deep; with several it stands for a strategy,
    and a shallower cut is paler.
    """
    drawn = {key: curve for key, curve in story.curves.items() if any(line.val_auroc is not None for line in curve)}
    candidate_of = {trial.key: _candidate(trial) for trial in story.trials if trial.key in drawn}
    cuts = _cuts_by_depth(story, {candidate.cut for candidate in candidate_of.values()})
    strategies = _in_order(story, {candidate.strategy for candidate in candidate_of.values()})
    order = sorted(
        candidate_of,
        key=lambda key: (strategies.index(candidate_of[key].strategy), cuts.index(candidate_of[key].cut), key),
    )
    best = {trial.key: trial.best_epoch for trial in story.results}
    several = len(strategies) > 1
    looks, traces = looks_of(strategies), []
    for key in order:
        cut, strategy = candidate_of[key]
        depth = cuts.index(cut)
        colour = looks[strategy].colour if several else _colour(depth, len(cuts))
        trace = _draw_curve(key, drawn[key], colour=colour, best=best.get(key))
        trace["legendgroup"] = strategy if several else cut
        trace["name"] = looks[strategy].label if several else clean_label(cut)
        if several:
            trace["line"]["dash"] = looks[strategy].dash
            deepest = max(cuts.index(one.cut) for one in candidate_of.values() if one.strategy == strategy)
            trace["opacity"] = 1 - (1 - _PALEST) * (deepest - depth) / max(1, len(cuts) - 1)
        traces.append(trace)
    groups = [trace["legendgroup"] for trace in traces]
    for i, trace in enumerate(traces):
        # The palest would stand badly in the legend, so of a strategy the deepest does.
        trace["showlegend"] = trace["legendgroup"] not in (groups[i + 1 :] if several else groups[:i])
    layout = make_layout(x_title="epoch", y_title="validation AUROC")
    longest = max((line.epoch for curve in drawn.values() for line in curve), default=1)
    # Between whole epochs plotly would repeat them.
    layout["xaxis"] |= {"dtick": 1} if longest <= _FEW_EPOCHS else {"tickformat": "d"}
    layout["xaxis"]["rangemode"] = "normal"
    fit_scores(layout, (line.val_auroc for curve in drawn.values() for line in curve))
    layout["showlegend"] = several or len(cuts) <= _LEGEND_CUTS
    return {"data": traces, "layout": layout}


def draw_depth(profile: Profile) -> Plot:
    """Draw what share of the full network's costs each cut has, and below it how much of the image it sees."""
    cuts = tuple(row for row in profile.cuts if not is_variant(row.cut))
    seen = seen_shares(cuts, profile.image_size)
    texts = [_describe_costs(cut, share) for cut, share in zip(cuts, seen, strict=True)]
    traces = [_draw_growth(one, texts) for one in growths(cuts)]
    ticks = name_stages(cuts)
    layout = make_layout(x_title="depth, shallow to deep", y_title="share of full")
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
            "title": {"text": "of side"},
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
            "line": {"width": 2, "color": colour},
        },
        # One template for all points: a text for each would be most of a long run's page.
        "customdata": [float(f"{line.train_loss:.4g}") for line in curve],
        "hovertemplate": f"<b>{name}</b><br>epoch %{{x}}<br>train loss %{{customdata}}<br>"
        "validation AUROC %{y:.4f}<extra></extra>",
    }


def make_layout(*, x_title: str, y_title: str) -> Plot:
    """Return what all figures look like."""
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


def fit_scores(layout: Plot, values: Iterable[float | None]) -> None:
    """Write all ticks of the vertical axis with as many digits, as the range of the scores needs."""
    known = [value for value in values if value is not None]
    if known:
        layout["yaxis"]["tickformat"] = ".3f" if max(known) - min(known) < _NARROW else ".2f"


def _candidate(trial: TrialResult | TrialFailure) -> Candidate:
    """Return what a trial is drawn as: the training of all exits as theirs, which is no candidate itself."""
    return Candidate(trial.cut, JOINT) if trial.key.startswith(f"{ALL_EXITS}__") else trial.candidate


def _cuts_by_depth(story: RunStory, cuts: set[str]) -> list[str]:
    order: Mapping[str, int] = {cost.cut: i for i, cost in enumerate(story.profile.cuts)} if story.profile else {}
    return sorted(cuts, key=lambda cut: (order.get(cut, len(order)), cut))


def _in_order(story: RunStory, strategies: set[str]) -> list[str]:
    known = story.settings.strategies if story.front is None else (*story.front.strategies, *story.settings.strategies)
    return [strategy for strategy in dict.fromkeys((*known, *sorted(strategies))) if strategy in strategies]


def _colour(position: int, count: int) -> str:
    """Return a hue between teal (shallow) and orange (deep)."""
    share = position / max(1, count - 1)
    return f"hsl({190 - round(165 * share)}, 62%, 46%)"
