"""Scores with their uncertainty, verdicts on them, the front, and the choice made from it."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from ttl_deploy.records.candidates import Candidate
from ttl_deploy.records.data import Split

Metric = Literal[
    "auroc",
    "auprc",
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "sensitivity_at_specificity",
    "specificity_at_sensitivity",
    "f1",
    "brier",
    "calibration_error",
    "kappa",
]
METRICS: tuple[Metric, ...] = get_args(Metric)
"""Every metric that `evidence.metrics` defines, in the order in which they are shown."""
Axis = Literal["macs", "params", "latency_s"]
AXES: tuple[Axis, ...] = ("macs", "params", "latency_s")
MARGIN = 0.02
"""Loss of AUROC from which on a model counts as worse, unless another margin is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One metric on one split; `value` is None, with a `reason`, where it is undefined.

    Attributes:
        value: between 0 and 1 (kappa from -1); for several classes the macro mean over the defined ones.
        low, high: bounds of the interval at `level`: patients resampled.
        images, patients: how much it rests on.
        per_class: one value per class in class order (for two classes: the positive one only).
        defined: how many of the classes the value is the mean of; the others lack positives or negatives.
        method: how the interval was made, in words.
        per_seed: each seed's own value, in their order; how far they spread is no part of the interval.
        delong: DeLong's interval of an AUROC, where cases are independent and classes are two; else None.
    """

    metric: Metric
    split: Split
    value: float | None
    low: float | None
    high: float | None
    level: float
    images: int
    patients: int
    per_class: tuple[float | None, ...]
    defined: int
    method: str
    reason: str = ""
    per_seed: tuple[float | None, ...] = ()
    delong: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError(f"an undefined {self.metric} needs a reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """A candidate's score minus that of another, named `reference`, on the same patients, with its interval."""

    reference: str
    value: float
    low: float
    high: float
    level: float


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
        smallest_margin: the verdict is `non-inferior` at every margin above it and at none below, correction and
            floor of patients included; 0 where every margin will do, None where none will.
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
    smallest_margin: float | None = None
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
    `margin_floor` is the smallest margin that so many patients can show of any model whose predictions differ from the
    reference's; None where no verdict can be reached.
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
    margin_floor: float | None = None

    @property
    def reference(self) -> str:
        """The name of the model that the others are compared with."""
        return self.models[0].name

    @property
    def all_non_inferior(self) -> bool:
        """Whether every model is as good as the reference."""
        return all(found.verdict == "non-inferior" for found in self.verdicts)


