"""The page: what agrees, what does not, and why the comparison is or is not fair."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from claims import Claim, count
from experiments import Experiment
from outcomes import NotMadeError, Outcome, Row
from plan import list_commands
from published import SETTING, Figure, Published, are_few, describe_own, read_published
from rules import NEARLY, goal_of, tell, tell_steps

_SETTING = dict(
    zip(SETTING, ("data", "network", "training images", "image size", "epochs", "splits", "head"), strict=True)
)

_CEILING = 0.99


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
    parts = [
        "# The papers' experiments, run again",
        "",
        *_overview(experiments, claims),
        *_picture(outcomes),
        *_setting(outcomes, reduced=reduced, command=command, minutes=minutes),
        *_claim_table(claims),
    ]
    published = read_published()
    for experiment in experiments:
        parts += _section(experiment, outcomes.get(experiment.name), published[experiment.name])
    return "\n".join(parts).rstrip() + "\n"


def _overview(experiments: Sequence[Experiment], claims: Sequence[Claim]) -> Iterator[str]:
    total = count(claims)
    agree, against = total["agrees"], total["does not agree"]
    told = f"{agree} agree{'s' * (agree == 1)}, {against} {'does' if against == 1 else 'do'} not"
    told = f"{told}, {total['cannot be told']} cannot be told"
    yield f"**{len(claims)} claims: {told}.**"
    yield ""
    yield "| paper | experiment | agree | do not | cannot be told |"
    yield "|---|---|---|---|---|"
    for one in experiments:
        numbers = count([claim for claim in claims if claim.experiment == one.name])
        yield f"| {one.paper} | {one.title} | {' | '.join(str(number) for number in numbers.values())} |"
    yield ""


def _picture(outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    if "ttl-sweep" in outcomes:
        yield "![What truncating costs: published and here, by the share of the MACs](papers-reproduced.svg)"
        yield ""


def _setting(outcomes: Mapping[str, Outcome], *, reduced: bool, command: str, minutes: float) -> Iterator[str]:
    if reduced:
        splits = max((len(one.experiment.splits) for one in outcomes.values()), default=1)
        one = "one split" if splits == 1 else f"{splits} splits"
        yield (
            f"**A reduced setting**: another network, smaller images, few images and epochs, {one}. The papers' own is "
            "the same command without `--reduced` and with weights of ResNet-50, which wants a GPU."
        )
        yield ""
    data = ", ".join(sorted({describe_own(found)["data"] for found in outcomes.values()})) or "none"
    yield (
        f"Data: {data}. Written by `{command}`; its searches took {minutes:.0f} minutes. Figures and machine: "
        "`benchmarks/results/papers.json`. Hyper-parameters: `benchmarks/papers/experiments.toml`."
    )
    yield ""
    yield (
        "AUROC is in percent, differences in points. The papers' images are not public, or not these: so AUROCs are "
        "not to be compared one by one. What can be compared is how candidates differ from each other. Every own "
        "difference has a paired 95 % interval over patients of the test split, and nothing is chosen on that split. "
        "`Cannot be told` means that the interval is too wide here, that steps are equal as far as epochs tell, or "
        "that the setting is not the one that the claim is about."
    )
    yield ""
    yield (
        "Rows are a cut and the [strategy](strategies.md) by which it was trained: `full` by `full` is the whole "
        "network, finetuned. MACs and parameters are shares of the first row's."
    )
    yield ""


def _claim_table(claims: Sequence[Claim]) -> Iterator[str]:
    yield "## The claims"
    yield ""
    yield "| verdict | paper | what it says | what is seen here | by the rule |"
    yield "|---|---|---|---|---|"
    for one in claims:
        yield f"| **{one.verdict}** | {one.paper} | {one.said} | {one.seen} | {one.rule} |"
    yield ""


def _section(experiment: Experiment, found: Outcome | None, published: Published) -> Iterator[str]:
    yield f"## {experiment.paper}: {experiment.title}"
    yield ""
    if found is None:
        yield f"Not run: {experiment.left_out}."
        yield ""
        return
    yield from _own_rows(found, published)
    yield from _notes(found, published)
    yield from _fairness(found, published)
    yield "This experiment alone, one split (`DATA` and the `.pth` file are yours):"
    yield ""
    yield "```text"  # not `sh`: the tests that type the documents' commands would repeat these searches
    yield from list_commands(experiment)
    yield "```"
    yield ""


def _own_rows(found: Outcome, published: Published) -> Iterator[str]:
    speeds = any(one.steps for one in published.figures)
    head = ["here", "MACs (parameters)", f"test {found.metric}", "difference"]
    head += ["published", "AUROC", "difference", "lies"]
    head += ["steps to the goal", "published steps"] if speeds else []
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    goal = goal_of(found.rows)
    for row in found.rows:
        figure = published.beside(row)
        cells = [_name(row, found), _share(row), _score(row), _difference(row, found)]
        cells += _published_cells(row, figure, found, published)
        if speeds:
            cells += [tell_steps(row, goal), f"{figure.steps:,}" if figure and figure.steps else ""]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _notes(found: Outcome, published: Published) -> Iterator[str]:
    notes = ["`lies`: where the published difference lies, seen from the own interval."]
    if any(not row.entrant.name for row in found.rows):
        notes.append(
            "A cut stands beside the published one of nearest share of the MACs: the networks differ, so no cut is "
            "the same."
        )
    if are_few(found) and any(one.few is not None for one in published.figures):
        notes.append("Published AUROCs and differences are those for 5,000 images, where they are known.")
    if any(one.steps for one in published.figures):
        notes.append(
            f"The goal is a validation AUROC of {100 * goal_of(found.rows):.1f}, {NEARLY:.1%} of the way from chance "
            "to the best here, as .91 is for the paper's transfer. Validation is after every epoch, so steps are known "
            f"to {found.rows[0].steps:,.0f}."
        )
    yield " ".join(notes)
    yield ""


def _fairness(found: Outcome, published: Published) -> Iterator[str]:
    own = describe_own(found)
    yield "**Is the comparison fair?** What differs:"
    yield ""
    yield "| | paper | here |"
    yield "|---|---|---|"
    for key, name in _SETTING.items():
        yield f"| {name} | {published.setting[key]} | {own[key]} |"
    yield ""
    yield (
        f"Hyper-parameters of the unreduced setting from: {found.experiment.source}. Unlike the paper: "
        f"{found.experiment.unlike}. Published figures from: {published.source}."
    )
    yield ""
    yield f"So what can be concluded: {found.experiment.concludes}.{_ceiling(found)}"
    yield ""


def _ceiling(found: Outcome) -> str:
    """Say where the reference leaves so little room that hardly anything can differ."""
    best = found.reference.auroc
    if best is None or best < _CEILING:
        return ""
    return (
        f" The reference has {100 * best:.1f} here: so near to 100, candidates differ by less than elsewhere, whatever "
        "is done."
    )


def _name(row: Row, found: Outcome) -> str:
    one = row.entrant
    backbone = "" if one.backbone == found.experiment.network else f"`{one.backbone}` "
    return f"{backbone}`{one.cut}` by `{one.strategy}`"


def _share(row: Row) -> str:
    return "" if np.isnan(row.macs_share) else f"{row.macs_share:.0%} ({row.params_share:.0%})"


def _score(row: Row) -> str:
    if row.auroc is None:
        return f"none: {row.failure or 'undefined'}"
    if len(row.scores) == 1:
        (score,) = row.scores
        bounds = "no interval" if score.low is None else f"{100 * score.low:.1f}, {100 * (score.high or 0):.1f}"
        return f"{100 * row.auroc:.1f} [{bounds}]"
    values = [100 * (score.value or 0.0) for score in row.scores]
    return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"


def _difference(row: Row, found: Outcome) -> str:
    if row is found.reference:
        return "the reference"
    try:
        return tell(found.compare(row, found.reference))
    except NotMadeError:
        return ""


def _published_cells(row: Row, figure: Figure | None, found: Outcome, published: Published) -> list[str]:
    if figure is None:
        return ["not published", "", "", ""]
    few = are_few(found)
    value, difference = published.value(figure, few=few), published.difference(figure, few=few)
    name = figure.name + (f" ({figure.share:.0%} of the MACs)" if figure.share is not None else "")
    spread = f" ± {figure.sd:g}" if figure.sd is not None and value == figure.auroc else ""
    told = figure.told if value is None else f"{value:g}{spread}"
    if row is found.reference or difference is None:
        return [name, told, "", ""]
    return [name, told, f"{difference:+.1f}", _place(difference, row, found)]


def _place(difference: float, row: Row, found: Outcome) -> str:
    """Say where a published difference lies, seen from the own interval; from the hull of several splits'."""
    try:
        own = found.compare(row, found.reference)
    except NotMadeError:
        return ""
    if difference < 100 * min(one.low for one in own):
        return "below ours"
    return "above ours" if difference > 100 * max(one.high for one in own) else "inside ours"
