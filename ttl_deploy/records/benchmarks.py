"""Records of measured latencies: the machine, the raw samples of each process, and what is said of them."""

from dataclasses import dataclass, field


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
