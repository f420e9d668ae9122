"""What is shipped and what was measured on it."""

from dataclasses import dataclass, field
from math import inf
from typing import Literal, get_args

from ttl_deploy.records.data import DataFingerprint, DecodeSettings, Split
from ttl_deploy.records.models import InputConvention, ModelSpec
from ttl_deploy.records.quantisation import Finetuning
from ttl_deploy.records.scores import Comparison, Needed, PairedDifference, Score

FileFormat = Literal["onnx", "ort", "openvino", "trt"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
MAX_DROP = 0.005
"""The largest loss of AUROC by a lower precision that is allowed unless the user says otherwise."""
MIN_AGREEMENT = 0.98
"""The smallest share of decisions that a lower precision must leave as they were."""


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
OperatingRule = Literal["argmax", "youden", "sensitivity", "specificity", "each"]
OPERATING_RULES: tuple[OperatingRule, ...] = tuple(rule for rule in get_args(OperatingRule) if rule != "each")
"""Those that a user may ask for; `each` is what becomes of `argmax` where an image can have several classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """From which probability on the file says class 1, by which rule, and what it does there.

    Attributes:
        rule: `argmax` (the most probable class, no threshold), `each` (every class by itself, from 0.5 on), or how
            the threshold was chosen.
        target: the share that the rules `sensitivity` and `specificity` keep; None for the others.
        threshold: of the calibrated probability of class 1; None for `argmax` and `each`.
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
        if (self.rule in ("argmax", "each")) != (self.threshold is None):
            raise ValueError(f"the rule {self.rule} does not go with the threshold {self.threshold}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a file of lower precision must keep of the trained model, at its export and whenever it is verified.

    Attributes:
        max_drop: the loss of AUROC that the paired interval at `level` must exclude.
        min_agreement: share of decisions that must be the model's.
        golden_limit: how far answers to the synthetic images may lie from those recorded of this very file, on the
            target it was exported for.
        foreign_golden_limit: the same on other targets, which round elsewhere.
    """

    max_drop: float
    min_agreement: float = MIN_AGREEMENT
    level: float = 0.95
    golden_limit: float = 0.02
    foreign_golden_limit: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.max_drop < 0.5:
            raise ValueError(f"max_drop = {self.max_drop}: give a loss of AUROC above 0 and below 0.5, such as 0.005")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """Where a file was run, and which precision the runtime said it computed in.

    `layers` counts convolutions and matrix products by the type they were executed in.
    """

    target: str
    runtime: str
    precision: str
    layers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to make a file of lower precision: how, what stayed in single precision, and how it did.

    `sqnr_db` is the power of the centred log-probabilities over that of their error. `auroc_low` is the lower bound
    of the AUROC difference to the model; None where there was none.
    """

    recipe: str
    kept: tuple[str, ...]
    size_bytes: int
    max_difference: float
    sqnr_db: float | None
    agreement: float
    auroc_difference: float | None
    auroc_low: float | None
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationImages:
    """The training images whose activations set the ranges of 8-bit numbers.

    `sha256` is the hash of the images' sorted content hashes, one per line.
    """

    split: Split
    images: int
    patients: int
    per_class: tuple[int, ...]
    seed: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """How a file came to its 8-bit numbers: recipe, calibration images, layers kept in fp32, all that was tried.

    `finetuning` says how the model was finetuned for them; None where it was not.
    """

    recipe: str
    calibration: CalibrationImages
    kept: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    single_size_bytes: int
    finetuning: Finetuning | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactManifest:
    """`manifest.json` of an artifact: what the file is, what it expects, how good it was.

    The same JSON, without `files`, stands in the model file's metadata under `ttl_deploy`. `precision` is what was
    asked for, `executed` what really ran where the file was checked; `gate` what a lower precision must keep, and
    `quantisation` how it was made. The last three are None in older artifacts, and the last two in single precision.
    `output` is the name of the probabilities `(batch, classes)`, which sum to 1 unless an image can have several
    classes, and are calibrated if `calibration` says so; `scores` are of these. `decision` says how a probability
    becomes a class: `argmax`, for two classes `threshold`, for several per image `each`; `operating_point` says how
    that was chosen. Both are None in artifacts that were exported before there were such, `calibration` also where it
    was not wanted. `comparison` is that of this cut, as a mean over its seeds, with the full network on the test
    split; None where there was none.
    """

    name: str
    format: FileFormat
    precision: Precision
    model: ModelSpec
    classes: tuple[str, ...]
    decode: DecodeSettings
    input: InputSpec
    output: str
    decision: Literal["argmax", "threshold", "each"]
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
    executed: Execution | None = None
    gate: Gate | None = None
    quantisation: Quantisation | None = None
    comparison: Comparison | None = None

    @property
    def temperature(self) -> float:
        """What the file divides its logits by before the softmax; 1 where it was not calibrated."""
        return 1.0 if self.calibration is None else self.calibration.temperature


@dataclass(frozen=True, slots=True, kw_only=True)
class AurocDrop:
    """The AUROC of a file and of the model on the same labelled images, and the paired interval of the difference.

    `difference` is file minus model; None, as are the values, where it cannot be told, for the `reason`. `needed`
    says how much data would decide, where the interval is too wide.
    """

    file: float | None
    model: float | None
    difference: PairedDifference | None
    images: int
    patients: int
    reason: str = ""
    needed: Needed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How far a built model's probabilities lie from the reference's, and how many decisions differ.

    `percentiles` are the 50th, 95th and 99th of the images' largest differences. `limit` judges files in single
    precision; those of lower precision have a `gate` instead. `executed` says what ran.
    """

    images: int
    max_difference: float
    mean_difference: float
    decisions_flipped: int
    limit: float
    reference: str
    percentiles: tuple[float, float, float] | None = None
    sqnr_db: float | None = None
    auroc: AurocDrop | None = None
    gate: Gate | None = None
    executed: Execution | None = None

    @property
    def agreement(self) -> float:
        """Share of decisions that are the reference's."""
        return 1 - self.decisions_flipped / self.images if self.images else 0.0

    @property
    def failures(self) -> tuple[str, ...]:
        """Say what is not as it must be; nothing where all is."""
        return self._strict_failures() if self.gate is None else self._gate_failures(self.gate)

    @property
    def passed(self) -> bool:
        """Whether every probability lies within the limit and no decision differs; or else whether the gate holds."""
        return not self.failures

    def _strict_failures(self) -> tuple[str, ...]:
        found = []
        if not self.max_difference <= self.limit:
            found.append(f"probabilities differ by up to {self.max_difference:.2g} (allowed {self.limit:g})")
        if self.decisions_flipped:
            found.append(f"{self.decisions_flipped} of {self.images} decisions changed")
        return tuple(found)

    def _gate_failures(self, gate: Gate) -> tuple[str, ...]:
        found = []
        if not self.agreement >= gate.min_agreement:
            found.append(
                f"{self.decisions_flipped} of {self.images} decisions changed, {self.agreement:.2%} are the same "
                f"(asked for {gate.min_agreement:.0%})"
            )
        difference = self.auroc.difference if self.auroc else None
        if difference is None:
            reason = self.auroc.reason if self.auroc else "the images have no labels"
            found.append(f"the loss of AUROC cannot be told: {reason}")
        elif not difference.low > -gate.max_drop:
            found.append(_tell_drop(difference, gate, self.auroc))
        return tuple(found)


def _tell_drop(difference: PairedDifference, gate: Gate, auroc: AurocDrop | None) -> str:
    told = (
        f"the AUROC differs by {difference.value:+z.4f}, {difference.level:.0%} interval {difference.low:+z.4f} to "
        f"{difference.high:+z.4f}, which does not exclude a loss of {gate.max_drop:g}"
    )
    if auroc is None or difference.value <= -gate.max_drop:
        return told
    needed = auroc.needed
    more = (
        "more images than can be told"
        if needed is None
        else f"about {needed.patients} patients with {needed.positives} images of the rarer class"
    )
    return f"{told}; {auroc.images} images of {auroc.patients} patients are too few, {more} would decide"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """The verdict on an artifact with a data set: parity, and scores of file and model side by side.

    `file_scores` rest on all images, `model_scores` on those with a reference, and so does
    `file_scores_with_reference` (what to lay beside the model's). `parity` is None where no image
    has a reference; the last two are then empty. All decide by `threshold`, or by the most probable class where
    that is None. `near_threshold` counts the images on which a difference within `limit` could change the decision;
    None in reports that were made before it was counted. `precision` is what the artifact asks for, `executed` what
    the runtime says it computed in; `golden` is how the synthetic images did.
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
    precision: str = ""
    executed: Execution | None = None
    golden: Parity | None = None
