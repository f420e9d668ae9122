"""What all commands share: `--config`, `-v` and `-q`, values from file and environment, hints in errors."""

import functools
import inspect
import logging
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ttl_deploy.errors import UsageError

from .reading_options import PARAMETERS
from .sources import PREFIX, Given, find_settings, option_name
from .verbosity import QUIET, USUAL, VERBOSE, choose_level

_LOG = logging.getLogger("ttl_deploy_cli")


def _read_settings(context: typer.Context, config: Path | None) -> Path | None:
    """Make what file and environment say the defaults of this call; eager, so before any other option."""
    if not context.resilient_parsing:
        context.obj = find_settings(context, config)
        context.default_map = {name: setting.value for name, setting in context.obj.settings.items()}
    return config


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=_read_settings,
        help=f"TOML file with options; {PREFIX}<OPTION> variables work too (docs/settings.md).",
    ),
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Also tell what libraries log and warn of.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")]
_TABLES = {
    "strategy": "strategies",
    "policy": "policies",
    "executor": "executors",
    "format": "formats",
    "target": "targets",
    "profile_target": "targets",
}
"""The options that take names of a table in `ttl_deploy.plugins`, which a shell can complete."""
_SHARED = {"config": ConfigOption, "verbose": VerboseOption, "quiet": QuietOption}


def with_shared_options(run: Callable[..., None]) -> Callable[..., None]:
    """Return a command's function with the options that all commands have.

    In the place of `**reading` it gets those that say how a data set is read, behind `data`.
    """

    @functools.wraps(run)
    def command(*, config: Path | None, verbose: bool, quiet: bool, **options: Any) -> None:
        run(**options)  # the shared options did their work before: see `Command`

    own = _with_reading(tuple(inspect.signature(run).parameters.values()))
    for parameter in own:
        if parameter.name in _TABLES:
            (option,) = parameter.annotation.__metadata__
            option.autocompletion = _complete_from(_TABLES[parameter.name])
    defaults: dict[str, Any] = {"config": None, "verbose": False, "quiet": False}
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation)
        for name, annotation in _SHARED.items()
    ]
    own = tuple(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own)
    command.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined] # functions take attributes
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    return command


def _with_reading(own: tuple[inspect.Parameter, ...]) -> tuple[inspect.Parameter, ...]:
    kept = tuple(parameter for parameter in own if parameter.kind is not inspect.Parameter.VAR_KEYWORD)
    if len(kept) == len(own):
        return own
    reading = (
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in PARAMETERS.items()
    )
    behind = 1 + [parameter.name for parameter in kept].index("data")
    return (*kept[:behind], *reading, *kept[behind:])


def _complete_from(table: str) -> Callable[[str], list[str]]:
    """Return what completes a table's names; of a list with commas the last."""

    def complete(incomplete: str) -> list[str]:
        from ttl_deploy import plugins

        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in plugins.names(table) if name.startswith(last)]

    return complete


class Command(TyperCommand):
    """A command whose errors say where a value came from, and what was probably meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, with hints in the errors."""
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            if possible := getattr(error, "possibilities", None):
                error.message += f". Did you mean {', '.join(sorted(possible))}?"
                error.possibilities = None  # type: ignore[attr-defined] # of an unknown option's error
            if (parameter := getattr(error, "param", None)) is not None:
                error.message += _hint_value(error.message, parameter) + _name_origin(ctx, parameter)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run; a refused setting that did not stand on the command line is told with its place."""
        given: Given = ctx.obj
        verbose, quiet = ctx.params["verbose"], ctx.params["quiet"]
        if verbose and quiet:
            raise UsageError("--verbose and --quiet contradict each other: leave one out")
        choose_level(VERBOSE if verbose else QUIET if quiet else USUAL)
        _tell(given, {parameter.name: option_name(parameter) for parameter in ctx.command.params})
        try:
            return super().invoke(ctx)
        except UsageError as error:
            error.args = (f"{error}{_name_origins(str(error), ctx, given)}",)
            raise


def _tell(given: Given, names: Mapping[str, str]) -> None:
    for name, setting in sorted(given.settings.items()):
        _LOG.info("%s = %r, from %s", names[name], setting.value, setting.origin)
    if given.unused:
        _LOG.info("not used here: %s", ", ".join(given.unused))


def _hint_value(message: str, parameter: Any) -> str:
    """Return the nearest of an option's choices, in words."""
    choices = [str(choice) for choice in parameter.type_descriptor.choices or ()]
    given = re.search(r"'([^']*)'", message)
    near = get_close_matches(given.group(1), choices, n=1) if given else []
    return f" Did you mean {near[0]}?" if near else ""


def _name_origin(context: Any, parameter: Any) -> str:
    setting = context.obj.settings.get(parameter.name) if isinstance(context.obj, Given) else None
    return f" (from {setting.origin})" if setting and _is_default(context, parameter.name) else ""


def _name_origins(message: str, context: Any, given: Given) -> str:
    """Name the places of those settings that a message speaks of."""
    spoken = {word.replace("-", "_") for word in re.findall(r"[a-z][a-z_-]+[a-z]", message)}
    names = {parameter.name: option_name(parameter) for parameter in context.command.params}
    found = [
        f"{names[name]} is from {setting.origin}"
        for name, setting in given.settings.items()
        if spoken & {name, names[name]} and setting.origin not in message and _is_default(context, name)
    ]
    return f" ({'; '.join(found)})" if found else ""


def _is_default(context: Any, name: str) -> bool:
    """Tell whether a value is not from the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT_MAP"
