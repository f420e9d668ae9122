"""Which run or artifact a command means when none is named: the newest here."""

from pathlib import Path

from ttl_deploy.errors import NoRunError
from ttl_deploy.runs.folder import RunFolder, find_runs, newest_run


def run_folder(given: Path | None) -> RunFolder:
    """Return the run that was named, or the newest here; raises `NoRunError`."""
    folder = RunFolder(given) if given is not None else newest_run(Path.cwd())
    folder.settings()
    return folder


def artifact_path(given: Path | None) -> Path:
    """Return the artifact that was named (an artifact, or a run with one), or the newest here."""
    if given is not None and not (given / "config.json").is_file():
        return given
    runs = (RunFolder(given),) if given is not None else find_runs(Path.cwd())
    for run in runs:
        if exports := run.exports():
            return exports[0]
    where = str(given) if given is not None else "the runs here"
    raise NoRunError(
        f"no exported model in {where}: make one with `ttl-deploy export --format onnx`, or name an artifact"
    )


def run_of_artifact(artifact: Path) -> RunFolder | None:
    """Return the run folder that an artifact lies in, if it still does."""
    folder = artifact if artifact.is_dir() else artifact.parent
    run = RunFolder(folder.resolve().parent.parent)
    return run if run.config.is_file() else None
