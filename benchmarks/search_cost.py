"""What finding the depth costs: every policy on the same cuts, seeds and data, against training everything.

Run:  python benchmarks/search_cost.py --cxr DIR --mobilenet FILE [--write]
      DIR is a folder with `labels.csv` of a chest X-ray set with a column `subtype`; FILE a state dict of
      torchvision's mobilenet_v2. The second task is built in: the pair phantom, on which no cut that sees less than
      the distance of a pair can be better than chance.
A trial is a function of its record and the data, so a policy takes what was trained already by the exhaustive
search, or by the guided one, from there; its cost counts all the same. `halving` trains everything itself, for what it
sees of a trial that has ended is not what it would see at a rung. Costs are MACs of the probe, all training steps and
validations, in trainings of the full network; seconds are those of the trainings, one core each. `--write` puts the
tables into docs/search-measured.md. Interrupted, the same command goes on.
"""

import argparse
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from results import store
from scoring import read_test, score_test, test_all

from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.evidence import intervals
from ttl_deploy.files import publish_text
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import JOINT, Candidate
from ttl_deploy.records.data import DecodeSettings, Reading
from ttl_deploy.records.models import FULL
from ttl_deploy.records.probe import Probe
from ttl_deploy.records.trials import Profile, SearchSettings, TrainSettings, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime.machine import usable_cores
from ttl_deploy.search import findings
from ttl_deploy.search.costs import cut_macs
from ttl_deploy.search.preparation import count_images
from ttl_deploy.search.study import run_study
from ttl_deploy_cli.progress import show_study

DOCUMENT = Path(__file__).parent.parent / "docs" / "search-measured.md"
WARM_START, UNCONFIRMED = "guided, warm start", "guided, joint network only"
POLICIES: dict[str, dict[str, object]] = {
    "exhaustive": {"policy": "exhaustive"},
    "hierarchical": {"policy": "hierarchical"},
    "halving": {"policy": "halving"},
    "guided": {"policy": "guided"},
    WARM_START: {"policy": "guided", "warm_start": True},
    UNCONFIRMED: {"policy": "guided", "skip": ("confirm",)},
}
"""By name: the settings that make it."""
TAKES_FROM = {"hierarchical": "exhaustive", "guided": "exhaustive", WARM_START: "guided", UNCONFIRMED: "guided"}
"""The search whose trainings a search takes over."""
CUTS = tuple(f"features.{number}" for number in (2, 3, 4, 6, 7, 9, 11, 13, 14, 16))
Row = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One data set to search on."""

    title: str
    settings: SearchSettings


def list_tasks(given: argparse.Namespace) -> Iterator[Task]:
    """Yield the tasks."""
    common = SearchSettings(
        backbone="mobilenet_v2",
        data=str(given.cxr),
        reading=Reading(label_col="subtype"),
        weights=str(given.mobilenet),
        cuts=CUTS,
        seeds=tuple(range(given.seeds)),
        decode=DecodeSettings(image_size=given.image_size),
        limit_train=given.images,
        train=TrainSettings(epochs=given.epochs),
        profile_seconds=0.1,
    )
    yield Task(title="chest X-rays, three classes", settings=common)
    phantom = f"phantom:pair?patients={given.images}&size={given.image_size}&seed=1"
    yield Task(title="pair phantom", settings=replace(common, data=phantom, reading=Reading(), limit_train=None))


def search(task: Task, name: str, parent: Path, command: str) -> RunFolder:
    """Run one policy to its end; what was trained already is taken over as it is."""
    folder = parent / _slug(task.title)
    run = RunFolder(folder / _slug(name))
    settings = replace(task.settings, **POLICIES[name])
    if name in TAKES_FROM and not run.front.exists():
        with run.owned():
            run.claim(settings, command)
        for trained in (folder / _slug(TAKES_FROM[name]) / "trials").iterdir():
            shutil.copytree(trained, run.path / "trials" / trained.name, dirs_exist_ok=True)
    with show_study(run, command, enabled=True) as reporter:
        run_study(settings, run, command=command, reporter=reporter)
    test_all(run, command)
    return run


def _slug(title: str) -> str:
    return title.replace(" ", "-").replace(",", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a run has spent, in trainings of the full network and core seconds; `finding` before single cuts."""

    trainings: int
    everything: float
    finding: float
    seconds: float


