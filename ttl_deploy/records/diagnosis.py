"""Records of what a machine can do: `ttl-deploy doctor`."""

from dataclasses import dataclass, field

from ttl_deploy.records.hardware import Gpu, JetsonState


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """A processor, and which of the instructions that matter to networks it has and lacks."""

    name: str
    architecture: str
    cores: int
    memory_bytes: int
    governor: str
    instructions: tuple[str, ...]
    lacking: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """A precision that a target runs here, and by what, as in `by avx512_vnni`; empty says nothing of it."""

    precision: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetState:
    """A target that starts here with what it can do, or why it does not (`problem`)."""

    name: str
    runtime: str = ""
    abilities: tuple[Ability, ...] = ()
    problem: str = ""

    @property
    def ready(self) -> bool:
        """Whether it starts here."""
        return not self.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraState:
    """An optional part of the installation: its packages with versions (empty: not installed), and what adds it.

    `lacking` names what is missing or too old, `note` what else there is to know.
    """

    name: str
    purpose: str
    versions: dict[str, str]
    lacking: tuple[str, ...]
    command: str
    note: str = ""

    @property
    def installed(self) -> bool:
        """Whether nothing is missing or too old."""
        return not self.lacking


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheState:
    """Where decoded pixels and measured latencies are kept, and the room there; empty and None are unknown."""

    folder: str
    free_bytes: int | None
    writable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that does not work or makes figures doubtful, and what to do.

    `exit_code` is 0 where the base installation works all the same.
    """

    what: str
    remedy: str
    exit_code: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What this machine can do. `gpu_note` says why there is no graphics card."""

    host: str
    system: str
    python: str
    processor: Processor
    gpus: tuple[Gpu, ...]
    gpu_note: str
    jetson: JetsonState | None
    packages: dict[str, str]
    targets: tuple[TargetState, ...]
    extras: tuple[ExtraState, ...]
    cache: CacheState
    problems: tuple[Problem, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0 where the base installation works, else the code of the first problem that it has."""
        return next((problem.exit_code for problem in self.problems if problem.exit_code), 0)
