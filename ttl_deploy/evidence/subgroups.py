"""How good one model is on the groups that a table's columns make, and how sure that is of each.

Every group is scored by itself, its own patients resampled. A group in which a class stands for few patients
says little about other patients, so its scores are shown without intervals, and as too small to judge.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.errors import DataError
from ttl_deploy.evidence import group_areas, holm, intervals
from ttl_deploy.evidence.answers import Flags, Floats, Integers
from ttl_deploy.evidence.columns import Grouping
from ttl_deploy.evidence.group_areas import PERMUTATIONS
from ttl_deploy.evidence.intervals import LEVEL, REPLICATES
from ttl_deploy.evidence.noninferiority import FEWEST_PATIENTS
from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import Metric, Score
from ttl_deploy.records.subgroups import EqualityTest, RestDifference, Subgroup, SubgroupColumn

SHOWN: tuple[Metric, ...] = ("auroc", "sensitivity", "specificity")
FEWEST_TO_TEST = 30
"""Patients that each class needs in a group to be part of a test of equality.

With 20 it rejected in 8 % of simulated studies where 5 % is promised (docs/subgroups.md).
"""
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A model's probabilities `(N, C)`, and for two classes from which one on the second is decided on, or None."""

    probabilities: Floats
    threshold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """The images of a split: labels, patients `(N,)`, the names of the classes; and how they are scored.

    Labels are class numbers `(N,)`; where an image can have several, marks `(N, C)`: 1, 0 or -1 for not known.
    """

    labels: Integers
    patients: NDArray[np.generic]
    classes: tuple[str, ...]
    split: Split
    level: float = LEVEL
    replicates: int = REPLICATES
    permutations: int = PERMUTATIONS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.labels.ndim not in (1, 2) or self.labels.shape[:1] != self.patients.shape:
            raise DataError(
                f"labels {self.labels.shape} and patients {self.patients.shape}: give one of each per image"
            )

    @property
    def scored(self) -> tuple[str, ...]:
        """Names of the scored classes: of two the second."""
        return self.classes[1:] if len(self.classes) == 2 and self.labels.ndim == 1 else self.classes

    def marks(self, inside: Flags) -> Integers:
        """Return whether each of the images `inside` has each scored class, `(n, K)`, -1 where it is not known."""
        labels = self.labels[inside]
        if labels.ndim == 2:
            return labels
        first = len(self.classes) - len(self.scored)
        return np.asarray(labels[:, None] == np.arange(first, len(self.classes)), dtype=np.int64)


def score_split(cases: Cases, model: Scored, reference: Scored | None = None) -> Subgroup:
    """Score all images of a split as if they were one group, named `all`."""
    return _score(cases, np.ones(len(cases.labels), dtype=np.bool_), "all", model, reference)


def score_columns(
    cases: Cases, groupings: Sequence[Grouping], model: Scored, reference: Scored | None = None
) -> tuple[SubgroupColumn, ...]:
    """Score every group of every column, and test whether the model's AUROC is the same in a column's groups.

    The p-values are corrected for the number of columns that are tested.
    """
    columns = [_score_column(cases, one, model, reference) for one in groupings]
    tested = [column.test for column in columns if column.test]
    corrected = iter(holm.correct([test.p for test in tested]))
    return tuple(
        replace(column, test=replace(column.test, p_holm=next(corrected))) if column.test else column
        for column in columns
    )


def patients_with(cases: Cases, inside: Flags) -> NDArray[np.int64]:
    """Count the patients with and without each scored class among the images `inside`, `(K, 2)`."""
    patients = cases.patients[inside]
    return np.array([[_distinct(patients[marks == mark]) for mark in (1, 0)] for marks in cases.marks(inside).T])


def _distinct(patients: NDArray[np.generic]) -> int:
    return len(np.unique(patients))


def _score_column(cases: Cases, grouping: Grouping, model: Scored, reference: Scored | None) -> SubgroupColumn:
    shared = _count_shared(cases, grouping)
    groups = [_score(cases, grouping.members == at, name, model, reference) for at, name in enumerate(grouping.names)]
    if not shared:
        groups = [
            replace(group, to_rest=_compare(cases, grouping.members == at, model)) for at, group in enumerate(groups)
        ]
    test, untested = _test(cases, grouping, model, shared)
    return SubgroupColumn(
        column=grouping.column,
        groups=tuple(groups),
        banded=grouping.banded,
        shared_patients=shared,
        test=test,
        untested=untested,
    )


def _score(cases: Cases, inside: Flags, name: str, model: Scored, reference: Scored | None) -> Subgroup:
    labels = cases.labels[inside]
    counts = patients_with(cases, inside)
    return Subgroup(
        name=name,
        images=len(labels),
        patients=_distinct(cases.patients[inside]),
        per_class=_count_classes(labels, len(cases.classes)),
        scores=_scores(cases, inside, model, counts),
        reference_scores=_scores(cases, inside, reference, counts) if reference else (),
        small=_why_small(counts, cases.scored),
        multilabel=labels.ndim == 2,
    )


