"""What `compression.py` found, as a page of the documentation: a table and a picture.

python benchmarks/compression_page.py compression-mobilenet_v2      # again, from the stored figures
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from results import FOLDER

from ttl_deploy.files import publish_text
from ttl_deploy.records.variants import base_cut, is_variant

DOCS = Path(__file__).parent.parent / "docs"
GOAL = 30.0
_COLOURS = {
    "full": "#000000",
    "full, narrower or smaller": "#e69f00",
    "cut": "#0072b2",
    "cut, narrower or smaller": "#d55e00",
}
_MARKS = {"fp32": "o", "bf16": "s", "int8": "^"}

Row = Mapping[str, Any]


def write_page(name: str) -> None:
    """Write `docs/<name>.md` from stored figures, and beside it a picture where the rows were scored."""
    stored = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    machine = stored["machine"]
    refused = [row for row in stored["rows"] if "refused" in row]
    rows = [row for row in stored["rows"] if "refused" not in row]
    judged = any("val_auroc" in row for row in rows)
    text = [
        f"# {' '.join(['Compression:', *name.split('-')[1:]])}",
        "",
        f"`{stored['command']}`",
        "",
        "Made by `benchmarks/compression.py`; all figures, rounds and versions are in "
        f"`benchmarks/{FOLDER.name}/{name}.json`. {machine['processor']}, {machine['cores']} cores, one thread, one "
        "image, CPU time, median over rounds; `times as fast` compares with the first row in the same round, in "
        "brackets its least and most over the rounds.",
        "",
    ]
    if judged:
        count = sum("test_verdict" in row for row in rows)
        text += [
            "AUROCs are of what each row itself answered, differences and verdicts (margin 0.02, paired by patient) to "
            f"the first row; verdicts on the test split, corrected for its {count} comparisons by Holm's method. "
            "`the same`: no resample differs. Decisions are compared with the first row's on validation.",
            "",
            f"![{name}]({name}.svg)",
            "",
        ]
        _draw(DOCS / f"{name}.svg", rows)
    text += _table(rows, judged=judged)
    text += [f"- `{one['model']}` {one['refused']} was not published: {one['why']}" for one in refused]
    publish_text(DOCS / f"{name}.md", "\n".join(text).rstrip() + "\n")
    print(f"docs/{name}.md")


def _table(rows: Sequence[Row], *, judged: bool) -> list[str]:
    columns = ["network", "runs as", "file MB", "CPU ms", "times as fast"]
    if judged:
        columns += [
            "validation AUROC",
            "difference",
            "test AUROC",
            "difference",
            "verdict",
            "same decisions",
        ]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row in rows:
        fast = f"{row['times_as_fast']:.1f} [{row['ratio_low']:.1f}, {row['ratio_high']:.1f}]"
        megabytes = "" if row["megabytes"] is None else f"{row['megabytes']:.2f}"
        cells = [row["model"], row["form"], megabytes, f"{row['cpu_ms']:.2f}", fast]
        if judged:
            cells += [
                *(_score(row.get("val_auroc")), _change(row.get("val_difference"))),
                *(_score(row.get("test_auroc")), _change(row.get("test_difference")), _verdict(row)),
                f"{row['val_same_decisions']:.1%}" if "val_same_decisions" in row else "",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _verdict(row: Row) -> str:
    word: str = row.get("test_verdict", "")
    return "the same" if word == "undefined" else word


def _score(values: Sequence[float] | None) -> str:
    return "" if values is None else f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"


def _change(values: Sequence[float] | None) -> str:
    return "" if values is None else f"{values[0]:+.3f} [{values[1]:+.3f}, {values[2]:+.3f}]"


def _draw(path: Path, rows: Sequence[Row]) -> None:
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for row in rows:
        if "val_auroc" not in row:
            continue
        value, low, high = row["val_auroc"]
        axes.errorbar(
            row["cpu_ms"],
            value,
            yerr=[[value - low], [high - value]],
            marker=_MARKS.get(row["ran"], "x"),
            color=_COLOURS[_kind(row["model"])],
            markersize=6,
            linewidth=0.8,
        )
    for kind, colour in _COLOURS.items():
        axes.plot([], [], "o", color=colour, label=kind)
    for precision, mark in _MARKS.items():
        axes.plot([], [], mark, color="#777777", label=precision)
    axes.axvline(rows[0]["cpu_ms"] / GOAL, color="#777777", linestyle=":", linewidth=1)
    axes.text(rows[0]["cpu_ms"] / GOAL, axes.get_ylim()[0], f" {GOAL:g} times as fast as eager fp32", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("CPU time of one image in ms (one thread)")
    axes.set_ylabel("validation AUROC, 95 % interval")
    axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _kind(model: str) -> str:
    kind = "full" if base_cut(model) == "full" else "cut"
    return f"{kind}, narrower or smaller" if is_variant(model) else kind


if __name__ == "__main__":
    write_page(sys.argv[1])