Standing = Literal["on the front", "not clearly worse", "clearly worse", "off the front"]
"""Where a candidate stands on one axis; `off the front` where it is not known whether it is clearly worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dominated:
    """That a candidate is clearly worse than another, on one axis.

    The other costs no more, or not more than the noise, and the interval of the paired difference in validation
    AUROC, this candidate's minus the other's, lies below zero. It is not corrected for the number of candidates.
    """

    axis: Axis
    difference: PairedDifference

    def __post_init__(self) -> None:
        if self.difference.high >= 0:
            raise ValueError(f"{self.difference.reference} is not clearly better: {self.difference}")

    @property
    def by(self) -> str:
        """The name of the other one."""
        return self.difference.reference


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One candidate after training: its costs, its scores over seeds, and whether it is on the front.

    Attributes:
        name: what it is called on its front: the cut alone where all have one strategy, else with the strategy.
        validation: scores on the validation split; the value is the mean over seeds.
        test: scores on the test split; empty unless the candidate is the reference or on the front.
        seeds: the seeds that were trained; `seed_values` their validation AUROC, in that order.
        to_best: validation AUROC against the best candidate, paired by patient; None for the best itself.
        on_front: the cost axes on which no other candidate is as cheap and as good, by the scores as they are.
        dominated_by: for each axis on which it is clearly worse than another, one that it is worse than; None where
            an older version made the front and did not ask.
        latency_s: median latency of the exported model on the profile's target; None if not measured.
        latency_noise_s: differences below this are ties.
    """

    name: str
    cut: str
    strategy: str
    params: int
    macs: int
    layers: int
    params_share: float
    macs_share: float
    latency_s: float | None
    latency_noise_s: float | None
    validation: tuple[Score, ...]
    test: tuple[Score, ...]
    seeds: tuple[int, ...]
    seed_values: tuple[float | None, ...]
    to_best: PairedDifference | None
    on_front: tuple[Axis, ...]
    dominated_by: tuple[Dominated, ...] | None = None

    @property
    def candidate(self) -> Candidate:
        """The cut and the strategy."""
        return Candidate(self.cut, self.strategy)

    def standing(self, axis: Axis) -> Standing | None:
        """Tell where the candidate stands on an axis; None where that cost was not measured."""
        if getattr(self, axis) is None:
            return None
        if axis in self.on_front:
            return "on the front"
        if self.dominated_by is None:
            return "off the front"
        return "clearly worse" if any(one.axis == axis for one in self.dominated_by) else "not clearly worse"

    def axes(self, standing: Standing) -> tuple[Axis, ...]:
        """Return the axes on which the candidate stands so."""
        return tuple(axis for axis in AXES if self.standing(axis) == standing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """All trained candidates of a run, shallow to deep, and for one cut in the order of the strategies.

    `best` is the name of the one with the best validation AUROC, `reference` that of the full network; where
    several strategies trained it, of the best of these on validation. The full network is what a smaller
    model replaces, so it must be given its best chance: beside a badly trained one any cut would look good.
    `verdicts` compare it with the others whose test scores are stated, on the test split; None where that is
    closed, where there is nothing to compare, or where an older version made the front.
    """

    best: str
    reference: str | None
    target: str
    points: tuple[FrontPoint, ...]
    verdicts: Comparison | None = None

    def __post_init__(self) -> None:
        names = [point.name for point in self.points]
        if len(set(names)) < len(names):
            raise ValueError(f"the names of a front must differ: {', '.join(names)}")

    def point(self, name: str) -> FrontPoint:
        """Return the point of this name; raises KeyError for one that was not trained."""
        for point in self.points:
            if point.name == name:
                return point
        raise KeyError(name)

    def verdict(self, name: str) -> NonInferiority | None:
        """Return the verdict on a candidate; None where there is none, as on the reference."""
        found = () if self.verdicts is None else self.verdicts.verdicts
        return next((one for one in found if one.model == name), None)

    def compared(self, name: str) -> Comparison | None:
        """Return the comparison of one candidate with the reference; None where there is no verdict on it.

        Its p-values stay corrected for all candidates that were compared.
        """
        found = self.verdict(name)
        if self.verdicts is None or found is None:
            return None
        models = tuple(one for one in self.verdicts.models if one.name in (self.verdicts.reference, name))
        return replace(self.verdicts, models=models, verdicts=(found,))

    def point_of(self, cut: str, strategy: str) -> FrontPoint:
        """Return the point of a cut and strategy; raises KeyError for a candidate that was not trained."""
        for point in self.points:
            if point.candidate == (cut, strategy):
                return point
        raise KeyError((cut, strategy))

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies on the front, each once."""
        return tuple(dict.fromkeys(point.strategy for point in self.points))

    @property
    def cuts(self) -> tuple[str, ...]:
        """The cuts on the front, each once, shallow to deep."""
        return tuple(dict.fromkeys(point.cut for point in self.points))


PickRule = Literal["smallest-within-interval", "best", "fastest-within-interval"]
PICK_RULES: tuple[PickRule, ...] = ("smallest-within-interval", "best", "fastest-within-interval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The candidate to ship, the seed whose weights are shipped, and the rule that chose it, in words."""

    cut: str
    strategy: str
    seed: int
    rule: PickRule
    max_latency_s: float | None
    max_params: int | None
    max_macs: int | None
    sentence: str

    @property
    def candidate(self) -> Candidate:
        """The cut and the strategy."""
        return Candidate(self.cut, self.strategy)
