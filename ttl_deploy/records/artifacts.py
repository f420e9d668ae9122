"""What is shipped and what was measured on it."""

from dataclasses import dataclass, field
from typing import Literal

from ttl_deploy.records.data import DataFingerprint, DecodeSettings
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
class ArtifactManifest:
    """`manifest.json` of an artifact: what the file is, what it expects, how good it was.

    The same JSON, without `files`, stands in the ONNX file's metadata under `ttl_deploy`.
    `output` is the name of the probabilities `(batch, classes)`, which sum to 1.
    `decision` says how a probability becomes a class: `argmax`, or for two classes `threshold`.
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
    has a reference; the last two are then empty.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where something was measured."""

    host: str
    system: str
    processor: str
    cores: int
    memory_bytes: int
    governor: str
    load_before: float
    load_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Raw latencies of one fresh process, in seconds per call; warm-up calls kept apart."""

    round: int
    load_s: float
    warmup_s: tuple[float, ...]
    samples_s: tuple[float, ...]
    cpu_samples_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """One percentile of the latencies; `value_s` is None where too few samples support it."""

    percent: float
    value_s: float | None
    low_s: float | None
    high_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """One artifact on one target at one batch size: the shipped latency, and how sure it is.

    `throughput` is images per second in the same single-stream mode. `precision` is what really ran.
    `noise_s` is the spread of the rounds' medians; `verdict` is `stable`, or `noisy: …` or
    `inconclusive: …` with the reasons.
    """

    artifact: str
    artifact_sha256: str
    target: str
    runtime: str
    precision: str
    batch: int
    threads: int
    boundary: str
    percentiles: tuple[Percentile, ...]
    minimum_s: float
    variation: float
    noise_s: float
    throughput: float
    verdict: str
    timings: tuple[Timing, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """A benchmark: the rows, the machine, and the fixed matrix product timed before and after."""

    machine: Machine
    rows: tuple[BenchRow, ...]
    calibration_before_s: float
    calibration_after_s: float
    versions: dict[str, str] = field(default_factory=dict)
