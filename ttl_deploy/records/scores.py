"""Scores with their uncertainty, the front, and the choice made from it."""

from dataclasses import dataclass
from typing import Literal

from ttl_deploy.records.data import Split

Metric = Literal["auroc", "auprc", "accuracy"]
METRICS: tuple[Metric, ...] = ("auroc", "auprc", "accuracy")
Axis = Literal["macs", "params", "latency_s"]
AXES: tuple[Axis, ...] = ("macs", "params", "latency_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One metric on one split; `value` is None, with a `reason`, where it is undefined.

    Attributes:
        value: between 0 and 1; for several classes the macro mean over the defined ones.
        low, high: bounds of the interval at `level`.
        images, patients: how much it rests on.
        per_class: one value per class in class order (for two classes: the positive one only).
        defined: how many of the classes have both positives and negatives.
        method: how the interval was made, in words.
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

    def __post_init__(self) -> None:
        if self.value is None and not self.reason:
            raise ValueError(f"an undefined {self.metric} needs a reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """A cut's score minus the reference's on the same patients, with its interval."""

    reference: str
    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One cut after training: its costs, its scores over seeds, and whether it is on the front.

    Attributes:
        validation: scores on the validation split; the value is the mean over seeds.
        test: scores on the test split; empty unless the cut is the reference or on the front.
        seeds: the seeds that were trained; `seed_values` their validation AUROC, in that order.
        to_best: validation AUROC against the best cut, paired by patient; None for the best itself.
        on_front: the cost axes on which no other cut is as cheap and as good.
        latency_s: median latency of the exported model on the profile's target; None if not measured.
        latency_noise_s: differences below this are ties.
    """

    cut: str
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """All trained cuts of a run, shallow to deep, and the cut with the best validation AUROC."""

    best: str
    reference: str | None
    target: str
    points: tuple[FrontPoint, ...]

    def point(self, cut: str) -> FrontPoint:
        """Return the point of a cut; raises KeyError for a cut that was not trained."""
        for point in self.points:
            if point.cut == cut:
                return point
        raise KeyError(cut)


PickRule = Literal["smallest-within-interval", "best", "fastest-within-interval"]
PICK_RULES: tuple[PickRule, ...] = ("smallest-within-interval", "best", "fastest-within-interval")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The cut to ship, the seed whose weights are shipped, and the rule that chose it, in words."""

    cut: str
    seed: int
    rule: PickRule
    max_latency_s: float | None
    max_params: int | None
    max_macs: int | None
    sentence: str
