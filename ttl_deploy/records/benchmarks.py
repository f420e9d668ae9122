"""Records of measured latencies: the machine, the raw samples of each process, and what is said of them.

Fields with a default were added later: reports without them can still be read.
"""

from dataclasses import dataclass, field
from typing import Literal

from ttl_deploy.records.hardware import Gpu, JetsonState

Mode = Literal["latency", "throughput"]
Basis = Literal["wall", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where something was measured, and in words what makes its figures doubtful.

    `jetson` is a Jetson's state afterwards, `jetson_before` the one before.
    """

    host: str
    system: str
    processor: str
    cores: int
    memory_bytes: int
    governor: str
    load_before: float
    load_after: float
    gpus: tuple[Gpu, ...] = ()
    jetson: JetsonState | None = None
    jetson_before: JetsonState | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """What a fresh process spends before it is warm, in seconds; `interpreter_s` is Python's part, not the runtime's.

    Files may still be in the system's cache: nothing is emptied for it.
    """

    interpreter_s: float
    import_s: float
    open_s: float
    first_run_s: float

    @property
    def total_s(self) -> float:
        """Import of the runtime, opening, first run; without the interpreter."""
        return self.import_s + self.open_s + self.first_run_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Resident memory of one process: before it imports the runtime, and the most it ever had."""

    before_bytes: int
    peak_bytes: int

    @property
    def increase_bytes(self) -> int:
        """What the runtime, the model and its runs added."""
        return self.peak_bytes - self.before_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Contention:
    """Who else used the machine while one process was timed; None where the system does not tell.

    `waited_s` is the time its threads were ready to run and another program had the core; `steal_share` and
    `others_share` are shares of all cores' time that the hypervisor took, and that other programs used.
    `kernel_s` is the median time of a fixed matrix product on the same core right afterwards.
    """

    elapsed_s: float
    cpu_s: float
    waited_s: float | None
    involuntary_switches: int | None
    steal_share: float | None
    others_share: float | None
    kernel_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Raw latencies of one fresh process, in seconds per call; warm-up calls kept apart.

    With several streams the samples of each follow those of the one before. `position` counts all processes of
    the benchmark in the order they ran. `settled` says whether the warm-up ended because the calls were steady.
    `energy_j` is what each counter saw in the `energy_s` seconds while the samples were taken, and `energy_readings`
    how often power was read for it; a counter that adds up by itself has none. `stretches_s` are times of stretches
    inside a call, by what they begin and end with, taken of further calls after the samples.
    """

    round: int
    load_s: float
    warmup_s: tuple[float, ...]
    samples_s: tuple[float, ...]
    cpu_samples_s: tuple[float, ...]
    position: int | None = None
    settled: bool | None = None
    start: ColdStart | None = None
    memory: Memory | None = None
    contention: Contention | None = None
    energy_j: dict[str, float] = field(default_factory=dict)
    energy_s: float | None = None
    energy_readings: dict[str, int] = field(default_factory=dict)
    stretches_s: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """One percentile of the latencies; `value_s` is None where too few samples support it."""

    percent: float
    value_s: float | None
    low_s: float | None
    high_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """How long one stretch inside the calls took, such as the network on the GPU.

    `boundary` says what it begins and ends with, after a short name and a colon; `calls` is how many were timed.
    `noise_s` is the spread of the processes' medians; None where one process is all there was.
    """

    boundary: str
    calls: int
    percentiles: tuple[Percentile, ...]
    median_s: float
    noise_s: float | None = None

    @property
    def name(self) -> str:
        """The boundary in a word or three."""
        return self.boundary.partition(":")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedTimes:
    """What another tool told of a model's times on this machine, to stand beside a benchmark's.

    Attributes:
        told_by: the tool, with its version where the file tells it.
        source, source_sha256: name and content hash of the file that it was read from.
        device: the GPU as the tool names it; empty where the file does not say.
        cuda_graph: whether the work was recorded once and replayed; None where the file does not say.
        samples_s: the times of single calls by boundary; empty where the tool told a summary.
    """

    told_by: str
    source: str
    source_sha256: str
    batch: int
    stretches: tuple[Stretch, ...]
    device: str = ""
    cuda_graph: bool | None = None
    samples_s: dict[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What one counter saw: joules per image, all included, and without what the machine draws when idle.

    `readings` is how often power was read in all; 0 for a counter that adds up by itself.
    """

    counter: str
    per_image_j: float
    per_image_above_idle_j: float
    images: int
    seconds: float
    idle_w: float
    readings: int = 0

    @property
    def rate_hz(self) -> float | None:
        """How often in a second power was read; None for a counter that adds up by itself."""
        return self.readings / self.seconds if self.readings else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRow:
    """One artifact on one target at one batch size: the shipped latency, and how sure it is.

    `precision` is what really ran. `throughput` is in images per second: one call after the other in latency mode,
    all `streams` at once in throughput mode. `noise_s` is the spread of the processes' medians; `median_low_s` and
    `median_high_s` bound the median over processes (95 %). `stretches` are parts of the call that the target times
    apart. `verdict` is `stable`, or `noisy: …` or `inconclusive: …` with the reasons.
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
    mode: Mode = "latency"
    streams: int = 1
    cores: tuple[int, ...] = ()
    median_s: float | None = None
    median_low_s: float | None = None
    median_high_s: float | None = None
    start: ColdStart | None = None
    memory: Memory | None = None
    energy: tuple[Energy, ...] = ()
    notes: tuple[str, ...] = ()
    stretches: tuple[Stretch, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchFailure:
    """A candidate that could not be measured to the end: its runtime refused the file, crashed or hung."""

    artifact: str
    artifact_sha256: str
    target: str
    batch: int
    threads: int
    mode: Mode
    boundary: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two rows differ: the second's time over the first's, with its 95 % interval and the noise floor.

    `floor` is the spread between processes, as a share: what is smaller is a tie. `verdict` is that of the second:
    `faster`, `slower`, `tie`, or `inconclusive: …`. `basis` says which time was compared, and `reason` why.
    `first` and `second` are positions among the report's rows.
    """

    first: int
    second: int
    basis: Basis
    reason: str
    ratio: float
    low: float
    high: float
    floor: float
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSettings:
    """How a benchmark was made: with these, the same order of processes can be made again.

    Seconds, runs and the limit are for a row in all; `environment` is what every process got. `extra_rounds` is how
    many more were allowed where a comparison was inconclusive.
    """

    seconds: float
    runs: int
    limit_s: float
    rounds: int
    seed: int
    pinned: bool
    environment: dict[str, str]
    images: str
    extra_rounds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchReport:
    """A benchmark: the rows, the machine, and the fixed matrix product timed before and after.

    `imported` is what other tools told of the same model, as far as their files were given.
    """

    machine: Machine
    rows: tuple[BenchRow, ...]
    calibration_before_s: float
    calibration_after_s: float
    versions: dict[str, str] = field(default_factory=dict)
    settings: BenchSettings | None = None
    failures: tuple[BenchFailure, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    energy_note: str = ""
    imported: tuple[ImportedTimes, ...] = ()
