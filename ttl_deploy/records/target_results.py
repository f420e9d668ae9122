"""What a kit's script found on another machine: the model's answers there, its engine, and how fast it ran."""

from dataclasses import dataclass, field
from typing import Literal

from ttl_deploy.records.artifacts import Parity
from ttl_deploy.records.benchmarks import BenchReport, Machine

Way = Literal["ttl-deploy", "trtexec"]
"""`ttl-deploy` ran itself there; `trtexec` is NVIDIA's tool, where there was no Python for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetEngine:
    """An engine that was built on the machine that runs it.

    Attributes:
        tensorrt: the version that built it, and alone can load it.
        gpu: name, compute capability and driver, in words; empty where nothing told it.
        command: what built it, as far as a person could type it again.
    """

    size_bytes: int
    sha256: str
    tensorrt: str
    build_s: float
    gpu: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceTimes:
    """What `trtexec --exportTimes` told of one process, in seconds per call of `batch` images.

    `gpu_s` is the network alone, `with_transfers_s` with copying in and out.
    """

    round: int
    batch: int
    gpu_s: tuple[float, ...]
    with_transfers_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResults:
    """The file `results.json` that a kit's script writes, raw: what it means is worked out where it is read.

    Attributes:
        artifact_sha256: of the model file that was run, as it lay there.
        golden_sha256: of the images that it was asked about.
        probabilities: its answers to the golden images, one row per image; None for what is not finite.
        runtime: what answered, with its version.
        precision: what it ran in, as far as it is known.
        engine: None where the target needs none.
        times: what trtexec told; empty where ttl-deploy measured itself.
        bench: what ttl-deploy measured; None with trtexec.
        machine: None where `bench` describes it.
        created: when, in UTC.
        notes: what the script had to say of the measurement.
    """

    artifact: str
    artifact_sha256: str
    golden_sha256: str
    way: Way
    target: str
    runtime: str
    precision: str
    probabilities: tuple[tuple[float | None, ...], ...]
    created: str
    engine: TargetEngine | None = None
    times: tuple[TraceTimes, ...] = ()
    bench: BenchReport | None = None
    machine: Machine | None = None
    notes: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """The name of the machine, as it calls itself."""
        known = self.machine or (self.bench.machine if self.bench else None)
        return known.host if known else "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetCheck:
    """Results of another machine, compared here with what the artifact says its model answers."""

    artifact: str
    artifact_sha256: str
    host: str
    way: Way
    target: str
    runtime: str
    precision: str
    created: str
    golden: Parity
    engine: TargetEngine | None = None
    notes: tuple[str, ...] = field(default=())
