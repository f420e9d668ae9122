"""The entry point: registers the commands, and turns errors and signals into exit codes.

Nothing heavy is imported here: every command imports its part of the library when it runs.
"""

import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from ttl_deploy import __version__
from ttl_deploy.errors import RunInterruptedError, TtlDeployError

from . import (
    analyze,
    bench,
    build,
    compare,
    cuts,
    doctor,
    export,
    front,
    inspect,
    predict,
    probe,
    report,
    search,
    subgroups,
    verify,
)
from .command import Command, with_shared_options

EPILOG = (
    "Exit codes: 0 ok, 1 our bug, 2 usage, 3 bad data or leakage, 4 gate failed, 5 constraint infeasible, "
    "6 target not available, 7 inconclusive measurement, 74 not writable, 75 run folder in use, 130/143 interrupted."
)

app = typer.Typer(
    name="ttl-deploy",
    help="Find how much of a pretrained backbone a medical-image task needs, prove it, and ship it.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (
    *(inspect, probe, search, front, compare, subgroups),
    *(export, build, verify, predict, bench, analyze, report, cuts, doctor),
):
    app.command(name=command.NAME, cls=Command)(with_shared_options(command.run))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ttl-deploy {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; ends the process with the exit codes of `ttl_deploy.errors`."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except TtlDeployError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    raise RunInterruptedError("interrupted; what is done so far is kept", signal_number=number)
