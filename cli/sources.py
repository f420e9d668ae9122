"""Where options come from: the command line beats the config file, which beats the environment.

All commands take values the same way. The option `--batch-size` is `batch_size = 64` in a TOML file, at the top for
every command that has such an option or in a table for one command (`[search]`), and `TTL_DEPLOY_BATCH_SIZE=64` or
`TTL_DEPLOY_SEARCH_BATCH_SIZE=64` in the environment. The command's own beats the general one. An empty variable is
one that is not set.
"""

import json
import os
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ttl_deploy.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from ttl_deploy.runs.folder import RunFolder

ORIGINS = "origins.json"
"""Beside a run's `config.json`: where each setting was given, if it is no default."""
PREFIX = "TTL_DEPLOY_"
RESERVED = frozenset({"TTL_DEPLOY_CACHE"})
"""Variables of ours that are no options."""
_NOT_IN_FILES = frozenset({"config", "help"})
_TRUTH = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One option's value, and the words that say where it was found."""

    value: Any
    origin: str


@dataclass(slots=True)
class Given:
    """What file and environment give to the command that runs; `typer.Context.obj` of its call."""

    settings: dict[str, Setting] = field(default_factory=dict)
    """By the parameter's name."""
    variables: dict[str, str] = field(default_factory=dict)
    """The variables that are for this command, for repeating it."""
    unused: tuple[str, ...] = ()
    """Options of the file that other commands have and this one does not."""


def option_name(parameter: Any) -> str:
    """Return an option's name in files: its longest flag without dashes, words joined by underscores."""
    longest: str = max(parameter.opts, key=len)
    return longest.lstrip("-").replace("-", "_")


def options_of(command: Any) -> dict[str, Any]:
    """Return a command's options by their names in files; what only prints and ends is none."""
    return {
        option_name(parameter): parameter
        for parameter in command.params
        if parameter.param_type_name == "option" and option_name(parameter) not in ("help", "version")
    }


def find_settings(context: typer.Context, config: Path | None) -> Given:
    """Collect what the config file and the environment say about the command of `context`.

    Raises `UsageError` for names that no command has and for values of the wrong kind, with their place.
    """
    name = str(context.command.name)
    known = getattr(context.find_root().command, "commands", {name: context.command})
    commands = {one: options_of(command) for one, command in known.items()}
    given = Given()
    environment = _from_environment(commands, name)
    given.variables = {setting.origin: os.environ[setting.origin] for setting in environment.values()}
    if config is None and "config" in environment:
        config = Path(environment["config"].value)
    merged = environment
    if config is not None:
        in_file, given.unused = _from_file(config, commands, name)
        merged = environment | in_file
    merged.pop("config", None)
    own = commands[name]
    given.settings = {
        own[option].name: Setting(value=_fit(own[option], setting, option), origin=setting.origin)
        for option, setting in merged.items()
    }
    return given


def _from_environment(commands: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Setting]:
    known = {f"{PREFIX}{option.upper()}": (None, option) for own in commands.values() for option in own}
    known |= {
        f"{PREFIX}{command.upper()}_{option.upper()}": (command, option)
        for command, own in commands.items()
        for option in own
    }
    general: dict[str, Setting] = {}
    special: dict[str, Setting] = {}
    for variable, text in sorted(os.environ.items()):
        if not variable.startswith(PREFIX) or variable in RESERVED or not text:
            continue
        if variable not in known:
            raise UnknownNameError(
                "environment variable", variable, {*known, *RESERVED}, f"Or unset it: {PREFIX}* names our options."
            )
        command, option = known[variable]
        if command == name or (command is None and option in commands[name]):
            (special if command else general)[option] = Setting(value=text, origin=variable)
    return general | special


