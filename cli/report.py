"""`ttl-deploy report`: tables and a page for people."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ttl_deploy.runs.folder import RunFolder

NAME = "report"


def run(run: Annotated[Path | None, typer.Argument(help="Run folder [the newest here].")] = None) -> None:
    """Write results.csv, front.csv, stages.csv and report.html (one offline page) of a run, as far as it got."""
    from .runs import run_folder

    for path in write_report(run_folder(run)):
        print(path)


def write_report(folder: "RunFolder") -> tuple[Path, ...]:
    """Write a run's tables and page; returns their paths."""
    from ttl_deploy.report.collect import collect
    from ttl_deploy.report.page import write_page
    from ttl_deploy.report.tables import write_front_csv, write_results_csv, write_stages_csv

    story = collect(folder)
    written = [folder.path / "results.csv"]
    write_results_csv(written[0], story)
    if story.front is not None:
        written.append(folder.path / "front.csv")
        write_front_csv(written[-1], story.front)
    if story.stages is not None:
        written.append(folder.path / "stages.csv")
        write_stages_csv(written[-1], story.stages)
    write_page(folder.report, story)
    return (*written, folder.report)
