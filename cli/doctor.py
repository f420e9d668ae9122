"""`ttl-deploy doctor`: what this machine can do, and what to do about what it cannot."""

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ttl_deploy.records.diagnosis import Ability, Diagnosis, ExtraState, TargetState
    from ttl_deploy.records.hardware import Clock, JetsonState

NAME = "doctor"
_PIPE_WIDTH = 80
_NAME_WIDTH = 14
"""The least width of a block's names, in characters."""


def run(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Tell what this machine can do, and what is missing.

    Targets and precisions, the command that adds what is missing, problems.

    Ends with 0 where the base installation works, else with the code of the problem.
    """
    from ttl_deploy.runtime.diagnosis import diagnose

    found = diagnose()
    print(_to_json(found) if as_json else "\n".join(_render(found)))
    if found.exit_code:
        raise typer.Exit(found.exit_code)


def _to_json(found: "Diagnosis") -> str:
    try:
        from ttl_deploy.records import codec
    except ImportError:  # what the codec needs may be the very thing that is broken
        import json
        from dataclasses import asdict

        return json.dumps(asdict(found), indent=2)
    return codec.to_json(found)


def _render(found: "Diagnosis") -> Iterator[str]:
    """Yield the lines of a plain table: no other package is needed to print it."""
    yield from _block("machine", _machine_rows(found))
    if found.jetson is not None:
        yield from _block("Jetson", _jetson_rows(found.jetson))
    yield from _block("packages", [("python", found.python), *found.packages.items()])
    if found.targets:
        yield from _block("targets", _target_rows(found.targets))
    if found.extras:
        yield from _block("extras", [(f"[{extra.name}]", _describe_extra(extra)) for extra in found.extras])
    room = "unknown" if found.cache.free_bytes is None else f"{found.cache.free_bytes / 1e9:.1f} GB free"
    yield from _block("cache", [("folder", found.cache.folder or "unknown"), ("room", room)])
    problems = [(str(number), f"{one.what}\n{one.remedy}") for number, one in enumerate(found.problems, 1)]
    yield from _block("problems", problems or [("none", "")])


def _block(title: str, rows: "list[tuple[str, str]]") -> Iterator[str]:
    """Yield a title and rows of a name and a text; each line of a text begins anew, and goes on below itself."""
    width = shutil.get_terminal_size((_PIPE_WIDTH, 24)).columns if sys.stdout.isatty() else _PIPE_WIDTH
    names = max([_NAME_WIDTH, *(len(name) for name, _ in rows)])
    room = max(20, width - names - 4)
    yield title
    for name, text in rows:
        lines = [piece for line in text.splitlines() for piece in textwrap.wrap(line, room, break_on_hyphens=False)]
        for number, line in enumerate(lines or [""]):
            yield f"  {'' if number else name:<{names}}  {line}".rstrip()
    yield ""


def _machine_rows(found: "Diagnosis") -> list[tuple[str, str]]:
    processor = found.processor
    cards = [
        f"{gpu.name}, {'memory unknown' if gpu.memory_bytes is None else f'{gpu.memory_bytes / 1e9:.0f} GB'}, "
        f"compute capability {gpu.capability}, driver {gpu.driver}"
        for gpu in found.gpus
    ]
    return [
        ("host", found.host),
        ("system", found.system),
        ("processor", f"{processor.name} ({processor.architecture})"),
        ("instructions", ", ".join(processor.instructions) or "unknown"),
        ("lacking", ", ".join(processor.lacking) or "none"),
        ("cores", str(processor.cores)),
        ("memory", f"{processor.memory_bytes / 1e9:.1f} GB"),
        ("governor", processor.governor),
        *(("GPU", text) for text in cards or [found.gpu_note]),
    ]


def _jetson_rows(state: "JetsonState") -> list[tuple[str, str]]:
    return [
        ("model", state.model or "unknown"),
        ("JetPack", f"{state.jetpack or 'unknown'} (L4T {state.l4t or 'unknown'})"),
        ("power mode", state.power_mode or "unknown"),
        ("clocks", ", ".join(map(_describe_clock, state.clocks)) or "unknown"),
        ("temperatures", ", ".join(f"{name} {value:.0f} C" for name, value in state.temperatures_c.items())),
        ("throttled", ", ".join(f"{name} {count}" for name, count in state.throttle_events.items()) or "unknown"),
        ("power", ", ".join(f"{name} {watts:.2f} W" for name, watts in state.rails_w.items()) or "unknown"),
    ]


def _describe_clock(clock: "Clock") -> str:
    now = "unknown" if clock.current_hz is None else f"{clock.current_hz / 1e6:.0f} MHz"
    return f"{clock.name} {now}{' (locked)' if clock.locked else ''}"


def _target_rows(targets: Sequence["TargetState"]) -> list[tuple[str, str]]:
    """Return a row per target; what stops several of them is told once."""
    told: dict[str, str] = {}
    rows = []
    for target in targets:
        first = told.setdefault(target.problem, target.name)
        if target.ready:
            text = f"ready: {target.runtime}; {', '.join(map(_describe_ability, target.abilities))}"
        else:
            text = target.problem if first == target.name else f"as {first}"
        rows.append((target.name, text))
    return rows


def _describe_ability(ability: "Ability") -> str:
    return f"{ability.precision} ({ability.by})" if ability.by else ability.precision


def _describe_extra(extra: "ExtraState") -> str:
    if extra.installed:
        return f"installed: {extra.purpose}"
    note = f"\n{extra.note}" if extra.note else ""
    return f"adds {extra.purpose}; missing: {', '.join(extra.lacking)}\n{extra.command}{note}"