def _count_classes(labels: Integers, classes: int) -> tuple[int, ...]:
    counts = (labels == 1).sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)
    return tuple(counts.tolist())


def _scores(cases: Cases, inside: Flags, scored: Scored, counts: NDArray[np.int64]) -> tuple[Score, ...]:
    """Score one model on one group; intervals are withheld where the patients a score rests on are too few."""
    resampled = intervals.resample(
        scored.probabilities[inside],
        cases.labels[inside],
        cases.patients[inside],
        threshold=scored.threshold,
        only=SHOWN,
        replicates=cases.replicates,
        seed=cases.seed,
    )
    found = {one.metric: one for one in intervals.score_all(resampled, split=cases.split, level=cases.level)}
    return tuple(_name_class(_withhold(found[metric], counts), cases, inside) for metric in SHOWN)


def _withhold(score: Score, counts: NDArray[np.int64]) -> Score:
    fewest = int({"sensitivity": counts[:, 0], "specificity": counts[:, 1]}.get(score.metric, counts).min())
    if score.value is None or fewest >= FEWEST_PATIENTS:
        return score
    method = f"no interval: it rests on {fewest} patients of one kind, fewer than {FEWEST_PATIENTS}"
    return replace(score, low=None, high=None, delong=None, method=method)


def _name_class(score: Score, cases: Cases, inside: Flags) -> Score:
    """Say by its name which class an undefined score's images are all of."""
    labels = np.unique(cases.labels[inside])
    if score.value is not None or len(labels) != 1 or cases.labels.ndim == 2:
        return score
    return replace(score, reason=f"all {score.images} images are of class {cases.classes[labels[0]]}")


def _why_small(counts: NDArray[np.int64], names: tuple[str, ...]) -> str:
    """Say which classes too few patients stand for, in words; nothing where all have enough."""
    if not counts.any():
        return "no images"
    few = [
        told
        for name, (own, others) in zip(names, counts.tolist(), strict=True)
        if (told := _tell_few(name, own, others))
    ]
    more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
    return f"too small to judge: {'; '.join(few[:_NAMED])}{more}" if few else ""


def _tell_few(name: str, own: int, others: int) -> str:
    """Say on which sides of one class too few patients stand: `4 patients with X, 3 without`."""
    parts = [f"{_count(own)} with {name}"] if own < FEWEST_PATIENTS else []
    if others < FEWEST_PATIENTS:
        parts.append(f"{others} without" if parts else f"{_count(others)} without {name}")
    return ", ".join(parts)


def _count(patients: int) -> str:
    return f"{patients} patient{'' if patients == 1 else 's'}"


def _count_shared(cases: Cases, grouping: Grouping) -> int:
    """Count the patients with images in several groups."""
    units = np.unique(cases.patients, return_inverse=True)[1]
    pairs = np.unique(np.stack([units, grouping.members]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())


def _compare(cases: Cases, inside: Flags, model: Scored) -> RestDifference | None:
    """Compare a group with all others, where two classes have enough patients on either side."""
    fewest = min(int(patients_with(cases, side).min()) for side in (inside, ~inside))
    if len(cases.scored) != 1 or fewest < FEWEST_PATIENTS:
        return None
    value, low, high = group_areas.compare_with_rest(
        cases.labels == 1, model.probabilities[:, 1], cases.patients, inside, level=cases.level
    )
    return RestDifference(value=value, low=low, high=high, level=cases.level)


def _test(cases: Cases, grouping: Grouping, model: Scored, shared: int) -> tuple[EqualityTest | None, str]:
    """Test one column, or say why not; the p-value is corrected later."""
    if len(cases.scored) != 1:
        return None, "several classes per image" if cases.labels.ndim == 2 else "more than two classes"
    if shared:
        return None, f"{_count(shared)} {'has' if shared == 1 else 'have'} images in several groups"
    large = [
        at for at in range(len(grouping.names)) if patients_with(cases, grouping.members == at).min() >= FEWEST_TO_TEST
    ]
    if len(large) < 2:
        return None, f"fewer than two groups have {FEWEST_TO_TEST} patients with, and without, {cases.classes[1]}"
    taken = np.isin(grouping.members, large)
    p = group_areas.p_of_equality(
        cases.labels[taken] == 1,
        model.probabilities[taken, 1],
        cases.patients[taken],
        np.searchsorted(large, grouping.members[taken]),
        permutations=cases.permutations,
        seed=cases.seed,
    )
    names = tuple(grouping.names[at] for at in large)
    return EqualityTest(groups=names, p=p, p_holm=p, permutations=cases.permutations), ""