def add_up(run: RunFolder, settings: SearchSettings) -> Cost:
    """Add up the trainings in a run's ledger, to their ends or not, and its probe."""
    macs = {cut.cut: cut.macs for cut in codec.load(Profile, run.profile).cuts}
    known = findings.outcomes(run)
    rests = {pause.key: pause for pause in findings.pauses(run) if pause.key not in known}
    ended = [one for one in known.values() if isinstance(one, TrialResult) and one.strategy != JOINT]
    spent = [(one.cut, one.epochs_run, one.seconds) for one in ended]
    spent += [(one.cut, one.epoch, one.seconds) for one in rests.values()]
    unit = macs[FULL] * settings.train.epochs
    alone = sum(macs[one.cut] * one.epochs_run for one in ended if not one.is_joint) / unit
    probe = codec.load(Probe, run.probe) if run.probe.exists() else None
    epoch = cut_macs(macs[FULL], count_images(load_manifest(run.data)))
    probing = 0.0 if probe is None else probe.macs / (epoch * settings.train.epochs)
    everything = probing + sum(macs[cut] * epochs for cut, epochs, _ in spent) / unit
    guided = settings.policy == "guided"
    return Cost(
        trainings=len(spent),
        everything=everything,
        finding=everything - alone if guided else everything,
        seconds=sum(seconds for _, _, seconds in spent) + (probe.seconds if probe else 0.0),
    )


def describe(task: Task, policy: str, run: RunFolder, exhaustive: RunFolder) -> Row:
    """Return a policy's costs, its choice, and the choice's test score beside the exhaustive search's."""
    cost, whole = add_up(run, run.settings()), add_up(exhaustive, task.settings).everything
    score, seeds = score_test(run, chosen_trials(run))
    return {
        "task": task.title,
        "policy": policy,
        "trainings": cost.trainings,
        "full_trainings": round(cost.everything, 2),
        "finding_share": round(cost.finding / whole, 3),
        "total_share": round(cost.everything / whole, 3),
        "train_seconds": round(cost.seconds),
        "chosen": findings.read(run).choice.cut,
        "strategy": findings.read(run).choice.strategy,
        "test_auroc": round(score.value, 4),
        "low": round(score.low, 4),
        "high": round(score.high, 4),
        "seeds": seeds,
        **compare(run, exhaustive),
    }


def chosen_trials(run: RunFolder) -> list[TrialResult]:
    """Return the trials of the chosen candidate, one per seed."""
    choice = findings.read(run).choice
    known = findings.outcomes(run).values()
    wanted = Candidate(choice.cut, choice.strategy)
    return [one for one in known if isinstance(one, TrialResult) and not one.is_joint and one.candidate == wanted]


def compare(run: RunFolder, exhaustive: RunFolder) -> Row:
    """Return the regret: the test AUROC of the exhaustive search's choice less that of this one, paired by patient."""
    truth = findings.labelled_split(run.data, "test")
    one, other = (
        intervals.resample(read_test(folder, chosen_trials(folder)), truth.labels, truth.patients)
        for folder in (exhaustive, run)
    )
    regret = intervals.subtract_resampled(one, other, reference="chosen")
    return {"regret": round(regret.value, 4), "regret_low": round(regret.low, 4), "regret_high": round(regret.high, 4)}


def correlate(task: Task, guided: RunFolder, exhaustive: RunFolder) -> Row:
    """Return how well probe and joint training rank the cuts by what they reach when trained by themselves."""
    alone = mean_scores(exhaustive, "full")
    joint = mean_scores(guided, JOINT)
    probed = codec.load(Probe, guided.probe)
    probe = {score.cut: score.validation.value or 0.0 for score in probed.cuts}
    return {
        "task": task.title,
        "probe_seconds": round(probed.seconds, 1),
        "probe_rank_correlation": round(rank_correlation(probe, alone), 2),
        "joint_rank_correlation": round(rank_correlation(joint, alone), 2),
        "curve": {cut: [round(one[cut], 3) for one in (alone, joint, probe)] for cut in alone},
    }


def mean_scores(run: RunFolder, strategy: str) -> dict[str, float]:
    """Return the validation AUROC of each cut by a strategy, the mean over seeds."""
    points = findings.validation_front(run, findings.outcomes(run)).points
    return {point.cut: point.validation[0].value or 0.0 for point in points if point.strategy == strategy}


