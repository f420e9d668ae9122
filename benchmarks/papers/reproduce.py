"""The experiments of the three papers, through the public search, beside what the papers print.

Run:  python benchmarks/papers/reproduce.py --data DIR --weights NAME=FILE… [--reduced] [--only NAME…] [--write]
      DIR is any data set that `ttl-deploy search` reads; FILE are ImageNet weights of the networks in
      `experiments.toml`: resnet50 for the papers' setting, mobilenet_v2 for the reduced one.
Every candidate is trained by the public search and scored on the test split, which the ledger of each run records;
nothing is chosen by it. Interrupted, the same command goes on. `--dry-run` checks everything and tells how long it
would take. `--write` makes docs/papers-reproduced.md and its picture.
"""

import argparse
import dataclasses
import json
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from claims import judge
from experiments import Experiment, parse_weights, read_experiments
from outcomes import Outcome, Row, read_outcome
from page import render
from picture import draw
from plan import Plan, Search, make_plan
from prospect import tell_prospect
from shared import store, test_all

from ttl_deploy.errors import RunInterruptedError, TtlDeployError
from ttl_deploy.files import make_folder, publish_text
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.study import run_study
from ttl_deploy_cli.progress import say, show_study
from ttl_deploy_cli.reading_options import PARAMETERS as READING
from ttl_deploy_cli.reading_options import read_reading

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "papers-reproduced.md"
_TIMES = "seconds.json"


def main(arguments: list[str] | None = None) -> int:
    """Run, judge and tabulate; returns the exit code."""
    given = _parse(arguments)
    typed = shlex.join(["python", "benchmarks/papers/reproduce.py", *(arguments or sys.argv[1:])])
    try:
        experiments = read_experiments(
            given.data,
            reading=read_reading(vars(given)),
            weights=parse_weights(given.weights),
            reduced=given.reduced,
            only=given.only or (),
            image_size=given.image_size,
        )
        plan = make_plan(experiments)
        tell_prospect(experiments, plan, given.out)
        if given.dry_run:
            return 0
        for number, search in enumerate(plan.searches, 1):
            say(f"search {number} of {len(plan.searches)}: {search.title}")
            run_search(search, given.out, typed)
        outcomes = {one.name: read_outcome(one, plan, given.out) for one in experiments if one.entrants}
        publish(experiments, plan, outcomes, given)
    except TtlDeployError as error:
        told = isinstance(error, RunInterruptedError) and typed not in str(error)
        say(f"error: {error}" + (f". To resume, type:\n  {typed}" if told else ""))
        return int(error.exit_code)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a data set as for `ttl-deploy search`")
    for name, kind in READING.items():
        told = get_args(kind)[1].help.replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", type=float if name == "max_bad" else str, help=told)
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE", help="ImageNet weights by network")
    parser.add_argument("--reduced", action="store_true", help="small network, images and epochs; labelled as such")
    parser.add_argument("--only", nargs="+", help="names of experiments [all]")
    parser.add_argument("--image-size", type=int, help="pixels, instead of those of the setting")
    parser.add_argument("--out", type=Path, default=Path("runs/papers"))
    parser.add_argument("--dry-run", action="store_true", help="only check everything, and tell how long it would take")
    parser.add_argument("--write", action="store_true", help=f"write docs/{DOCUMENT.name}")
    return parser.parse_args(arguments)


def run_search(search: Search, out: Path, command: str) -> None:
    """Make one search, or what is left of it, and test all that it trained; the time it took is added up in `out`.

    Reading again a search that is done does not count.
    """
    run, began = RunFolder(out / search.folder), time.perf_counter()
    done = run.front.is_file() and search.folder in _read_times(out)
    with show_study(run, command, enabled=True) as reporter:
        run_study(search.settings, run, command=command, reporter=reporter)
    test_all(run, command)
    if done:
        return
    times = _read_times(out)
    times[search.folder] = times.get(search.folder, 0.0) + time.perf_counter() - began
    publish_text(make_folder(out) / _TIMES, json.dumps(times, indent=2) + "\n")


def _read_times(out: Path) -> dict[str, float]:
    path = out / _TIMES
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def publish(
    experiments: Sequence[Experiment], plan: Plan, outcomes: dict[str, Outcome], given: argparse.Namespace
) -> None:
    """Print the page; with `--write` store it, its picture and the figures."""
    only = "".join(f" {name}" for name in given.only or ())
    kind = (" --reduced" if given.reduced else "") + (f" --only{only}" if only else "")
    command = f"python benchmarks/papers/reproduce.py --data DIR --weights NAME=FILE{kind} --write"
    times = _read_times(given.out)
    minutes = sum(times.get(search.folder, 0.0) for search in plan.searches) / 60
    claims = tuple(judge(experiments, outcomes))
    text = render(experiments, outcomes, claims, reduced=given.reduced, command=command, minutes=minutes)
    print(text)
    if not given.write:
        return
    if "ttl-sweep" in outcomes:
        publish_text(DOCUMENT.with_suffix(".svg"), draw(outcomes["ttl-sweep"]))
    rows = [_describe(name, row) for name, one in outcomes.items() for row in one.rows]
    store("papers", command, [*rows, *(dataclasses.asdict(claim) for claim in claims)])
    publish_text(DOCUMENT, text)


def _describe(experiment: str, row: Row) -> dict[str, object]:
    """Return a row's figures without files of this machine."""
    kept = {key: value for key, value in dataclasses.asdict(row).items() if key not in ("entrant", "runs")}
    entrant = dataclasses.asdict(row.entrant)
    entrant["weights"] = "none" if row.entrant.weights == "none" else "given"
    return {"experiment": experiment, **entrant, **kept}


def _interrupt(number: int, _frame: object) -> None:
    """Stop once; a second signal must not disturb the stopping."""
    signal.signal(number, signal.SIG_IGN)
    raise RunInterruptedError("interrupted; what is done so far is kept", signal_number=number)


if __name__ == "__main__":
    for wanted in (signal.SIGINT, signal.SIGTERM):
        signal.signal(wanted, _interrupt)
    raise SystemExit(main())
