"""Cross-validation: which fold a run is, and what all of them come to."""

from dataclasses import dataclass

from ttl_deploy.records.scores import Comparison, Score

MOST_FOLDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """The run of one fold: patients are divided into `count` folds, and fold `number`, from 1 on, is the test split.

    The next fold is the validation split, all others are for training.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 3 <= self.count <= MOST_FOLDS:
            raise ValueError(f"{self.count} folds; allowed are 3 (training, validation, test) to {MOST_FOLDS}")
        if not 1 <= self.number <= self.count:
            raise ValueError(f"fold {self.number} of {self.count}; folds are counted from 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldOutcome:
    """What one fold's search found: the chosen candidate, and its score and the full network's on the fold."""

    number: int
    run: str
    chosen: str
    reference: str | None
    chosen_auroc: Score
    reference_auroc: Score | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidation:
    """All folds together; `folds.json` beside their run folders.

    `comparison` has a row for the candidate chosen in each fold, whichever that was, and one for every candidate whose
    test split all folds opened, beside the full network; None where there is none, for the `reason`. AUROCs are means
    over folds, each of whose patients are resampled by themselves: probabilities of different models are never ranked
    together. `left_out` names candidates that only some folds opened.
    """

    folds: tuple[FoldOutcome, ...]
    comparison: Comparison | None
    reason: str = ""
    left_out: tuple[str, ...] = ()