def _from_file(
    path: Path, commands: Mapping[str, Mapping[str, Any]], name: str
) -> tuple[dict[str, Setting], tuple[str, ...]]:
    content = _read_toml(path)
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    top = {key: value for key, value in content.items() if key not in tables}
    for table in tables:
        if table not in commands:
            raise UnknownNameError("table", table, commands, f"It is in {path}, where [tables] are commands.")
    general = dict(_named(top, {option for own in commands.values() for option in own}, str(path)))
    for table, entries in tables.items():
        special = dict(_named(entries, commands[table], f"{path}, [{table}]"))
        if table == name:
            general |= special
    used = {option: setting for option, setting in general.items() if option in commands[name]}
    return used, tuple(sorted(set(general) - set(used)))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the config file {path}: {error}") from error


def _named(entries: Mapping[str, Any], allowed: Iterable[str], origin: str) -> Iterator[tuple[str, Setting]]:
    names = set(allowed) - _NOT_IN_FILES
    for key, value in entries.items():
        option = key.replace("-", "_")
        if option not in names:
            raise UnknownNameError("option", key, names, f"It is in {origin}.")
        yield option, Setting(value=value, origin=origin)


def _fit(parameter: Any, setting: Setting, option: str) -> Any:
    """Return a value as the command line would give it; raises `UsageError` for one of the wrong kind."""
    kind = parameter.type_descriptor.annotation
    from_environment = setting.origin.startswith(PREFIX)
    values = setting.value if isinstance(setting.value, list) else [setting.value]
    if parameter.is_flag:
        return _truth(setting, option)
    if parameter.multiple:
        parts = setting.value.split(",") if from_environment else values
        return [_text(part, setting, option) for part in parts]
    if from_environment:
        return setting.value
    if kind in (int, float):
        return _number(setting, kind, option)
    if isinstance(setting.value, list) and any("," in str(value) for value in values):
        raise UsageError(f"{option} = {setting.value!r} in {setting.origin}: a comma separates the entries of a list")
    return ",".join(_text(value, setting, option) for value in values)


def _truth(setting: Setting, option: str) -> bool:
    value = _TRUTH.get(setting.value.lower()) if isinstance(setting.value, str) else setting.value
    if isinstance(value, bool) and (isinstance(setting.value, bool) or setting.origin.startswith(PREFIX)):
        return value
    raise _wrong(setting, option, "true or false")


def _number(setting: Setting, kind: type, option: str) -> int | float:
    value: Any = setting.value
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise _wrong(setting, option, "a whole number" if kind is int else "a number")
    return kind(value)


def _text(value: Any, setting: Setting, option: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _wrong(setting, option, "a text, a number, or a list of them")
    return str(value)


def _wrong(setting: Setting, option: str, allowed: str) -> UsageError:
    return UsageError(f"{option} = {setting.value!r} in {setting.origin}: give {allowed}")


def typed_command(context: typer.Context, arguments: Iterable[str]) -> str:
    """Return the command to type again: with the environment's variables that it used before it."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in sorted(context.obj.variables.items())]
    return " ".join([*variables, shlex.join(["ttl-deploy", *arguments])])


def describe_origins(context: typer.Context) -> dict[str, str]:
    """Return where each option that is no default was given, by its name."""
    told: dict[str, str] = {}
    for name, parameter in options_of(context.command).items():
        source = context.get_parameter_source(parameter.name)
        if source is not None and source.name == "COMMANDLINE":
            told[name] = "command line"
        elif parameter.name in context.obj.settings:
            told[name] = context.obj.settings[parameter.name].origin
    return told


@contextmanager
def store_origins(context: typer.Context, run: "RunFolder") -> Iterator[None]:
    """Write, once a search has begun its run, where its settings were given; a resumed run keeps its first."""
    from ttl_deploy.files import publish_text

    path = run.path / ORIGINS
    try:
        yield
    finally:
        if not path.exists() and run.config.is_file() and run.ledger.entries():
            publish_text(path, json.dumps(describe_origins(context), indent=2, ensure_ascii=False) + "\n")
