"""`ttl-deploy front`: what was found, and the choice from it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from .quantities import parse_count, parse_duration_s

NAME = "front"


def run(
    run: Annotated[Path | None, typer.Argument(help="Run folder [the newest here].")] = None,
    pick: Annotated[
        str | None,
        typer.Option(help="Choose anew: smallest-within-interval, fastest-within-interval or best."),
    ] = None,
    max_latency: Annotated[str | None, typer.Option(help="Choose only cuts at most this slow, e.g. 5ms.")] = None,
    max_params: Annotated[
        str | None, typer.Option(help="Choose only cuts with at most this many parameters, e.g. 2M.")
    ] = None,
    max_macs: Annotated[str | None, typer.Option(help="Choose only cuts with at most this many MACs, e.g. 1G.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the front and the choice as JSON.")] = False,
) -> None:
    """Print a run's front, or choose another model of it.

    With --pick or a limit it chooses anew, on validation scores, and stores the choice.
    """
    import msgspec

    from ttl_deploy.errors import UnknownNameError, UsageError
    from ttl_deploy.records import codec
    from ttl_deploy.records.folds import CrossValidation
    from ttl_deploy.records.scores import PICK_RULES
    from ttl_deploy.search import findings
    from ttl_deploy.search.stages import describe_stages

    from .folds import FILE, is_cross_validation, print_folds
    from .runs import run_folder
    from .tables import describe_cost, print_front

    if run is not None and is_cross_validation(run):
        pooled = codec.load(CrossValidation, run / FILE)
        if any(option is not None for option in (pick, max_latency, max_params, max_macs)):
            raise UsageError(f"{run} is a cross-validation: choose anew in one of its folds, such as {run}/fold-1")
        if as_json:
            print(codec.to_json(pooled))
        else:
            print_folds(pooled)
        return
    folder = run_folder(run)
    if pick is not None and pick not in PICK_RULES:
        raise UnknownNameError("rule", pick, PICK_RULES)
    if any(option is not None for option in (pick, max_latency, max_params, max_macs)):
        found = findings.choose_again(
            folder,
            rule=pick,
            max_latency_s=parse_duration_s(max_latency) if max_latency else None,
            max_params=parse_count(max_params) if max_params else None,
            max_macs=parse_count(max_macs) if max_macs else None,
        )
    else:
        found = findings.read(folder)
    if as_json:
        content = {**codec.to_builtins(found), "stages": msgspec.to_builtins(describe_stages(folder))}
        print(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
        return
    print_front(found.front, found.choice)
    print(f"\n{describe_cost(folder)}")
