"""What `bench --ssh` and `report --add` share: results of another machine, checked, kept and shown."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ttl_deploy.records.benchmarks import BenchReport
    from ttl_deploy.records.target_results import TargetCheck
    from ttl_deploy.runs.folder import RunFolder


def bench_there(
    artifact: Path,
    host: str,
    *,
    target: str | None,
    arguments: Sequence[str],
    out: Path | None,
    timeout_s: float,
) -> "BenchReport":
    """Take an artifact to a host, measure it there, and keep the results in its run, or beside it."""
    from ttl_deploy.files import make_folder
    from ttl_deploy.runtime.artifact import open_artifact
    from ttl_deploy.runtime.kit.reading import check_results, host_folder, keep_results, read_results, report_of
    from ttl_deploy.runtime.kit.remote import Host, fetch_results
    from ttl_deploy.runtime.kit.writing import stage_kit

    from .progress import say
    from .runs import run_of_artifact

    there, opened = Host(name=host, timeout_s=timeout_s), open_artifact(artifact)
    with tempfile.TemporaryDirectory(prefix="ttl-deploy-kit-") as scratch:
        kit = make_folder(Path(scratch) / "artifact")
        stage_kit(opened, kit, target=target)
        results = read_results(fetch_results(kit, there, Path(scratch), arguments=arguments, say=say))
    check = check_results(results, opened)
    owner = run_of_artifact(artifact)
    name = host_folder(results)
    folder = out or (owner.bench(name) if owner else opened.folder.parent / "bench" / name)
    say(describe_check(check))
    for path in keep_results(results, check, folder):
        say(f"kept: {path}")
    return report_of(results)


def refuse_local_options(given: Mapping[str, bool], artifacts: int) -> None:
    """Raise `UsageError` for options that another machine's script does not have."""
    from ttl_deploy.errors import UsageError

    if wrong := [name for name, there in given.items() if there]:
        raise UsageError(
            f"{', '.join(wrong)} does not go with --ssh: --target, --batch, --threads, --seconds, --rounds do"
        )
    if artifacts > 1:
        raise UsageError("--ssh measures one artifact: name one")


def add_results(run: "RunFolder", path: Path) -> "TargetCheck":
    """Check results that were brought by hand against the run's artifacts, and keep them in the run."""
    from ttl_deploy.runtime.artifact import open_artifact
    from ttl_deploy.runtime.kit.reading import artifact_of, check_results, host_folder, keep_results, read_results

    results = read_results(path)
    artifact = artifact_of(results, [open_artifact(folder) for folder in run.exports()])
    check = check_results(results, artifact)
    keep_results(results, check, run.bench(host_folder(results)))
    return check


def describe_check(check: Any) -> str:
    """Say in a line what ran where, and how its answers compare."""
    golden = check.golden
    return (
        f"{check.artifact} on {check.host}: {check.runtime} in {check.precision}, through {check.way}; {golden.images} "
        f"golden images, probabilities differ by up to {golden.max_difference:.2g} (allowed {golden.limit:g})"
    )
