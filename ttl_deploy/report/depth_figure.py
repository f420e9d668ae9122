"""The picture of what grows with depth, as a file for papers and slides: SVG, PDF or PNG.

The same numbers give the same bytes of SVG: no date, no random ids.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttl_deploy.errors import UsageError
from ttl_deploy.files import make_folder, publish
from ttl_deploy.plugins import import_part
from ttl_deploy.records.trials import CutProfile
from ttl_deploy.report.depth import Growth, growths, name_stages, seen_shares, shorten

FORMATS = ("svg", "png", "pdf")
_INK, _SOFT, _RULE, _SEEN = "#222a31", "#5b6771", "#e3e7ea", "#7d4f9e"
_LABEL_OFFSET, _LABEL_WIDTH = 0.045, 0.14
"""How far a label's middle is from its point, and how wide it is at most, as shares of the panel."""
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": _INK,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "svg.hashsalt": "ttl-deploy",
}
_NO_DATE: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


def check_path(path: Path) -> None:
    """Raise `UsageError` for a file type that cannot be drawn, `MissingExtraError` without matplotlib."""
    if path.suffix.removeprefix(".").lower() not in FORMATS:
        raise UsageError(f"--plot {path}: the name must end in {', '.join(f'.{kind}' for kind in FORMATS)}")
    _matplotlib("figure")


def write_figure(
    path: Path, cuts: Sequence[CutProfile], *, title: str, measured_on: str = "", image_size: int | None
) -> None:
    """Draw shares of the full network against depth, below them how much of the image a position sees; publish it.

    `measured_on` names runtime and machine of the latencies; it stands under the title.
    Raises what `check_path` raises, and `StorageError` where the file cannot be written.
    """
    check_path(path)
    kind = path.suffix.removeprefix(".").lower()
    make_folder(path.parent)
    with _matplotlib("").rc_context(_STYLE):
        figure = _draw(cuts, title=title, measured_on=measured_on, image_size=image_size)
        publish(path, lambda file: figure.savefig(file, format=kind, dpi=200, metadata=_NO_DATE[kind]))


def _matplotlib(part: str) -> Any:
    return import_part(f"matplotlib.{part}".rstrip("."), need="--plot")


def _draw(cuts: Sequence[CutProfile], *, title: str, measured_on: str = "", image_size: int | None) -> Any:
    seen = seen_shares(cuts, image_size)
    has_seen = any(share is not None for share in seen)
    figure = _matplotlib("figure").Figure(figsize=(8.4, 6.2 if has_seen else 4.8), layout="constrained")
    ratios = [3.2, 1.0] if has_seen else [1.0]
    panels = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    for panel in panels:
        _prepare(panel, cuts)
    drawn = growths(cuts)
    panels[0].set_ylim(0, 1.03 * max(_highest(drawn), 1.0))
    _draw_growths(panels[0], drawn)
    panels[0].set_ylabel("share of the full network")
    panels[0].set_title(title, loc="left", fontsize=12.5, fontweight="bold", pad=24 if measured_on else 12)
    if measured_on:
        above = {"xy": (0, 1), "xytext": (0, 10), "xycoords": "axes fraction", "textcoords": "offset points"}
        panels[0].annotate(f"latency: {measured_on}; band: noise of the measurement", color=_SOFT, **above)
    if has_seen:
        _draw_seen(panels[1], seen, cuts)
    panels[-1].set_xticks(*_ticks(cuts), rotation=35, ha="right", rotation_mode="anchor")
    panels[-1].set_xlabel(f"depth: {len(cuts)} cuts, shallow to deep")
    return figure


def _highest(drawn: Sequence[Growth]) -> float:
    """Return the upper end of the highest noise band; a cut may be slower than the full network."""
    return max(
        (share or 0.0) + (noise or 0.0) for one in drawn for share, noise in zip(one.shares, one.noise, strict=True)
    )


def _ticks(cuts: Sequence[CutProfile]) -> tuple[list[int], list[str]]:
    named = name_stages(cuts)
    return list(named), list(named.values())


