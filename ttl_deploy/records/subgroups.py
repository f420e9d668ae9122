"""How a model does on the groups that a table's columns make of a split."""

from dataclasses import dataclass

from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A column that makes no groups, and why."""

    column: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestDifference:
    """AUROC of a group minus that of all other images, with its interval; no patient is in both."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgroup:
    """One group, or the whole split.

    Attributes:
        name: the column's value, a band of numbers, or `(blank)`.
        images, patients, per_class: how many there are; the last counts images by class, in class order.
        scores: AUROC, sensitivity and specificity of the model; and `reference_scores` of the reference, or none.
        small: why nothing can be judged from so few patients, in words; empty where something can.
        to_rest: the model's difference to all others; None where either side is small, or patients are in both.
        multilabel: whether an image can have several of the classes.
    """

    name: str
    images: int
    patients: int
    per_class: tuple[int, ...]
    scores: tuple[Score, ...]
    reference_scores: tuple[Score, ...] = ()
    small: str = ""
    to_rest: RestDifference | None = None
    multilabel: bool = False

    @property
    def positives(self) -> int | None:
        """How many images are of the second of two classes; None for more classes, or several per image."""
        return self.per_class[1] if len(self.per_class) == 2 and not self.multilabel else None

    def score(self, metric: str) -> Score:
        """Return one of the model's scores."""
        return next(score for score in self.scores if score.metric == metric)

    def reference_score(self, metric: str) -> Score | None:
        """Return one of the reference's scores, where there is one."""
        return next((score for score in self.reference_scores if score.metric == metric), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualityTest:
    """Test of "the AUROC is the same in all groups of this column", over those of its groups that are large enough.

    `p` is by permutation, `p_holm` corrected for the columns that were tested.
    """

    groups: tuple[str, ...]
    p: float
    p_holm: float
    permutations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SubgroupColumn:
    """One column's groups; every image of the split is in one.

    `shared_patients` have images in several groups, and count in each. `test` is None with a reason `untested`.
    """

    column: str
    groups: tuple[Subgroup, ...]
    banded: bool
    shared_patients: int
    test: EqualityTest | None = None
    untested: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgroups:
    """A model's scores by subgroup on one split.

    Attributes:
        model, reference: the trials whose predictions these are; of a candidate with several seeds the one that ships.
        decision: how a probability becomes a class, in words; sensitivity and specificity are of the model's.
        why_split: why this split, in words.
        overall: the whole split.
        columns: those that make groups; `left_out` those that do not.
        fewest: patients that each side of a class needs; a group with fewer is small.
    """

    split: Split
    model: str
    reference: str | None
    classes: tuple[str, ...]
    decision: str
    level: float
    patients_known: bool
    fewest: int
    overall: Subgroup
    columns: tuple[SubgroupColumn, ...]
    left_out: tuple[LeftOut, ...] = ()
    why_split: str = ""

    @property
    def looked_at(self) -> int:
        """How many groups are looked at."""
        return sum(len(column.groups) for column in self.columns)
