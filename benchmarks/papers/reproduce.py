"""The experiments of the three papers, through the public search, beside what the papers print.

Run:  python benchmarks/papers/reproduce.py --data DIR --weights NAME=FILE… [--reduced] [--write]
      DIR is any data set that `ttl-deploy search` reads; FILE are ImageNet weights of the networks in
      `experiments.toml`: resnet50 for the papers' setting, mobilenet_v2 for the reduced one.
Every candidate is trained by the public search and scored on the test split, which the ledger of each run records;
nothing is chosen by it. Interrupted, the same command goes on. `--write` makes docs/papers-reproduced.md.
"""

import argparse
import dataclasses
import time
from pathlib import Path

from claims import judge
from experiments import Experiment, parse_weights, read_experiments
from outcomes import Outcome, read_outcome
from page import render
from shared import store, test_all

from ttl_deploy.errors import TtlDeployError
from ttl_deploy.files import publish_text
from ttl_deploy.records.data import Reading
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.study import run_study
from ttl_deploy_cli.progress import say, show_study

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "papers-reproduced.md"


def run_experiment(experiment: Experiment, out: Path, command: str) -> Outcome | None:
    """Make the searches of an experiment, one per split, and test all that they trained."""
    if not experiment.searches:
        say(f"{experiment.name}: not run, {experiment.left_out}")
        return None
    runs = []
    for number, settings in enumerate(experiment.searches):
        run = RunFolder(out / f"{experiment.name}-split{number}")
        with show_study(run, command, enabled=True) as reporter:
            run_study(settings, run, command=command, reporter=reporter)
        test_all(run, command)
        runs.append(run)
    return read_outcome(experiment, runs)


def main(arguments: list[str] | None = None) -> int:
    """Run, judge and tabulate; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a data set as for `ttl-deploy search`")
    parser.add_argument("--label-col", default="", help="column of the label [recognised]")
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE", help="ImageNet weights by network")
    parser.add_argument("--reduced", action="store_true", help="small network, images and epochs; labelled as such")
    parser.add_argument("--only", nargs="+", help="names of experiments [all]")
    parser.add_argument("--out", type=Path, default=Path("runs/papers"))
    parser.add_argument("--write", action="store_true", help=f"write docs/{DOCUMENT.name}")
    given = parser.parse_args(arguments)
    kind = " --reduced" if given.reduced else ""
    command = f"python benchmarks/papers/reproduce.py --data DIR --weights NAME=FILE{kind} --write"
    began = time.perf_counter()
    try:
        weights = parse_weights(given.weights)
        reading = Reading(label_col=given.label_col)
        wanted = read_experiments(given.data, reading=reading, weights=weights, reduced=given.reduced)
        wanted = tuple(one for one in wanted if not given.only or one.name in given.only)
        found = {one.name: run_experiment(one, given.out, command) for one in wanted}
    except TtlDeployError as error:
        say(f"error: {error}")
        return error.exit_code
    outcomes = {name: one for name, one in found.items() if one is not None}
    claims = tuple(judge(outcomes))
    minutes = (time.perf_counter() - began) / 60
    text = render(wanted, outcomes, claims, reduced=given.reduced, command=command, minutes=minutes)
    print(text)
    rows = [{"experiment": name, **dataclasses.asdict(row)} for name, one in outcomes.items() for row in one.rows]
    if given.write:
        store("papers", command, [*rows, *(dataclasses.asdict(claim) for claim in claims)])
        publish_text(DOCUMENT, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
