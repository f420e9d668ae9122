"""The picture at the top of the page: what truncating costs, published and here, as SVG for light and dark."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
from outcomes import NotMadeError, Outcome
from published import Published, read_published

_WIDTH, _HEIGHT = 480, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 452, 76, 340
_LOWEST = -16.0
"""Points of AUROC; what lies below is drawn at this edge, with its value."""
_STYLE = """
text { font: 14px sans-serif; fill: #222 }
.axis, .grid { stroke: #999; stroke-width: 1; fill: none }
.grid { stroke-opacity: .35 }
.zero { stroke: #555; stroke-width: 1.4; stroke-dasharray: 5 4 }
.page { fill: #fff }
.published { stroke: #0063a5; fill: #0063a5 }
.here { stroke: #c24a00; fill: #c24a00 }
polyline { fill: none !important; stroke-width: 1.6; stroke-opacity: .6 }
line.published, line.here { stroke-width: 1.6 }
text.published, text.here { stroke: none }
@media (prefers-color-scheme: dark) {
text { fill: #e6e6e6 }
.page { fill: #15181c }
.zero { stroke: #bbb }
.published { stroke: #74bdff; fill: #74bdff }
.here { stroke: #ffa064; fill: #ffa064 }
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A cut: its share of the MACs, the difference to the whole in points with its interval, and its name."""

    share: float
    value: float
    low: float
    high: float
    name: str


def draw(found: Outcome) -> str:
    """Return the picture of a sweep: difference to the whole network against the share of its MACs."""
    published = read_published()["ttl-sweep"]
    theirs, ours = list(_published_points(published)), list(_own_points(found))
    highest = max((point.high for point in (*theirs, *ours)), default=0.0)
    top = 2.0 * np.ceil((highest + 0.5) / 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-label="Difference of AUROC to the whole network against the share of its MACs, published and here">',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{_WIDTH}" height="{_HEIGHT}"/>',
        '<text x="12" y="22">AUROC minus that of the whole network, in points</text>',
        *_legend(found.experiment.network),
        *_axes(top),
        *_series(theirs, "published", top),
        *_series(ours, "here", top),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _published_points(published: Published) -> Iterator[Point]:
    for one in published.figures:
        value = published.difference(one, few=False)
        if value is None or one.share is None or one.name == published.reference:
            continue
        spread = published.spread(one)
        yield Point(share=one.share, value=value, low=value - spread, high=value + spread, name=one.name)


def _own_points(found: Outcome) -> Iterator[Point]:
    for row in found.rows[1:]:
        try:
            differences = found.compare(row, found.reference)
        except NotMadeError:
            continue
        yield Point(
            share=row.macs_share,
            value=100 * float(np.mean([one.value for one in differences])),
            low=100 * min(one.low for one in differences),
            high=100 * max(one.high for one in differences),
            name=row.entrant.cut,
        )


def _x(share: float) -> float:
    return round(_LEFT + share * (_RIGHT - _LEFT), 1)


def _y(value: float, top: float) -> float:
    inside = max(value, _LOWEST)
    return round(_TOP + (top - inside) / (top - _LOWEST) * (_BOTTOM - _TOP), 1)


def _legend(network: str) -> Iterator[str]:
    yield '<rect class="published" x="12" y="36" width="9" height="9"/>'
    yield '<text x="27" y="45">published: ResNet-50, ± standard deviation of 3 splits</text>'
    yield '<circle class="here" cx="16.5" cy="59" r="5"/>'
    yield f'<text x="27" y="64">here: {escape(network)}, paired 95 % interval</text>'


def _axes(top: float) -> Iterator[str]:
    for value in range(int(_LOWEST), int(top) + 1, 4):
        y = _y(value, top)
        kind = "zero" if value == 0 else "grid"
        yield f'<line class="{kind}" x1="{_LEFT}" y1="{y}" x2="{_RIGHT}" y2="{y}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 5}" text-anchor="end">{value:+d}</text>'.replace("+0", "0")
    for percent in range(0, 101, 20):
        x = _x(percent / 100)
        yield f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{_BOTTOM}"/>'
        yield f'<text x="{x}" y="{_BOTTOM + 18}" text-anchor="middle">{percent} %</text>'
    yield f'<path class="axis" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>'
    yield f'<text x="{(_LEFT + _RIGHT) / 2}" y="{_BOTTOM + 42}" text-anchor="middle">share of the MACs kept</text>'


def _series(points: Iterable[Point], kind: str, top: float) -> Iterator[str]:
    ordered = sorted(points, key=lambda point: point.share)
    line = " ".join(f"{_x(one.share)},{_y(one.value, top)}" for one in ordered)
    yield f'<polyline class="{kind}" points="{line} {_x(1.0)},{_y(0.0, top)}"/>'
    for one in ordered:
        x, y = _x(one.share), _y(one.value, top)
        title = f"<title>{escape(one.name)}: {one.value:+.1f} [{one.low:+.1f}, {one.high:+.1f}]</title>"
        if one.value < _LOWEST:
            yield f'<path class="{kind}" d="M{x - 6} {y - 9}h12l-6 9z">{title}</path>'
            yield f'<text class="{kind}" x="{x + 5}" y="{y - 14}" text-anchor="middle">{one.value:.0f}</text>'
            continue
        if one.high > one.low:
            yield f'<line class="{kind}" x1="{x}" y1="{_y(one.low, top)}" x2="{x}" y2="{_y(one.high, top)}"/>'
        if kind == "here":
            yield f'<circle class="{kind}" cx="{x}" cy="{y}" r="5">{title}</circle>'
        else:
            yield f'<rect class="{kind}" x="{x - 4.5}" y="{y - 4.5}" width="9" height="9">{title}</rect>'
