"""Scores with their uncertainty, the front, and the choice made from it."""

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One candidate after training: its costs, its scores over seeds, and whether it is on the front.

    Attributes:
        name: what it is called on its front: the cut alone where all have one strategy, else with the strategy.
        validation: scores on the validation split; the value is the mean over seeds.
        test: scores on the test split; empty unless the candidate is the reference or on the front.
        seeds: the seeds that were trained; `seed_values` their validation AUROC, in that order.
        to_best: validation AUROC against the best candidate, paired by patient; None for the best itself.
        on_front: the cost axes on which no other candidate is as cheap and as good.
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

    @property
    def candidate(self) -> Candidate:
        """The cut and the strategy."""
        return Candidate(self.cut, self.strategy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """All trained candidates of a run, shallow to deep, and for one cut in the order of the strategies.

    `best` is the name of the one with the best validation AUROC, `reference` that of the full network; where
    several strategies trained it, of the best of these on validation. The full network is what a smaller
    model replaces, so it must be given its best chance: beside a badly trained one any cut would look good.
    """

    best: str
    reference: str | None
    target: str
    points: tuple[FrontPoint, ...]

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
