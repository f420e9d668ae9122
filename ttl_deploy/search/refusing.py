"""The record that a refused export leaves in its run, for the report to tell."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from ttl_deploy.errors import GateError, InfeasibleError, StorageError
from ttl_deploy.files import make_folder
from ttl_deploy.records import codec
from ttl_deploy.records.refusals import Asked, Measured, RefusedExport
from ttl_deploy.runs.folder import RunFolder


@contextmanager
def recorded(run: RunFolder, asked: Asked, command: str) -> Iterator[None]:
    """Leave a record where a check refuses what is exported inside, or no threshold does what was asked; raise again.

    Where the record cannot be written the error says so, and stays what it is.
    """
    try:
        yield
    except (GateError, InfeasibleError) as error:
        try:
            _record(run, asked, command, error)
        except StorageError as failure:
            error.args = (f"{error} (the run keeps no record of this refusal: {failure})",)
        raise


def _record(run: RunFolder, asked: Asked, command: str, error: GateError | InfeasibleError) -> None:
    measured = error.measured if isinstance(error, GateError) else None
    now = datetime.now(UTC)
    name = f"{asked.artifact}--{now:%Y%m%dT%H%M%S%f}-{os.getpid()}.json"
    codec.save(
        make_folder(run.refusals) / name,
        RefusedExport(
            asked=asked,
            kind=type(error).__name__,
            reason=str(error),
            measured=measured if isinstance(measured, Measured) else None,
            command=command,
            time=now.isoformat(timespec="seconds"),
        ),
    )
