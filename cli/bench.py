"""`ttl-deploy bench`: how fast, and how sure."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ttl_deploy.records.benchmarks import BenchReport

NAME = "bench"
_RUNS, _LIMIT_S = 200, 60.0


def run(
    artifacts: Annotated[
        list[Path] | None, typer.Argument(help="Artifacts, or run folders with one [the newest here].")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Where to measure, e.g. onnxruntime-cpu,openvino-cpu:bf16 [each artifact's own].")
    ] = None,
    mode: Annotated[
        Literal["latency", "throughput"],
        typer.Option(help="One call after the other, or streams on all cores at once."),
    ] = "latency",
    batch: Annotated[str, typer.Option(help="Images per call, e.g. 1 or 1,8,32.")] = "1",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of a call.")] = 1,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Add rows from image file to probabilities: decode, resize, run.")
    ] = False,
    images: Annotated[
        Path | None, typer.Option(help="Image files for --end-to-end: a folder or a file [drawn by code].")
    ] = None,
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Compare every artifact with the first; adds rounds while that is unclear."),
    ] = False,
    seconds: Annotated[
        float, typer.Option(help="Least seconds of timing per row, shared out among its processes.")
    ] = 3.0,
    runs: Annotated[int, typer.Option(min=1, help="Least runs per row.")] = _RUNS,
    limit: Annotated[
        float, typer.Option(help="Most seconds of timing per row, however few runs these are.")
    ] = _LIMIT_S,
    rounds: Annotated[int, typer.Option(min=2, help="Fresh processes per row.")] = 5,
    seed: Annotated[int | None, typer.Option(help="Of the order of the processes [drawn, and recorded].")] = None,
    pin: Annotated[bool, typer.Option("--pin/--no-pin", help="Keep every process on the same cores.")] = True,
    trtexec: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="What trtexec told of this model here (--exportTimes, or printed), to set beside ours."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for the JSON with raw samples.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, raw samples included.")] = False,
    ssh: Annotated[
        str | None,
        typer.Option(
            metavar="USER@HOST", help="Build and measure on this machine over ssh and scp; no password is asked."
        ),
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="With --ssh: fetch missing packages there, into the temporary folder.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="With --ssh: give up after so long.")
    ] = 3600.0,
) -> None:
    """Measure latency and throughput of exported models.

    In fresh processes, warm-up apart, raw samples kept (docs/bench.md).

    With --ssh an artifact is copied to another machine, its engine built and compared there, and the results are
    brought back into its run, or beside it (docs/tensorrt.md).
    Exit code 6 if a candidate could not be measured, 7 if a row is inconclusive because the machine was disturbed.
    """
    import platform
    import secrets
    from dataclasses import replace

    from ttl_deploy.runtime.artifact import open_artifact
    from ttl_deploy.runtime.bench import BenchPlan, bench, write_report
    from ttl_deploy.runtime.image_files import find_images

    from .imported_times import import_times
    from .progress import say, show_steps
    from .remote_bench import bench_there, refuse_local_options
    from .runs import artifact_path, run_of_artifact

    paths = [artifact_path(path) for path in (artifacts or [None])]
    if ssh is not None:
        local = {
            "--mode": mode != "latency",
            "--end-to-end": end_to_end,
            "--images": images is not None,
            "--compare": compare,
            "--runs": runs != _RUNS,
            "--limit": limit != _LIMIT_S,
            "--seed": seed is not None,
            "--no-pin": not pin,
            "--trtexec": bool(trtexec),
        }
        refuse_local_options(local, len(paths))
        _batches(batch)
        asked = {"batch": batch, "threads": threads, "seconds": seconds, "rounds": rounds}
        arguments = [*(f"--{name}={value}" for name, value in asked.items()), *(["--install"] if install else [])]
        report = bench_there(paths[0], ssh, target=target, arguments=arguments, out=out, timeout_s=timeout)
        _show(report, as_json=as_json)
        return
    batches = _batches(batch)
    targets = tuple(target.split(",")) if target else ("tensorrt",) if trtexec else ()
    plan = BenchPlan(
        targets=targets,
        batches=batches,
        threads=threads,
        mode=mode,
        end_to_end=end_to_end or images is not None,
        images=tuple(find_images([images])) if images else (),
        seconds=seconds,
        runs=runs,
        limit_s=max(limit, seconds),
        rounds=rounds,
        seed=secrets.randbelow(2**32) if seed is None else seed,
        pinned=pin,
        compare=compare,
    )
    opened = [open_artifact(path) for path in paths]
    imported = import_times(trtexec or [], opened, plan)
    for note in dict.fromkeys(one.target_note for one in opened if not targets and one.target_note):
        say(note)
    with show_steps(f"timing {', '.join(artifact.manifest.name for artifact in opened)}") as update:
        report = replace(bench(opened, plan, progress=update), imported=imported)
    owner = run_of_artifact(paths[0])
    folder = out or (owner.bench(platform.node() or "unknown") if owner else Path("bench"))
    stored = write_report(report, folder)
    say(f"raw samples: {stored}")
    _show(report, as_json=as_json)


def _show(report: "BenchReport", *, as_json: bool) -> None:
    """Print a report; raises where it is doubtful."""
    from ttl_deploy.records import codec

    from .tables import print_bench

    if as_json:
        print(codec.to_json(report))
    else:
        print_bench(report)
    _refuse_doubtful(report)


def _batches(given: str) -> tuple[int, ...]:
    from ttl_deploy.errors import UsageError

    try:
        return tuple(int(size) for size in given.split(","))
    except ValueError as error:
        raise UsageError(f"--batch {given!r} is not a list of whole numbers such as 1,8,32") from error


def _refuse_doubtful(report: "BenchReport") -> None:
    """Raise where a candidate failed, or a row is inconclusive."""
    from ttl_deploy.errors import InconclusiveError, TargetUnavailableError
    from ttl_deploy.runtime.bench import inconclusive_rows

    if report.failures:
        reasons = [f"{one.artifact} on {one.target}, batch {one.batch}: {one.reason}" for one in report.failures]
        raise TargetUnavailableError(f"{len(reasons)} candidates could not be measured. " + "\n".join(reasons))
    if inconclusive := inconclusive_rows(report):
        raise InconclusiveError(
            f"{len(inconclusive)} of {len(report.rows)} rows are inconclusive: close other programs, then bench again"
        )