def _prepare(panel: Any, cuts: Sequence[CutProfile]) -> None:
    panel.set_xlim(-0.02 * len(cuts), 1.01 * (len(cuts) - 1))
    panel.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    panel.grid(axis="y", color=_RULE, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(length=3)
    for position in name_stages(cuts):
        panel.axvline(position, color=_RULE, linewidth=0.8, zorder=0)


def _draw_growths(panel: Any, drawn: Sequence[Growth]) -> None:
    for one in drawn:
        positions = [i for i, share in enumerate(one.shares) if share is not None]
        shares = [one.shares[i] or 0.0 for i in positions]
        noise = [one.noise[i] or 0.0 for i in positions]
        size = 3.4 if len(positions) <= 40 else 2.4
        panel.plot(
            positions, shares, color=one.colour, linewidth=1.6, marker=one.marker, markersize=size, clip_on=False
        )
        if any(noise):
            low, high = ([s + sign * n for s, n in zip(shares, noise, strict=True)] for sign in (-1, 1))
            panel.fill_between(positions, low, high, color=one.colour, alpha=0.22, linewidth=0)
    for one, (position, share, above) in zip(drawn, _label_places(drawn), strict=True):
        panel.annotate(
            one.name,
            (position, share),
            xytext=(-7, 5) if above else (7, -5),
            textcoords="offset points",
            ha="right" if above else "left",
            va="bottom" if above else "top",
            color=one.colour,
            fontsize=11,
            fontweight="bold",
        )


def _label_places(drawn: Sequence[Growth]) -> list[tuple[int, float, bool]]:
    """Return for each line where its label has most room, and whether that is above it, to the left, or below."""
    places = []
    for one in drawn:
        others = [other.shares for other in drawn if other is not one]
        options = [(position, above) for position in _inner(one) for above in (True, False)]
        position, above = max(options, key=lambda option: _room(one, others, *option))
        places.append((position, one.shares[position] or 0.0, above))
    return places


def _inner(one: Growth) -> list[int]:
    """Return the positions at which a label has room: not too near to either end, where there are others."""
    known = [i for i, share in enumerate(one.shares) if share is not None]
    last = len(one.shares) - 1
    return [i for i in known if 0.15 * last <= i <= 0.8 * last] or known


def _room(one: Growth, others: Sequence[tuple[float | None, ...]], position: int, above: bool) -> float:
    """Return how far the middle of a label is from all other lines beside it, and from the axis."""
    middle = (one.shares[position] or 0.0) + (_LABEL_OFFSET if above else -_LABEL_OFFSET)
    width = max(1, round(_LABEL_WIDTH * len(one.shares)))
    beside = slice(max(0, position - width), position + 1) if above else slice(position, position + width + 1)
    distances = [[middle - share for share in other[beside] if share is not None] for other in others]
    if any(known and min(known) < 0 < max(known) for known in distances):
        return 0.0  # a line runs through the label, between two of its points
    return min([abs(distance) for known in distances for distance in known] + [middle])


def _draw_seen(panel: Any, seen: Sequence[float | None], cuts: Sequence[CutProfile]) -> None:
    positions = [i for i, share in enumerate(seen) if share is not None]
    shares = [seen[i] or 0.0 for i in positions]
    panel.fill_between(positions, 0, shares, color=_SEEN, alpha=0.13, linewidth=0)
    panel.plot(positions, shares, color=_SEEN, linewidth=1.6, clip_on=False)
    panel.set_ylabel("share of the\nimage's side")
    panel.set_yticks([0, 0.5, 1])
    panel.set_ylim(0, 1.04)
    left_out = ", squeeze-and-excitation gates left out" if any(cut.global_context for cut in cuts) else ""
    title = f"receptive field of one position{left_out}"
    panel.set_title(title, loc="left", color=_SEEN, fontsize=10.5, fontweight="bold")
    whole = next((i for i, share in zip(positions, shares, strict=True) if share >= 1), None)
    if whole is not None and whole < len(cuts) - 1:
        is_late = whole > 0.55 * len(cuts)
        panel.annotate(
            f"the whole image from {shorten(cuts[whole].cut, cuts)} on",
            (len(cuts) - 1 if is_late else whole, 1.0),
            xytext=(-6 if is_late else 6, -6),
            textcoords="offset points",
            ha="right" if is_late else "left",
            va="top",
            color=_SEEN,
        )
