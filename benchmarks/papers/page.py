"""The page: what agrees, what does not, and why the comparison is or is not fair."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from claims import Claim
from experiments import HERE, Experiment
from outcomes import Outcome, Row

_NAMES = {
    "ttl-ways": {"FTL": ("full", "full"), "LWFT": ("full", "lwft"), "TTL": ("", "full"), "FAT": ("", "linear-probe")},
    "transfusion": {"transfer": ("full", "full"), "random": ("full", "scratch"), "Gabor": ("full", "gabor")},
}
"""What the papers call a candidate: its cut (empty for the truncated one) and the beginning of its strategy."""


def read_published(path: Path = HERE / "published.toml") -> dict[str, Any]:
    """Return the papers' figures by experiment."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def render(
    experiments: Sequence[Experiment],
    outcomes: Mapping[str, Outcome],
    claims: Sequence[Claim],
    *,
    reduced: bool,
    command: str,
    minutes: float,
) -> str:
    """Return the page as Markdown."""
    published = read_published()
    parts = [*_head(outcomes, reduced=reduced, command=command, minutes=minutes), *_claim_table(claims)]
    for experiment in experiments:
        parts += _section(experiment, outcomes.get(experiment.name), published.get(experiment.name, {}))
    return "\n".join(parts).rstrip() + "\n"


def _head(outcomes: Mapping[str, Outcome], *, reduced: bool, command: str, minutes: float) -> Iterator[str]:
    yield "# The papers' experiments, run again"
    yield ""
    label = (
        "**A reduced setting**: another network, smaller images, few images and epochs, one split. " if reduced else ""
    )
    data = ", ".join(
        sorted({found.runs[0].settings().data.rstrip("/").rpartition("/")[2] for found in outcomes.values()})
    )
    yield (
        f"{label}Data: {data}. Written by `{command}`, in {minutes:.0f} minutes. Figures and machine: "
        "`benchmarks/results/papers.json`. Hyper-parameters: `benchmarks/papers/experiments.toml`."
    )
    yield ""
    yield (
        "The papers' images are not public, or not these. So figures are not to be compared one by one: what can be "
        "compared is what they say of each other. `cannot be told` means that the interval is too wide here."
    )
    yield ""


def _claim_table(claims: Sequence[Claim]) -> Iterator[str]:
    yield "| paper | what it says | what is seen here | verdict | by the rule |"
    yield "|---|---|---|---|---|"
    for claim in claims:
        yield f"| {claim.paper} | {claim.said} | {claim.seen} | **{claim.verdict}** | {claim.rule} |"
    yield ""


def _section(experiment: Experiment, found: Outcome | None, published: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {experiment.paper}: {experiment.title}"
    yield ""
    yield f"Setting from: {experiment.source}. Unlike the paper: {experiment.unlike}."
    if published:
        yield f"Published: {published['data']}; from {published['source']}."
    yield ""
    if found is None:
        yield f"Not run: {experiment.left_out}."
        yield ""
        return
    yield from _own_rows(experiment.name, found, published)
    yield ""
    if experiment.name == "ttl-sweep":
        yield from _published_sweep(published)


def _own_rows(name: str, found: Outcome, published: Mapping[str, Any]) -> Iterator[str]:
    yield f"| {found.runs[0].settings().backbone} | MACs of full | test AUROC | learned in | published |"
    yield "|---|---|---|---|---|"
    values = [value for row in found.rows for curve in row.curves for value in curve]
    goal = 0.5 + 0.95 * (max(values) - 0.5) if values else 1.0
    for row in found.rows:
        told = _published_of(name, row, published)
        cells = (f"`{row.cut}` by `{row.strategy}`", f"{row.macs_share:.0%}", _score(row), _speed(row, goal), told)
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield f"Learned in: epochs until a validation AUROC of {goal:.3f}, 95 % of the way from chance to the best here."


def _published_of(name: str, row: Row, published: Mapping[str, Any]) -> str:
    for word, (cut, strategy) in _NAMES.get(name, {}).items():
        if row.strategy.startswith(strategy) and (row.cut == "full") == (cut == "full"):
            return next((_published(one) for one in published["rows"] if one["name"] == word), "")
    return ""


def _published(row: Mapping[str, Any]) -> str:
    told = str(row["name"]) + (f" {row['auroc']:g}" if "auroc" in row else "")
    told += f" ± {row['sd']:g}" if "sd" in row else ""
    return told + (f", {row['steps']:,} steps" if "steps" in row else "")


def _published_sweep(published: Mapping[str, Any]) -> Iterator[str]:
    yield "| published, resnet50 | MACs of full | test AUROC |"
    yield "|---|---|---|"
    for row in published["rows"]:
        share = row["gmacs"] / published["full_gmacs"]
        yield f"| `{row['name']}` | {share:.0%} | {row['auroc']:.2f} ± {row['sd']:.2f} |"
    yield ""


def _score(row: Row) -> str:
    if row.auroc is None:
        return row.failure or "undefined"
    if len(row.scores) == 1:
        (score,) = row.scores
        bounds = "no interval" if score.low is None else f"{100 * score.low:.1f} to {100 * (score.high or 0):.1f}"
        return f"{100 * row.auroc:.1f} [{bounds}]"
    values = [100 * (score.value or 0.0) for score in row.scores]
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"


def _speed(row: Row, goal: float) -> str:
    epochs = row.epochs_until(goal)
    return "never" if epochs is None else f"{epochs:g}"
