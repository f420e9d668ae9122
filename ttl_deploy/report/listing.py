"""The front as rows of text, for a terminal or any other table; who prints it decides on colours."""

from dataclasses import dataclass

from ttl_deploy.records.scores import Axis, Choice, Front, FrontPoint, Metric, Score
from ttl_deploy.report.numbers import (
    format_difference,
    format_latency,
    format_quantity,
    format_score,
    format_share,
)

AXIS_WORDS: dict[Axis, str] = {"macs": "MACs", "params": "parameters", "latency_s": "latency"}
METRIC_WORDS: dict[Metric, str] = {"auroc": "AUROC", "auprc": "AUPRC", "accuracy": "accuracy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Column titles and rows of plain text, equally long; `numeric` tells which columns align right."""

    columns: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]


def front_rows(front: Front, choice: Choice | None = None) -> Listing:
    """Lay out a front, one row per trained candidate, shallow to deep.

    The column of strategies is there only where there are several, that of test scores only where some
    were made, that of latency only where some were measured. The first column marks the choice with an
    arrow.
    """
    several = len(front.strategies) > 1
    columns = {
        "": [_mark(point, choice) for point in front.points],
        "cut": [point.cut for point in front.points],
        "strategy": [point.strategy if several else "" for point in front.points],
        "val AUROC": [format_score(auroc_of(point.validation)) for point in front.points],
        "to the best": [format_difference(point.to_best) for point in front.points],
        "test AUROC": [format_score(auroc_of(point.test)) if point.test else "" for point in front.points],
        "params": [format_quantity(point.params) for point in front.points],
        "MACs": [format_quantity(point.macs) for point in front.points],
        "of full": [format_share(point.macs_share) for point in front.points],
        "latency": ["" if point.latency_s is None else format_latency(point.latency_s) for point in front.points],
        "on front by": [", ".join(AXIS_WORDS[axis] for axis in point.on_front) for point in front.points],
    }
    optional = ("strategy", "test AUROC", "latency")
    filled = {title: cells for title, cells in columns.items() if title not in optional or any(cells)}
    return Listing(
        columns=tuple(filled),
        numeric=tuple(title not in ("", "cut", "strategy", "on front by") for title in filled),
        rows=tuple(zip(*filled.values(), strict=True)),
    )


def auroc_of(scores: tuple[Score, ...]) -> Score:
    """Return the AUROC among the scores of a split."""
    return next(score for score in scores if score.metric == "auroc")


def _mark(point: FrontPoint, choice: Choice | None) -> str:
    return "→" if choice is not None and choice.candidate == point.candidate else ""
