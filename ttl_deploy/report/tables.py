"""Tables for spreadsheets and scripts: `results.csv` (a row per trial), `front.csv` (per candidate), `stages.csv`.

Units stand in the column names. Text that a spreadsheet would run as a formula is defused.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ttl_deploy.evidence.choice import over_limits
from ttl_deploy.files import escape_cell, publish_text
from ttl_deploy.records.data import Split
from ttl_deploy.records.models import FULL
from ttl_deploy.records.scores import AXES, METRICS, Front, FrontPoint, PairedDifference, Score
from ttl_deploy.records.stages import StageCosts
from ttl_deploy.records.trials import CutProfile, TrialFailure, TrialResult
from ttl_deploy.report.costs import cost_rows
from ttl_deploy.report.file_sizes import stand_by_size
from ttl_deploy.report.listing import auroc_of
from ttl_deploy.report.story import RunStory

Cell = str | int | float | None
RESULT_COLUMNS = (
    "key",
    "cut",
    "strategy",
    "seed",
    "status",
    "best_epoch",
    "epochs_run",
    "val_auroc",
    "params",
    "params_share",
    "macs",
    "macs_share",
    "gmacs",
    "layers",
    "latency_p50_ms",
    "seconds",
    "precision",
    "device",
    "weights_sha256",
    "weights_note",
    "failure",
    "reason",
)
_SCORED: tuple[Split, ...] = ("val", "test")
FRONT_COLUMNS = (
    "cut",
    "strategy",
    "best",
    "reference",
    "on_front",
    "not_clearly_worse",
    *(f"dominated_by_{axis}" for axis in AXES),
    "params",
    "params_share",
    "macs",
    "macs_share",
    "gmacs",
    "layers",
    "size_bytes",
    "on_front_by_file_size",
    "latency_s",
    "latency_noise_s",
    "seeds",
    "val_auroc_seed_min",
    "val_auroc_seed_max",
    "test_auroc_seed_min",
    "test_auroc_seed_max",
    "verdict",
    "margin",
    "difference",
    "difference_low",
    "difference_high",
    "p_non_inferior",
    "holm_non_inferior",
    "holm_inferior",
    "needed_positives",
    "smallest_margin",
    "to_best",
    "to_best_low",
    "to_best_high",
    *(
        f"{split}_{metric}{end}"
        for split in _SCORED
        for metric in METRICS
        for end in ("", "_low", "_high", "_images", "_patients")
    ),
    "level",
    "target",
)

_OF_ROW = ("stage", "macs", "full_trainings", "exhaustive_share", "seconds", "told")
STAGE_COLUMNS = ("stage", "trainings", "macs", "full_trainings", "exhaustive_share", "seconds", "told")


def write_results_csv(path: Path, story: RunStory) -> None:
    """Publish one row per trial, finished or failed, and one per cut left out; empty cells are unknown, never 0."""
    rows = [{**_cost_cells(story.cost(trial.cut)), **_trial_cells(trial)} for trial in story.trials]
    not_trained = [
        {**_cost_cells(story.cost(cut)), "cut": cut, "status": "over the limit", "reason": why}
        for cut, why in left_out(story).items()
    ]
    _publish(path, RESULT_COLUMNS, rows + not_trained)


def left_out(story: RunStory) -> dict[str, str]:
    """Return the profiled cuts that were not trained because they pass a limit of the settings, and by how much."""
    settings, tried = story.settings, {trial.cut for trial in story.trials}
    over = over_limits(
        () if story.profile is None else story.profile.cuts,
        max_latency_s=settings.max_latency_s,
        max_params=settings.max_params,
        max_macs=settings.max_macs,
    )
    return {cut: why for cut, why in over.items() if cut not in tried and cut != FULL}


def write_front_csv(path: Path, front: Front, *, sizes: Mapping[str, int] | None = None) -> None:
    """Publish one row per trained candidate, shallow to deep, with every score and its interval.

    `sizes` are the bytes of the ONNX files by candidate, as far as they are known.
    """
    known = sizes or {}
    standings = {"on the front": "yes", "off the front": "no"}
    by_size = {name: standings[one] for name, one in stand_by_size(front, known).items()}
    cells = [
        {
            **_front_cells(front, point),
            "size_bytes": known.get(point.name),
            "on_front_by_file_size": by_size.get(point.name),
        }
        for point in front.points
    ]
    _publish(path, FRONT_COLUMNS, cells)


def write_stages_csv(path: Path, costs: StageCosts) -> None:
    """Publish one row per stage of the search, with what it cost and told; `trainings` is how many it made."""
    rows = ({"trainings": row.trials, **{name: getattr(row, name) for name in _OF_ROW}} for row in cost_rows(costs))
    _publish(path, STAGE_COLUMNS, rows)


def defuse(cell: Cell) -> Cell:
    """Escape text; numbers stay numbers."""
    return escape_cell(cell) if isinstance(cell, str) else cell


def _publish(path: Path, columns: tuple[str, ...], rows: Iterable[Mapping[str, Cell]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: defuse(cell) for name, cell in row.items()} for row in rows)
    publish_text(path, text.getvalue())


def _trial_cells(trial: TrialResult | TrialFailure) -> dict[str, Cell]:
    cells: dict[str, Cell] = {"key": trial.key, "cut": trial.cut, "strategy": trial.strategy, "seed": trial.seed}
    if isinstance(trial, TrialFailure):
        return {**cells, "status": "failed", "failure": trial.kind, "reason": trial.reason}
    return {
        **cells,
        "status": "finished",
        "best_epoch": trial.best_epoch,
        "epochs_run": trial.epochs_run,
        "val_auroc": trial.val_auroc,
        "params": trial.params,
        "seconds": trial.seconds,
        "precision": trial.precision,
        "device": trial.device,
        "weights_sha256": trial.weights_sha256,
        "weights_note": trial.weights_note,
    }


def _cost_cells(cost: CutProfile | None) -> dict[str, Cell]:
    if cost is None:
        return {}
    return {
        "params": cost.params,
        "params_share": cost.params_share,
        "macs": cost.macs,
        "macs_share": cost.macs_share,
        "gmacs": cost.macs / 1e9,
        "layers": cost.layers,
        "latency_p50_ms": None if cost.latency_s is None else 1e3 * cost.latency_s,
    }


def _front_cells(front: Front, point: FrontPoint) -> dict[str, Cell]:
    cells: dict[str, Cell] = {
        "cut": point.cut,
        "strategy": point.strategy,
        "best": "yes" if point.name == front.best else "no",
        "reference": "yes" if point.name == front.reference else "no",
        "on_front": " ".join(point.on_front),
        "not_clearly_worse": " ".join(point.axes("not clearly worse")),
        **{f"dominated_by_{one.axis}": one.by for one in point.dominated_by or ()},
        "params": point.params,
        "params_share": point.params_share,
        "macs": point.macs,
        "macs_share": point.macs_share,
        "gmacs": point.macs / 1e9,
        "layers": point.layers,
        "latency_s": point.latency_s,
        "latency_noise_s": point.latency_noise_s,
        "seeds": " ".join(str(seed) for seed in point.seeds),
        **_seed_cells("val", point.seed_values),
        **_seed_cells("test", auroc_of(point.test).per_seed if point.test else ()),
        "target": front.target,
    }
    for score in (*point.validation, *point.test):
        cells.update(_score_cells(score))
    return {**cells, **_difference_cells("to_best", point.to_best), **_verdict_cells(front, point)}


def _seed_cells(split: Split, values: Sequence[float | None]) -> dict[str, Cell]:
    known = [value for value in values if value is not None]
    ends = {"min": min(known, default=None), "max": max(known, default=None)}
    return {f"{split}_auroc_seed_{end}": value for end, value in ends.items()}


def _verdict_cells(front: Front, point: FrontPoint) -> dict[str, Cell]:
    """Return a candidate's verdict and what it rests on; empty for the reference, and where there is none."""
    found = front.verdict(point.name)
    if front.verdicts is None or found is None:
        return {}
    return {
        "verdict": found.verdict,
        "margin": front.verdicts.margin,
        "p_non_inferior": found.p_non_inferior,
        "holm_non_inferior": found.holm_non_inferior,
        "holm_inferior": found.holm_inferior,
        "needed_positives": found.needed.positives if found.needed else None,
        "smallest_margin": found.smallest_margin,
        **_difference_cells("difference", found.difference),
    }


def _score_cells(score: Score) -> dict[str, Cell]:
    name = f"{score.split}_{score.metric}"
    return {
        name: score.value,
        f"{name}_low": score.low,
        f"{name}_high": score.high,
        f"{name}_images": score.images,
        f"{name}_patients": score.patients,
        "level": score.level,
    }


def _difference_cells(name: str, difference: PairedDifference | None) -> dict[str, Cell]:
    if difference is None:
        return {}
    return {name: difference.value, f"{name}_low": difference.low, f"{name}_high": difference.high}
