"""The folds of a cross-validation: one search each, then one table of all."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ttl_deploy.errors import UsageError
from ttl_deploy.runs.folder import RunFolder

if TYPE_CHECKING:
    from ttl_deploy.records.folds import CrossValidation
    from ttl_deploy.records.trials import SearchSettings
    from ttl_deploy.search.findings import Found

FILE = "folds.json"


def settings_of_folds(settings: "SearchSettings", count: int) -> "list[SearchSettings]":
    """Return the settings of every fold's search; raises `UsageError` for a number of folds that makes no sense."""
    from ttl_deploy.records.folds import Fold

    try:
        divided = [Fold(number=number, count=count) for number in range(1, count + 1)] or [Fold(number=1, count=count)]
    except ValueError as error:
        raise UsageError(f"--folds {count}: {error}") from error
    if "test" in settings.skip:
        raise UsageError("--folds pools the folds' test splits, and --skip test leaves them closed: leave one out")
    return [replace(settings, fold=fold) for fold in divided]


Search = Callable[["SearchSettings", RunFolder, float | None], "Found"]


def search_folds(
    settings: "SearchSettings", out: Path, count: int, search: Search, *, max_hours: float | None
) -> "CrossValidation | None":
    """Search in `out/fold-1`, `out/fold-2`, …, finished ones not again, and publish what all say in `folds.json`.

    After `max_hours` in all it stops, and returns None: the same command goes on.
    """
    from ttl_deploy.records import codec
    from ttl_deploy.search.folding import cross_validate

    from .progress import say

    began, runs = time.monotonic(), []
    for number, of_fold in enumerate(settings_of_folds(settings, count), start=1):
        say(f"fold {number} of {count}")
        runs.append(RunFolder(out / f"fold-{number}"))
        left = None if max_hours is None else max(0.0, max_hours - (time.monotonic() - began) / 3600)
        search(of_fold, runs[-1], left)
        if not runs[-1].ledger.of_event("test_opened"):
            say(f"stopped in fold {number} of {count}: type the same command to go on")
            return None
    found = cross_validate(runs)
    codec.save(out / FILE, found)
    return found


def is_cross_validation(path: Path) -> bool:
    """Tell whether a folder holds the runs of folds."""
    return (path / FILE).is_file()


def print_folds(found: "CrossValidation") -> None:
    """Print what each fold chose, and the comparison over all."""
    from ttl_deploy.report.numbers import format_score

    from .compare import print_comparison
    from .tables import print_table

    rows = [
        (
            str(fold.number),
            fold.chosen,
            format_score(fold.chosen_auroc),
            "" if fold.reference_auroc is None else format_score(fold.reference_auroc),
        )
        for fold in found.folds
    ]
    print_table(("fold", "chosen", "its test AUROC", "the full network's"), rows, title="cross-validation")
    if found.comparison is None:
        print(f"nothing is compared: {found.reason}")
        return
    print_comparison(found.comparison)
    print("AUROCs are means over folds; patients are resampled within them. Training sets of two folds overlap, which")
    print("the intervals do not show: they are somewhat too narrow.")
    if found.left_out:
        print(f"only some folds opened their test split for: {', '.join(found.left_out)}")
