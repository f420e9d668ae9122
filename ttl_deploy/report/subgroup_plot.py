"""The subgroups as figure and as CSV: a row per group, in the order of the record."""

import csv
import io
from pathlib import Path

from ttl_deploy.evidence.columns import clean_name
from ttl_deploy.files import publish_text
from ttl_deploy.records.scores import Score
from ttl_deploy.records.subgroups import Subgroup, SubgroupColumn, Subgroups
from ttl_deploy.report.looks import clean_label
from ttl_deploy.report.numbers import format_score
from ttl_deploy.report.plots import Plot, make_layout
from ttl_deploy.report.tables import Cell, defuse

_METRICS = ("auroc", "sensitivity", "specificity")
SUBGROUP_COLUMNS = (
    *("column", "group", "images", "patients", "positives", "small"),
    *(f"{metric}{end}" for metric in _METRICS for end in ("", "_low", "_high")),
    *("to_rest", "to_rest_low", "to_rest_high"),
    *(f"reference_{metric}{end}" for metric in _METRICS for end in ("", "_low", "_high")),
    *("p_equal", "p_equal_holm", "level", "split", "model", "reference", "decision"),
)
_COLOUR, _OVERALL, _PALE = "#0072b2", "#c05a17", "#8a949e"
_ROW_PX, _FRAME_PX = 26, 110


def draw_subgroups(subgroups: Subgroups) -> Plot:
    """Draw the AUROC of every group with its interval, and a line at that of the whole split.

    Groups that are too small to judge are open marks without an interval; undefined ones have a row and no mark.
    `height` is what the rows need, in pixels.
    """
    rows = [(column, group) for column in subgroups.columns for group in column.groups]
    ticks = [f"{clean_label(clean_name(column.column))}: {clean_label(group.name)}" for column, group in rows]
    traces = [
        _draw([(at, group) for at, (_, group) in enumerate(rows) if bool(group.small) == small], ticks, small=small)
        for small in (False, True)
    ]
    layout = make_layout(x_title="AUROC", y_title="")
    layout["yaxis"] |= {
        "tickvals": list(range(len(rows))),
        "ticktext": ticks,
        "range": [len(rows) - 0.5, -0.5],
        "showgrid": False,
    }
    layout["showlegend"] = any(group.small for _, group in rows)
    overall = subgroups.overall.score("auroc")
    if overall.value is not None:
        line: Plot = {"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1}
        layout["shapes"] = [
            {**line, "x0": overall.value, "x1": overall.value, "line": {"color": _OVERALL, "width": 1.5, "dash": "dot"}}
        ]
    drawn = [trace for trace in traces if trace["x"]]
    return {"data": drawn, "layout": layout, "height": _FRAME_PX + _ROW_PX * len(rows)}


def write_subgroups_csv(path: Path, subgroups: Subgroups) -> None:
    """Publish one row for the whole split and one per group; empty cells are undefined or not known, never 0."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, SUBGROUP_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in subgroup_rows(subgroups):
        writer.writerow({name: defuse(cell) for name, cell in row.items()})
    publish_text(path, text.getvalue())


def subgroup_rows(subgroups: Subgroups) -> list[dict[str, Cell]]:
    """Return the rows of the table, the whole split first."""
    shared: dict[str, Cell] = {
        "level": subgroups.level,
        "split": subgroups.split,
        "model": subgroups.model,
        "reference": subgroups.reference,
        "decision": subgroups.decision,
    }
    rows = [{**_cells(subgroups.overall), **shared}]
    for column in subgroups.columns:
        rows += [{**_cells(group), **_column_cells(column, group), **shared} for group in column.groups]
    return rows


def _draw(rows: list[tuple[int, Subgroup]], ticks: list[str], *, small: bool) -> Plot:
    drawn = [(at, group, group.score("auroc")) for at, group in rows]
    known = [(at, group, score, score.value) for at, group, score in drawn if score.value is not None]
    colour = _PALE if small else _COLOUR
    trace: Plot = {
        "type": "scatter",
        "mode": "markers",
        "name": "too small to judge" if small else "AUROC with interval",
        "x": [value for *_, value in known],
        "y": [at for at, *_ in known],
        "marker": {"size": 9, "color": colour, "symbol": "circle-open" if small else "circle"},
        "text": [_hover(ticks[at], group, score) for at, group, score, _ in known],
        "hovertemplate": "%{text}<extra></extra>",
    }
    if not small:
        ups = [0.0 if score.high is None else score.high - value for *_, score, value in known]
        downs = [0.0 if score.low is None else value - score.low for *_, score, value in known]
        bars: Plot = {"type": "data", "array": ups, "arrayminus": downs}
        trace["error_x"] = {**bars, "thickness": 1.6, "width": 4, "color": colour}
    return trace


def _hover(name: str, group: Subgroup, score: Score) -> str:
    lines = [f"<b>{name}</b>", f"AUROC {format_score(score)}", f"{group.images} images of {group.patients} patients"]
    return "<br>".join([*lines, *([clean_label(group.small)] if group.small else [])])


def _cells(group: Subgroup) -> dict[str, Cell]:
    cells: dict[str, Cell] = {
        "group": group.name,
        "images": group.images,
        "patients": group.patients,
        "positives": group.positives,
        "small": group.small,
    }
    for prefix, scores in (("", group.scores), ("reference_", group.reference_scores)):
        for score in scores:
            name = f"{prefix}{score.metric}"
            cells |= {name: score.value, f"{name}_low": score.low, f"{name}_high": score.high}
    return cells


def _column_cells(column: SubgroupColumn, group: Subgroup) -> dict[str, Cell]:
    cells: dict[str, Cell] = {"column": column.column}
    if group.to_rest:
        rest = group.to_rest
        cells |= {"to_rest": rest.value, "to_rest_low": rest.low, "to_rest_high": rest.high}
    if column.test:
        cells |= {"p_equal": column.test.p, "p_equal_holm": column.test.p_holm}
    return cells
