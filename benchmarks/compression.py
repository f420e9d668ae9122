"""How far depth, input size, width, precision and runtime bring one network together, and what each of them costs.

    python benchmarks/compression.py RUN [--rounds 3] [--runs 30]
    python benchmarks/compression.py --backbone densenet121 [--cut features.transition2] [--width 0.5]

The first takes a finished search with other widths and input sizes (`search --width 0.5 --image-size 128,160`): the
full network in torch's own forms and in every runtime and precision, then the chosen cut, narrower and smaller. What
int8 and bf16 files are published at all, their gate decides. Every row's own answers are compared with those of the
full network in eager fp32, paired by patient: on validation, and on the test split where the search has opened it. The
second takes random weights: speed and file size only.

Every round takes all rows once, in a new order, each in a fresh process with one thread; what is compared is CPU time.
"""

import argparse
import random
import re
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import compression_files
import compression_forms
import numpy as np
from compression_forms import Form, Measured, Pixels
from compression_page import write_page
from results import store

from ttl_deploy.errors import InconclusiveError, TtlDeployError
from ttl_deploy.evidence import noninferiority
from ttl_deploy.processes import run_isolated, value_of
from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import Comparison
from ttl_deploy.runs.folder import RunFolder

TIMEOUT_S = 1800.0
GOAL = 30.0


def main() -> None:
    """Make the files, measure them in turn, judge their answers, and write table, figure and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--backbone", default="densenet121")
    parser.add_argument("--cut", default="features.transition2")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=30)
    given = parser.parse_args()
    if given.run is not None:
        measure_run(RunFolder(given.run), rounds=given.rounds, runs=given.runs)
    else:
        measure_untrained(given)


def measure_run(run: RunFolder, *, rounds: int, runs: int) -> None:
    """Measure the models of a search: speed, size, and whether each answers as well as the full network."""
    forms, refused = compression_files.forms_of_run(run)
    data = compression_files.Answerable.of(run)
    found = measure_all(forms, data.images, rounds=rounds, runs=runs)
    rows = describe(forms, found)
    for split in ("val", "test"):
        compare(rows, forms, found, data, split)
    settings = run.settings()
    name = f"compression-{settings.backbone}"
    searched = re.sub(r"(?<=\s)/\S*/", "", run.command.read_text(encoding="utf-8").strip())  # whose folders they were
    command = f"python benchmarks/compression.py {run.name}, of: {searched}"
    store(name, command, [*rows, *refused])
    write_page(name)


def measure_untrained(given: argparse.Namespace) -> None:
    """Measure networks with random weights: speed and size."""
    with tempfile.TemporaryDirectory() as folder:
        forms = compression_files.untrained_forms(
            Path(folder), backbone=given.backbone, cut=given.cut, image_size=given.image_size, width=given.width
        )
        found = measure_all(forms, {}, rounds=given.rounds, runs=given.runs)
    rows = describe(forms, found)
    name = f"compression-{given.backbone}-untrained"
    store(name, f"python benchmarks/compression.py --backbone {given.backbone} --cut {given.cut}", rows)
    write_page(name)


def measure_all(
    forms: Sequence[Form], images: Mapping[str, Pixels], *, rounds: int, runs: int
) -> dict[int, list[Measured]]:
    """Measure every form once per round; in the first one it answers the images of its model too."""
    found: dict[int, list[Measured]] = {}
    failed: set[int] = set()
    for number in range(rounds):
        for i in random.sample(range(len(forms)), len(forms)):
            if i in failed:
                continue
            form = forms[i]
            print(f"round {number + 1} of {rounds}: {form.model}, {form.name}", flush=True)
            shown = images.get(form.model) if number == 0 else None
            done = run_isolated(compression_forms.measure, form, shown, runs, timeout_s=TIMEOUT_S)
            try:
                found.setdefault(i, []).append(value_of(done, error=InconclusiveError, doing=f"measure {form.name}"))
            except TtlDeployError as error:
                failed.add(i)
                print(f"  left out: {error}", flush=True)
    return {i: one for i, one in found.items() if i not in failed}


def describe(forms: Sequence[Form], found: Mapping[int, list[Measured]]) -> list[dict[str, Any]]:
    """Return a row per form that ran: CPU time, how many times as fast as the first, and its noise."""
    full_ms = [one.cpu_s * 1e3 for one in found[0]]
    rows = []
    for i, form in enumerate(forms):
        if i not in found:
            continue
        own_ms = [one.cpu_s * 1e3 for one in found[i]]
        ratios = [full / own for full, own in zip(full_ms, own_ms, strict=True)]  # of the same round
        rows.append(
            {
                "number": i,
                "model": form.model,
                "form": form.name,
                "ran": found[i][0].ran,
                "runtime": found[i][0].runtime,
                "megabytes": form.megabytes,
                "cpu_ms": round(statistics.median(own_ms), 3),
                "rounds_ms": [round(one, 3) for one in own_ms],
                "times_as_fast": round(statistics.median(ratios), 2),
                "ratio_low": round(min(ratios), 2),
                "ratio_high": round(max(ratios), 2),
            }
        )
    return rows


def compare(
    rows: list[dict[str, Any]],
    forms: Sequence[Form],
    found: Mapping[int, list[Measured]],
    data: "compression_files.Answerable",
    split: Split,
) -> None:
    """Add AUROC, paired difference to the full network and verdict on one split to the rows that answered it."""
    answers = {i: data.of_split(found[i][0].answers, split, forms[i].model) for i in sorted(found)}
    known = {f"{i}": one for i, one in answers.items() if one is not None}
    if "0" not in known or len(known) < 2:
        return
    truth = data.truth[split]
    compared: Comparison = noninferiority.compare(
        known, truth.labels, truth.patients, split=split, patients_known=truth.patients_known
    )
    scores = {model.name: model.auroc for model in compared.models}
    verdicts = {one.model: one for one in compared.verdicts}
    for row in rows:
        key = f"{row['number']}"
        if key not in scores:
            continue
        score, verdict = scores[key], verdicts.get(key)
        row[f"{split}_auroc"] = [
            round(value, 4) if value is not None else None for value in (score.value, score.low, score.high)
        ]
        if verdict is not None:
            row[f"{split}_verdict"] = verdict.verdict
            if verdict.difference is not None:
                row[f"{split}_difference"] = [
                    round(value, 4)
                    for value in (verdict.difference.value, verdict.difference.low, verdict.difference.high)
                ]
        first = answers[0]
        own = answers[int(key)]
        assert first is not None
        assert own is not None
        row[f"{split}_same_decisions"] = round(float(np.mean(first.argmax(1) == own.argmax(1))), 4)


if __name__ == "__main__":
    main()
