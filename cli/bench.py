"""`ttl-deploy bench`: how fast, and how sure."""

from pathlib import Path
from typing import Annotated

import typer

NAME = "bench"


def run(
    artifacts: Annotated[
        list[Path] | None, typer.Argument(help="Artifacts, or run folders with one [the newest here].")
    ] = None,
    target: Annotated[str, typer.Option(help="Runtime and device to measure on.")] = "onnxruntime-cpu",
    batch: Annotated[str, typer.Option(help="Images per call, e.g. 1 or 1,8,32.")] = "1",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    seconds: Annotated[float, typer.Option(help="Seconds of timing per row, shared out among the rounds.")] = 6.0,
    rounds: Annotated[int, typer.Option(min=2, help="Fresh processes per row.")] = 3,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for the JSON with raw samples.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, raw samples included.")] = False,
) -> None:
    """Measure latency and throughput in fresh processes, warm-up apart, raw samples kept.

    Exit code 7 if a row is inconclusive: its rounds differ by more than a quarter.
    """
    import platform

    from ttl_deploy.errors import InconclusiveError, UsageError
    from ttl_deploy.records import codec
    from ttl_deploy.runtime.artifact import open_artifact
    from ttl_deploy.runtime.bench import bench, inconclusive_rows, write_report

    from .progress import say, show_steps
    from .runs import artifact_path, run_of_artifact
    from .tables import print_bench

    try:
        batches = tuple(int(size) for size in batch.split(","))
    except ValueError as error:
        raise UsageError(f"--batch {batch!r} is not a list of whole numbers such as 1,8,32") from error
    paths = [artifact_path(path) for path in (artifacts or [None])]
    opened = [open_artifact(path) for path in paths]
    with show_steps(f"timing {', '.join(artifact.manifest.name for artifact in opened)} on {target}") as update:
        report = bench(
            opened, target=target, batches=batches, threads=threads, seconds=seconds, rounds=rounds, progress=update
        )
    owner = run_of_artifact(paths[0])
    folder = out or (owner.bench(platform.node() or "unknown") if owner else Path("bench"))
    stored = write_report(report, folder)
    if as_json:
        print(codec.to_json(report))
    else:
        print_bench(report)
    say(f"raw samples: {stored}")
    if inconclusive := inconclusive_rows(report):
        raise InconclusiveError(
            f"{len(inconclusive)} of {len(report.rows)} rows are inconclusive: close other programs, then bench again"
        )
