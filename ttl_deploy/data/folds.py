"""Cross-validation: all images divided into folds by patient, and which split each fold is in one of the runs."""

from collections.abc import Sequence
from dataclasses import replace

from ttl_deploy.data.splits import assign_splits, group_samples
from ttl_deploy.errors import UsageError
from ttl_deploy.records.data import DataWarning, Sample, Split
from ttl_deploy.records.folds import Fold


def split_by_fold(
    samples: Sequence[Sample], official: Sequence[Split | None], classes: Sequence[str], fold: Fold, *, seed: int
) -> tuple[Sample, ...]:
    """Make a fold the test split, the next one validation, and the others training.

    Folds are the same whichever of them is asked for. Raises `UsageError` where the source names splits, which folds
    would undo, and what `assign_splits` raises.
    """
    if any(official):
        raise UsageError(
            "the source names its splits, and --folds would undo them: leave --folds out, or give --split-col none to "
            "ignore them"
        )
    folds = assign_folds(samples, classes, count=fold.count, seed=seed)
    held_out: dict[int, Split] = {fold.number - 1: "test", fold.number % fold.count: "val"}
    return tuple(
        replace(sample, split=held_out.get(number, "train")) for sample, number in zip(samples, folds, strict=True)
    )


def assign_folds(samples: Sequence[Sample], classes: Sequence[str], *, count: int, seed: int) -> list[int]:
    """Return each sample's fold, from 0 on: whole patients, every fold with about the same share of each class."""
    return assign_splits(
        [sample.label for sample in samples],
        group_samples([sample.patient_id for sample in samples], [sample.sha256 for sample in samples]),
        keys=[sample.sha256 for sample in samples],
        classes=classes,
        fractions=dict.fromkeys(range(count), 1 / count),
        seed=seed,
    )


def tell_fold(fold: Fold, *, seed: int) -> DataWarning:
    """Say how the splits came about."""
    return DataWarning(
        kind="made-splits",
        message=f"test is fold {fold.number} of {fold.count}, val the next one: divided here by patient, seed {seed}",
    )
