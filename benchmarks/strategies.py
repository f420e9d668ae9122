"""The papers' comparison: strategies x cuts x seeds, on real images, from real ImageNet weights.

Run:  python benchmarks/strategies.py --cxr DIR --cells DIR --mobilenet FILE --resnet FILE [--write]
      DIR are the folders with `labels.csv` of a chest X-ray set with a column `subtype` and of a second set;
      FILE are state dicts of torchvision's mobilenet_v2, and of resnet18 up to layer3 or further.
Every candidate is trained by the public search and scored on the test split, which the ledger of each run
records. Nothing is chosen here, so all candidates may be stated. Interrupted, the same command goes on.
`--write` puts the tables into docs/strategies-measured.md.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from results import store
from scoring import score_test, test_all

from ttl_deploy.files import publish_text
from ttl_deploy.records.data import DecodeSettings, Reading
from ttl_deploy.records.scores import Score
from ttl_deploy.records.trials import SearchSettings, TrainSettings, TrialFailure, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import findings
from ttl_deploy.search.study import run_study
from ttl_deploy_cli.progress import show_study

DOCUMENT = Path(__file__).parent.parent / "docs" / "strategies-measured.md"
EVERYWHERE = (
    *("full", "linear-probe", "lp-ft", "gradual-last-first", "gradual-first-last", "l1-sp", "l2-sp", "auto-rgn"),
    *("scratch", "mean-var", "gabor"),
)
CUTS = {"mobilenet_v2": ("features.7", "features.13", "full"), "resnet18": ("layer2.1", "layer3.1")}
STRATEGIES = {
    "mobilenet_v2": (
        *EVERYWHERE,
        "lwft?freeze=features.4",
        "transfusion?upto=features.4",
        "distill",
        "distill?features=1",
    ),
    # The weights to be had end before layer4, so there is no full network that could teach.
    "resnet18": (*EVERYWHERE, "lwft?freeze=layer1.1", "transfusion?upto=layer1.1"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One table: a data set and a network."""

    title: str
    settings: SearchSettings

    def folder(self, parent: Path) -> RunFolder:
        """Return where its run lies."""
        return RunFolder(parent / f"{self.settings.backbone}-{Path(self.settings.data).name}")


def list_cases(given: argparse.Namespace) -> Iterator[Case]:
    """Yield the tables to make."""
    for data, label_col in ((given.cxr, "subtype"), (given.cells, "label")):
        for backbone, file in (("mobilenet_v2", given.mobilenet), ("resnet18", given.resnet)):
            settings = SearchSettings(
                backbone=backbone,
                data=str(data),
                weights=str(file),
                reading=Reading(label_col=label_col),
                cuts=CUTS[backbone],
                strategies=STRATEGIES[backbone],
                seeds=tuple(range(given.seeds)),
                decode=DecodeSettings(image_size=given.image_size),
                limit_train=given.images,
                train=TrainSettings(epochs=given.epochs),
                profile_seconds=0.1,
            )
            yield Case(title=f"{backbone} on {Path(data).name}, {label_col}", settings=settings)


def score_all(case: Case, run: RunFolder) -> Iterator[dict[str, object]]:
    """Yield one row per candidate: mean AUROC over seeds, its interval over patients, and the spread of seeds."""
    known = findings.outcomes(run).values()
    for strategy in case.settings.strategies:
        for cut in case.settings.cuts:
            mine = [one for one in known if (one.cut, one.strategy) == (cut, strategy)]
            trained = [one for one in mine if isinstance(one, TrialResult)]
            row: dict[str, object] = {"table": case.title, "strategy": strategy, "cut": cut}
            if not trained:
                yield row | {"failure": next(one.reason for one in mine if isinstance(one, TrialFailure))}
                continue
            yield row | describe(*score_test(run, trained), trained)


def describe(score: Score, values: Sequence[float | None], trained: Sequence[TrialResult]) -> dict[str, object]:
    """Return the figures of one candidate, rounded."""
    known = [value for value in values if value is not None]
    return {
        "test_auroc": _rounded(score.value),
        "low": _rounded(score.low),
        "high": _rounded(score.high),
        "seeds": [_rounded(value) for value in values],
        "seed_sd": _rounded(float(np.std(known, ddof=1))) if len(known) > 1 else None,
        "train_seconds": round(sum(one.seconds for one in trained) / len(trained), 1),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def draw_tables(rows: Sequence[Mapping[str, object]]) -> str:
    """Return one Markdown table per case: strategies down, cuts across."""
    parts: list[str] = []
    for title in dict.fromkeys(row["table"] for row in rows):
        mine = [row for row in rows if row["table"] == title]
        cuts = list(dict.fromkeys(row["cut"] for row in mine))
        parts += [
            f"## {title}",
            "",
            "| strategy | " + " | ".join(map(str, cuts)) + " |",
            "|---" * (len(cuts) + 1) + "|",
        ]
        for strategy in dict.fromkeys(row["strategy"] for row in mine):
            cells = [_cell(row) for cut in cuts for row in mine if (row["strategy"], row["cut"]) == (strategy, cut)]
            parts.append(f"| `{strategy}` | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def _cell(row: Mapping[str, object]) -> str:
    if "failure" in row:
        return "not trained"
    bounds = "no interval" if row["low"] is None else f"{row['low']:.3f}–{row['high']:.3f}"
    spread = "" if row["seed_sd"] is None else f" ±{row['seed_sd']:.3f}"
    return f"**{row['test_auroc']:.3f}** [{bounds}]{spread}, {row['train_seconds']:.0f} s"


def write_document(rows: Sequence[Mapping[str, Any]], command: str, given: argparse.Namespace) -> None:
    """Write the tables into the documents, with the command that makes them."""
    seconds = sum(row["train_seconds"] * len(row["seeds"]) for row in rows if "failure" not in row)
    text = f"""# Strategies, measured

Written by
`{command}`
(its trainings took {seconds / 60:.0f} minutes of one core). Figures and machine: `benchmarks/results/strategies.json`.

Each cell: macro AUROC on the test split, mean of {given.seeds} seeds **in bold**, its 95 % interval over patients in
brackets, the standard deviation between seeds after ±, and the seconds of one training on one core.
{given.image_size} px, at most {given.images} training images, at most {given.epochs} epochs, one learning rate for all
strategies (tuned for none): read it as what a first try gives, not as a ranking. Differences within the intervals, or
within the spread of the seeds, say nothing.

{draw_tables(rows)}"""
    publish_text(DOCUMENT, text.rstrip() + "\n")


def main() -> None:
    """Train, test and tabulate all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cxr", "cells", "mobilenet", "resnet"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name, default in (("seeds", 2), ("image-size", 64), ("images", 400), ("epochs", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-strategies"))
    parser.add_argument("--write", action="store_true", help="write docs/strategies-measured.md")
    given = parser.parse_args()
    command = "python benchmarks/strategies.py --cxr DIR --cells DIR --mobilenet FILE --resnet FILE --write"
    started = time.perf_counter()
    rows: list[dict[str, object]] = []
    for case in list_cases(given):
        run = case.folder(given.out)
        with show_study(run, command, enabled=True) as reporter:
            run_study(case.settings, run, command=command, reporter=reporter)
        test_all(run, command)
        rows += score_all(case, run)
        print(draw_tables([row for row in rows if row["table"] == case.title]), flush=True)
    minutes = (time.perf_counter() - started) / 60
    print(f"{minutes:.1f} minutes")
    store("strategies", command, rows)
    if given.write:
        write_document(rows, command, given)


if __name__ == "__main__":
    main()
