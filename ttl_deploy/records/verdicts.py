"""Is a model as good as the reference? Differences, p-values, verdicts, and what is missing for one."""

from dataclasses import dataclass
from typing import Literal

from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import PairedDifference, Score

Verdict = Literal["non-inferior", "inferior", "inconclusive", "undefined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DelongTest:
    """DeLong's difference of AUROCs with its interval and standard error, and the p-value of "worse by the margin"."""

    difference: PairedDifference
    standard_error: float
    p_non_inferior: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """How much data would decide with probability `power`, were the true difference `assumed_difference`.

    `positives` are images of the positive class, of several classes of the rarest; `patients` at the same
    prevalence and with as many images each.
    """

    positives: int
    patients: int
    power: float
    assumed_difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NonInferiority:
    """One model against the reference at a margin.

    Attributes:
        verdict: by the p-values after Holm's correction; `undefined` has a reason and no numbers to decide by.
        difference: AUROC minus the reference's, with the uncorrected interval; None where undefined.
        p_non_inferior: of "worse by the margin or more"; small speaks for non-inferior.
        p_inferior: of "worse by the margin or less"; small speaks for inferior.
        holm_non_inferior, holm_inferior: the same, corrected for the number of models compared.
        delong: beside the bootstrap, which decides; only where cases are independent and classes are two.
        needed: for a decision, where the verdict is `inconclusive`; None also where the observed difference is
            so near the margin that no number is a plan.
        reason: what the verdict rests on, in words.
    """

    model: str
    verdict: Verdict
    reason: str
    difference: PairedDifference | None = None
    standard_error: float | None = None
    p_non_inferior: float | None = None
    p_inferior: float | None = None
    holm_non_inferior: float | None = None
    holm_inferior: float | None = None
    delong: DelongTest | None = None
    needed: Needed | None = None

    def __post_init__(self) -> None:
        if (self.verdict == "undefined") != (self.p_non_inferior is None):
            raise ValueError(f"{self.model}: a verdict needs a p-value, and only a verdict has one")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedModel:
    """A model of a comparison and its AUROC."""

    name: str
    auroc: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Models against the first of them, on the same images.

    `positives` as in `Needed`; `patients_known` is False where every image counted as a patient of its own.
    """

    split: Split
    margin: float
    level: float
    images: int
    patients: int
    positives: int
    patients_known: bool
    models: tuple[ComparedModel, ...]
    verdicts: tuple[NonInferiority, ...]

    @property
    def reference(self) -> str:
        """The name of the model that the others are compared with."""
        return self.models[0].name

    @property
    def all_non_inferior(self) -> bool:
        """Whether every model is as good as the reference."""
        return all(found.verdict == "non-inferior" for found in self.verdicts)
