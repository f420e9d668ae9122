"""`ttl-deploy subgroups`: is the model as good on women as on men, on this site as on that?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ttl_deploy.records.subgroups import Subgroup, Subgroups

NAME = "subgroups"


def run(
    run: Annotated[Path | None, typer.Argument(help="Run folder [the newest here].")] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Columns of the table, e.g. sex,age [all with 2 to 12 values, or numbers].")
    ] = None,
    bands: Annotated[
        list[str] | None, typer.Option(help="Where bands of a column begin, e.g. age=18,40,65 [quartiles].")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="val or test [test, if the search opened it for this model].")
    ] = None,
    cut: Annotated[str | None, typer.Option(help="This cut [the chosen one].")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="The cut as trained by this one [the best on validation].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="This seed [the chosen, or the best on validation].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as JSON.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write the scores to this file too.")] = None,
) -> None:
    """Score the chosen model by sex, age band, view or site.

    By every column of the data's table that makes groups.

    Each group is scored by itself, with n and intervals by patient, beside the full network; groups too small to judge
    say so. No model is run. A use of the test split is written into the run's ledger. See docs/subgroups.md.
    """
    import shlex
    import sys

    from ttl_deploy.errors import UnknownNameError
    from ttl_deploy.records import codec
    from ttl_deploy.report.subgroup_plot import write_subgroups_csv
    from ttl_deploy.runtime import stored_predictions, stored_subgroups

    from .progress import say, spinner
    from .runs import run_folder

    if split not in (None, "val", "test"):
        raise UnknownNameError("split", split, ("val", "test"))
    folder = run_folder(run)
    model = stored_subgroups.find_model(folder, cut=cut, strategy=strategy, seed=seed)
    columns = stored_subgroups.list_columns(folder)
    with spinner("scoring subgroups"):
        found = stored_subgroups.describe_subgroups(
            folder,
            model,
            split=split,  # type: ignore[arg-type] # checked above
            by=parse_columns(by or (), columns),
            bands=parse_bands(bands or ()),
        )
    if found.columns:
        models = stored_subgroups.read_models(folder, found)
        command = shlex.join(["ttl-deploy", *sys.argv[1:]])
        for opened in stored_predictions.record_openings(models, split=found.split, command=command, by=NAME):
            say(f"the ledger of {opened.path} now tells that its test split was used by this command")
    if csv is not None:
        write_subgroups_csv(csv, found)
    if as_json:
        print(codec.to_json(found))
    else:
        _print(found)


def parse_columns(given: "Sequence[str]", known: "Sequence[str]") -> tuple[str, ...]:
    """Return the columns of lists separated by commas; a column's own name may hold one."""
    found: list[str] = []
    for text in given:
        found += [text] if text in known else [name for part in text.split(",") if (name := part.strip())]
    return tuple(dict.fromkeys(found))


def parse_bands(given: "Sequence[str]") -> dict[str, tuple[float, ...]]:
    """Return the edges of each column's bands; raises `UsageError` for what is not COLUMN=NUMBER,NUMBER,…"""
    from ttl_deploy.errors import UsageError
    from ttl_deploy.evidence.columns import read_number

    found: dict[str, tuple[float, ...]] = {}
    for text in given:
        column, _, edges = text.rpartition("=")
        numbers = [read_number(edge.strip()) for edge in edges.split(",")]
        if not column or None in numbers:
            raise UsageError(f"--bands {text!r}: give a column and where its bands begin, such as age=18,40,65")
        found[column.strip()] = tuple(number for number in numbers if number is not None)
    return found


def _print(found: "Subgroups") -> None:
    """Print a line per group, then what the numbers rest on."""
    from ttl_deploy.evidence.columns import clean_name
    from ttl_deploy.evidence.subgroup_words import explain, tell_columns

    from .tables import print_table

    if not found.columns:
        print(tell_columns(found))
        return
    rows = [_row("all", found.overall, found)]
    for column in found.columns:
        rows += [_row(f"{clean_name(column.column)}: {group.name}", group, found) for group in column.groups]
    titles = (
        "group",
        "images",
        "patients",
        _positive_title(found),
        "AUROC",
        "sensitivity",
        "specificity",
        "to the rest",
    )
    reference = ("AUROC of the reference",) if found.reference else ()
    columns = (*titles, *reference, "")
    kept = [at for at in range(len(columns)) if at in (0, 4) or any(row[at] for row in rows)]
    numeric = [columns[at] not in ("group", "") for at in kept]
    print_table([columns[at] for at in kept], [[row[at] for at in kept] for row in rows], numeric=numeric)
    for sentence in explain(found):
        print(sentence)


def _positive_title(found: "Subgroups") -> str:
    from ttl_deploy.evidence.columns import clean_name

    return clean_name(found.classes[1]) if len(found.classes) == 2 else "by class"


def _row(name: str, group: "Subgroup", found: "Subgroups") -> list[str]:
    from ttl_deploy.report.numbers import format_rest, format_score

    counts = "/".join(map(str, group.per_class)) if group.positives is None else str(group.positives)
    scores = [format_score(score) for score in group.scores]
    reference = group.reference_score("auroc")
    beside = [format_score(reference) if reference else ""] if found.reference else []
    rest = format_rest(group.to_rest) if group.to_rest else ""
    return [name, str(group.images), str(group.patients), counts, *scores, rest, *beside, group.small]
