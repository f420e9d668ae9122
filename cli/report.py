"""`ttl-deploy report`: tables and a page for people."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ttl_deploy.runs.folder import RunFolder

NAME = "report"


def run(
    run: Annotated[Path | None, typer.Argument(help="Run folder [the newest here].")] = None,
    add: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Results of another machine, from build_on_target.sh: checked and kept first."
        ),
    ] = None,
    embed_images: Annotated[
        bool, typer.Option("--embed-images", help="Put the pictures of `analyze` on the page: patients' images.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the written files as JSON.")] = False,
) -> None:
    """Write the report of a run: page, Markdown and tables.

    That is report.html, report.md, results.csv, front.csv, stages.csv and subgroups.csv, as far as the run got.

    Says how often the test split was opened. With --add, results that are of another file than the run exported are
    refused (exit code 3), and so are answers that are not the model's (4); see docs/tensorrt.md.
    """
    import json

    from .progress import say
    from .remote_bench import add_results, describe_check
    from .runs import run_folder

    folder = run_folder(run)
    for path in add or []:
        say(describe_check(add_results(folder, path)))
    written = [str(path) for path in write_report(folder, embed_images=embed_images)]
    print(json.dumps({"written": written}, indent=2, ensure_ascii=False) if as_json else "\n".join(written))
    say(tell_openings(folder))


def tell_openings(folder: "RunFolder") -> str:
    """Say how often the test split was opened, by this run and before by others."""
    from ttl_deploy.records import codec
    from ttl_deploy.records.openings import EarlierOpenings

    own = len(folder.ledger.of_event("test_opened"))
    told = f"the test split was opened {_times(own)} by this run"
    if not folder.earlier_openings.exists():
        return told
    earlier = codec.load(EarlierOpenings, folder.earlier_openings)
    return f"{told}, and {_times(len(earlier.openings))} before by others that are known of"


def _times(number: int) -> str:
    return {0: "never", 1: "once"}.get(number, f"{number} times")


def write_report(folder: "RunFolder", *, embed_images: bool = False) -> tuple[Path, ...]:
    """Write a run's tables and page; returns their paths. Patients' images are on it only where they are embedded."""
    from ttl_deploy.report.collect import collect
    from ttl_deploy.report.file_sizes import find_sizes
    from ttl_deploy.report.markdown import write_markdown
    from ttl_deploy.report.page import write_page
    from ttl_deploy.report.subgroup_plot import write_subgroups_csv
    from ttl_deploy.report.tables import write_front_csv, write_results_csv, write_stages_csv

    story = collect(folder, embed_images=embed_images)
    written = [folder.path / "results.csv"]
    write_results_csv(written[0], story)
    if story.front is not None:
        written.append(folder.path / "front.csv")
        write_front_csv(written[-1], story.front, sizes=find_sizes(story, story.front))
    if story.stages is not None:
        written.append(folder.path / "stages.csv")
        write_stages_csv(written[-1], story.stages)
    if story.subgroups is not None:
        written.append(folder.path / "subgroups.csv")
        write_subgroups_csv(written[-1], story.subgroups)
    written.append(folder.path / "report.md")
    write_markdown(written[-1], story)
    write_page(folder.report, story)
    return (*written, folder.report)
