"""`ttl-deploy report`: tables and a page for people."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ttl_deploy.runs.folder import RunFolder

NAME = "report"


def run(run: Annotated[Path | None, typer.Argument(help="Run folder [the newest here].")] = None) -> None:
    """Write results.csv, front.csv and report.html (one offline page) of a run, as far as it got."""
    from .runs import run_folder

    for path in write_report(run_folder(run)):
        print(path)


def write_report(folder: "RunFolder") -> tuple[Path, ...]:
    """Write a run's tables and page; returns their paths."""
    from ttl_deploy.report.collect import collect
    from ttl_deploy.report.page import write_page
    from ttl_deploy.report.tables import write_front_csv, write_results_csv

    story = collect(folder)
    results, front = folder.path / "results.csv", folder.path / "front.csv"
    write_results_csv(results, story)
    write_page(folder.report, story)
    if story.front is None:
        return results, folder.report
    write_front_csv(front, story.front)
    return results, front, folder.report
