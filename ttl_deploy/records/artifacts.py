"""What is shipped and what was measured on it."""

from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

from ttl_deploy.records.data import DataFingerprint, DecodeSettings, Split
from ttl_deploy.records.models import InputConvention, ModelSpec
from ttl_deploy.records.scores import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A file of the artifact folder: name, size and content hash."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """The graph's input: uint8 RGB `(batch, height, width, 3)`; normalisation happens inside.

    `mean` and `std` are for pixel values in 0..1; a single entry means that the three channels are averaged
    first. `normalisation` says the same in words.
    """

    name: str
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_batch: int
    normalisation: str = ""

    def __post_init__(self) -> None:
        InputConvention(mean=self.mean, std=self.std)  # raises ValueError


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationEffect:
    """How well the probabilities of one split fit its labels, before and after the temperature.

    `nll` is the mean negative log-likelihood of the true class, in nats. `error` is the calibration
    error; None where that was not scored.
    """

    split: Split
    images: int
    patients: int
    nll_before: float
    nll_after: float
    error_before: Score | None
    error_after: Score | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The temperature that the file divides its logits by, and what that changed.

    Fitted on the split `split` alone, on so many images and patients. `note` says in words why the temperature
    is 1 where it was not fitted. Of the `effects`, that on validation is too good, because the temperature
    was fitted there; that on test, there where that split was opened, is not.
    """

    temperature: float
    split: Split
    images: int
    patients: int
    effects: tuple[CalibrationEffect, ...]
    note: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.temperature < inf:
            raise ValueError(f"a temperature is above 0 and finite, not {self.temperature}")

    @property
    def missed(self) -> bool:
        """Whether validation's calibration error rose, as where probabilities are shifted rather than too sharp."""
        own = next((effect for effect in self.effects if effect.split == self.split), None)
        if own is None or own.error_before is None or own.error_after is None:
            return False
        return (own.error_after.value or 0.0) > (own.error_before.value or 0.0)


SHIFTED = (
    "The calibration error on validation rose all the same. That happens where probabilities are shifted towards a "
    "class, as balanced class weights or sampling shift them, which no temperature mends."
)
"""What to say where `Calibration.missed`."""
OperatingRule = Literal["argmax", "youden", "sensitivity", "specificity"]
OPERATING_RULES: tuple[OperatingRule, ...] = get_args(OperatingRule)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """From which probability on the file says class 1, by which rule, and what it does there.

    Attributes:
        rule: `argmax` (the most probable class, no threshold), or how the threshold was chosen.
        target: the share that the rules `sensitivity` and `specificity` keep; None for the others.
        threshold: of the calibrated probability of class 1; None for `argmax`.
        low, high: bounds of its interval at `level`, the rule repeated on resamples of patients; or None.
        split, images, patients: what it was chosen on.
        method: how the interval was made, or why there is none.
        sentence: the rule in words.
        scores: sensitivity, specificity and the like with this threshold. Those on validation are too good
            where the threshold was chosen there; those on test, there where that split was opened, are not.
    """

    rule: OperatingRule
    target: float | None
    threshold: float | None
    low: float | None
    high: float | None
    level: float
    split: Split
    images: int
    patients: int
    method: str
    sentence: str
    scores: tuple[Score, ...] = ()

    def __post_init__(self) -> None:
        if (self.rule == "argmax") != (self.threshold is None):
            raise ValueError(f"the rule {self.rule} does not go with the threshold {self.threshold}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactManifest:
    """`manifest.json` of an artifact: what the file is, what it expects, how good it was.

    The same JSON, without `files`, stands in the ONNX file's metadata under `ttl_deploy`.
    `output` is the name of the probabilities `(batch, classes)`, which sum to 1 and are calibrated if
    `calibration` says so; `scores` are of these. `decision` says how a probability becomes a class: `argmax`, or for
    two classes `threshold`; `operating_point` says how that was chosen. Both are None in artifacts
    that were exported before there were such, `calibration` also where it was not wanted.
    """

    name: str
    format: Literal["onnx"]
    precision: str
    model: ModelSpec
    classes: tuple[str, ...]
    decode: DecodeSettings
    input: InputSpec
    output: str
    decision: Literal["argmax", "threshold"]
    threshold: float | None
    scores: tuple[Score, ...]
    params: int
    macs: int
    data: DataFingerprint
    strategy: str
    seed: int
    weights_sha256: str
    weights_note: str
    versions: dict[str, str]
    opset: int
    ir_version: int
    created: str
    intended_use: str
    files: tuple[FileEntry, ...] = ()
    calibration: Calibration | None = None
    operating_point: OperatingPoint | None = None

    @property
    def temperature(self) -> float:
        """What the file divides its logits by before the softmax; 1 where it was not calibrated."""
        return 1.0 if self.calibration is None else self.calibration.temperature


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far a built model's probabilities lie from the reference's, and how many decisions differ."""

    images: int
    max_difference: float
    mean_difference: float
    decisions_flipped: int
    limit: float
    reference: str

    @property
    def passed(self) -> bool:
        """Whether every probability lies within the limit and no decision differs."""
        return self.max_difference <= self.limit and self.decisions_flipped == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """The verdict on an artifact with a data set: parity, and scores of file and model side by side.

    `file_scores` rest on all images, `model_scores` on those with a reference, and so does
    `file_scores_with_reference` (what to lay beside the model's). `parity` is None where no image
    has a reference; the last two are then empty. All decide by `threshold`, or by the most probable class where
    that is None. `near_threshold` counts the images on which a difference within `limit` could change the decision;
    None in reports that were made before it was counted.
    """

    artifact: str
    artifact_sha256: str
    target: str
    split: str
    images: int
    parity: Parity | None
    file_scores: tuple[Score, ...]
    model_scores: tuple[Score, ...]
    passed: bool
    note: str = ""
    file_scores_with_reference: tuple[Score, ...] = ()
    threshold: float | None = None
    near_threshold: int | None = None
    limit: float | None = None