def rank_correlation(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Return Spearman's correlation over the names that both have; there are no ties worth the name."""
    names = [name for name in a if name in b]
    ranks = [np.argsort(np.argsort([one[name] for name in names])) for one in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def draw_tables(rows: Sequence[Row], curves: Sequence[Row]) -> str:
    """Return Markdown tables: per task the policies, and the curves by which they choose."""
    parts: list[str] = []
    for curve in curves:
        parts += [f"## {curve['task']}", ""]
        parts += ["| policy | trainings | in full trainings | finding the depth | everything | core seconds | chosen |"]
        parts[-1] += " test AUROC | behind the exhaustive choice |"
        parts += ["|---" * 9 + "|"]
        parts += [_policy_line(row) for row in rows if row["task"] == curve["task"]]
        parts += [
            "",
            f"Validation AUROC; the probe took {curve['probe_seconds']} s. Spearman's correlation with the cuts",
        ]
        parts[-1] += (
            f" trained alone: probe {curve['probe_rank_correlation']}, joint {curve['joint_rank_correlation']}."
        )
        parts += ["", "| cut | trained alone | joint | probe |", "|---|---|---|---|"]
        parts += [f"| {cut} | {a:.3f} | {j:.3f} | {p:.3f} |" for cut, (a, j, p) in curve["curve"].items()]
        parts += [""]
    return "\n".join(parts)


def _policy_line(row: Row) -> str:
    cells = (
        f"`{row['policy']}`",
        row["trainings"],
        row["full_trainings"],
        f"{row['finding_share']:.1%}",
        f"{row['total_share']:.1%}",
        row["train_seconds"],
        f"{row['chosen']} ({row['strategy']})",
        f"{row['test_auroc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
        f"{row['regret']:+.3f} [{row['regret_low']:+.3f}, {row['regret_high']:+.3f}]",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def write_document(text: str, command: str, given: argparse.Namespace) -> None:
    """Write the tables into the documents, with the command that makes them."""
    cores, cuts = usable_cores(), len(CUTS) + 1
    document = f"""# What a search costs, measured

Written by
`{command}`
on {cores} cores; figures and machine are in `benchmarks/results/search_cost.json`.

MobileNetV2 with ImageNet weights, {cuts} cuts, {given.seeds} seeds, {given.image_size} px, at most {given.images}
training images (phantom: patients in all), at most {given.epochs} epochs. "Finding the depth" is what comes before the
trainings of single cuts, as a share of the exhaustive search's cost: for `guided` the probe and one joint training.
"Behind the exhaustive choice" is the test AUROC of that choice less that of the policy's, paired by patient: above 0
the policy chose worse. Seconds are those of a machine that had other things to do as well; the shares are of MACs.

`{WARM_START}` (`--warm-start`) finetunes the finalist from its exit, for three of the five epochs.
`{UNCONFIRMED}` (`--skip confirm`) trains nothing but the joint network, so the full network that it
compares with is that network's deepest exit, not one trained by itself.

{text}"""
    publish_text(DOCUMENT, document.rstrip() + "\n")


def main() -> None:
    """Run all policies on both tasks, and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cxr", type=Path, required=True)
    parser.add_argument("--mobilenet", type=Path, required=True)
    for name, default in (("seeds", 2), ("image-size", 96), ("images", 600), ("epochs", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-search-cost"))
    parser.add_argument("--write", action="store_true", help="write docs/search-measured.md")
    given = parser.parse_args()
    command = "python benchmarks/search_cost.py --cxr DIR --mobilenet FILE --write"
    started = time.perf_counter()
    rows: list[Row] = []
    curves: list[Row] = []
    for task in list_tasks(given):
        runs = {policy: search(task, policy, given.out, command) for policy in POLICIES}
        rows += [describe(task, policy, run, runs["exhaustive"]) for policy, run in runs.items()]
        curves.append(correlate(task, runs["guided"], runs["exhaustive"]))
    text = draw_tables(rows, curves)
    minutes = (time.perf_counter() - started) / 60
    print(f"{text}\n{minutes:.1f} minutes")
    store("search_cost", command, [*rows, *curves])
    if given.write:
        write_document(text, command, given)


if __name__ == "__main__":
    main()
