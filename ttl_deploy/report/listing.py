"""The front as rows of text, for a terminal or any other table; who prints it decides on colours."""

from dataclasses import dataclass

from ttl_deploy.records.candidates import JOINT, WARM
from ttl_deploy.records.scores import Axis, Choice, Front, FrontPoint, Score
from ttl_deploy.report.numbers import (
    format_difference,
    format_latency,
    format_quantity,
    format_score,
    format_seeds,
    format_share,
    format_spread,
)

STRATEGY_WORDS = {
    JOINT: "an exit of one network that was trained with a head at every cut",
    WARM: "trained by itself, beginning with the weights of that exit, for fewer epochs",
}
"""What the names mean of strategies that a guided search takes by itself."""
SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test", "all": "all"}
AXIS_WORDS: dict[Axis, str] = {"macs": "MACs", "params": "parameters", "latency_s": "latency"}
_DISPENSABLE = (
    *("val seeds", "test seeds", "params", "of full", "to the best", "on front by", "test AUROC", "latency", "MACs"),
    "verdict",
)
"""Columns that a narrow terminal can do without, the first first."""
NEAR = "~"
"""Stands before an axis on which a candidate is off the front but not clearly worse."""
NEAR_WORDS = (
    f"{NEAR} off the front, but not clearly worse than those on it: no other that costs no more is surely better "
    "(paired interval of validation AUROC)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Column titles and rows of plain text, equally long; `numeric` tells which columns align right."""

    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]


def front_rows(front: Front, choice: Choice | None = None) -> Listing:
    """Lay out a front, one row per trained candidate, shallow to deep.

    The column of strategies is there only where there are several, that of test scores only where some
    were made, that of latency only where some were measured, those of seeds only where there are several.
    The first column marks the choice with an arrow.
    """
    several = len(front.strategies) > 1
    seeds = any(len(point.seeds) > 1 for point in front.points)
    columns = {
        "": [_mark(point, choice) for point in front.points],
        "cut": [point.cut for point in front.points],
        "strategy": [point.strategy if several else "" for point in front.points],
        "val AUROC": [format_score(auroc_of(point.validation)) for point in front.points],
        "to the best": [format_difference(point.to_best) for point in front.points],
        "test AUROC": [format_score(auroc_of(point.test)) if point.test else "" for point in front.points],
        "verdict": [_verdict(front, point) for point in front.points],
        "params": [format_quantity(point.params) for point in front.points],
        "MACs": [format_quantity(point.macs) for point in front.points],
        "of full": [format_share(point.macs_share) for point in front.points],
        "latency": ["" if point.latency_s is None else format_latency(point.latency_s) for point in front.points],
        "on front by": [", ".join(name_standings(point)) for point in front.points],
        "val seeds": [format_seeds(point) if seeds else "" for point in front.points],
        "test seeds": [format_test_seeds(point) if seeds else "" for point in front.points],
    }
    optional = ("strategy", "test AUROC", "verdict", "latency", "val seeds", "test seeds")
    filled = {title: cells for title, cells in columns.items() if title not in optional or any(cells)}
    return Listing(
        columns=tuple(filled),
        numeric=tuple(title not in ("", "cut", "strategy", "verdict", "on front by") for title in filled),
        rows=tuple(zip(*filled.values(), strict=True)),
    )


def fit_columns(listing: Listing, *, width: int, gap: int) -> tuple[Listing, tuple[str, ...]]:
    """Leave out columns, what is least needed first, until rows fit into `width` characters; returns their titles too.

    `gap` is what stands between two columns. Those that `_DISPENSABLE` does not name always stay.
    """
    widths = {
        title: max(len(cell) for cell in (title, *cells))
        for title, cells in zip(listing.columns, zip(*listing.rows, strict=True), strict=True)
    }
    hidden: list[str] = []
    for title in _DISPENSABLE:
        if sum(widths.values()) + gap * len(widths) <= width:
            break
        if widths.pop(title, None) is not None:
            hidden.append(title)
    kept = [number for number, title in enumerate(listing.columns) if title in widths]
    fitted = Listing(
        columns=tuple(listing.columns[number] for number in kept),
        numeric=tuple(listing.numeric[number] for number in kept),
        rows=tuple(tuple(row[number] for number in kept) for row in listing.rows),
    )
    return fitted, tuple(title for title in listing.columns if title in hidden)


def explain_strategies(front: Front) -> tuple[str, ...]:
    """Say what those of a front's strategies mean that the search made by itself: `joint: an exit of …`."""
    return tuple(f"{name}: {words}" for name, words in STRATEGY_WORDS.items() if name in front.strategies)


def name_standings(point: FrontPoint) -> tuple[str, ...]:
    """Name the axes on which a candidate is on the front, and with a mark those on which it is not clearly worse."""
    near = (f"{NEAR}{AXIS_WORDS[axis]}" for axis in point.axes("not clearly worse"))
    return (*(AXIS_WORDS[axis] for axis in point.on_front), *near)


def explain_standings(front: Front) -> str:
    """Say what the mark of those that are not clearly worse means; nothing where nobody has it."""
    return NEAR_WORDS if any(point.axes("not clearly worse") for point in front.points) else ""


def format_test_seeds(point: FrontPoint) -> str:
    """Write the range of the seeds' test AUROC; nothing where it was not stated."""
    return format_spread(auroc_of(point.test).per_seed) if point.test else ""


def auroc_of(scores: tuple[Score, ...]) -> Score:
    """Return the AUROC among the scores of a split."""
    return next(score for score in scores if score.metric == "auroc")


def _verdict(front: Front, point: FrontPoint) -> str:
    if front.verdicts is not None and point.name == front.reference:
        return "reference"
    found = front.verdict(point.name)
    return "" if found is None else found.verdict


def _mark(point: FrontPoint, choice: Choice | None) -> str:
    return "→" if choice is not None and choice.candidate == point.candidate else ""
