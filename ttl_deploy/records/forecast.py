"""What a search would do, and what that takes, told before it is begun."""

from collections.abc import Iterable
from dataclasses import dataclass

from ttl_deploy.records.stages import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """At least so much, and at most so much; the same twice where it is known."""

    least: float
    most: float

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise ValueError(f"{self.least} to {self.most} is no span from 0 up")

    @classmethod
    def over(cls, values: Iterable[float]) -> "Span":
        """Return the span from the smallest to the largest of one or more values."""
        found = tuple(values)
        return cls(least=min(found), most=max(found))

    def __add__(self, other: "Span") -> "Span":
        return Span(least=self.least + other.least, most=self.most + other.most)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageForecast:
    """One stage that a search would have.

    `trainings` are how many it would hold, `macs` their multiply-accumulates; `told` says of what, in words.
    """

    stage: Stage
    trainings: Span
    macs: Span
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeForecast:
    """How long a search would take here: an estimate from steps that were timed, not a bound.

    Attributes:
        seconds: from typing the command to its end; `decoding_s`, `profile_s` and `probe_s` are parts of it.
        device: where the steps were timed; `precision` that of the deepest cut's.
        workers: how many trainings run side by side; as many processes, up to a few, took the times at once.
        image_s: seconds per image of a training step of `deepest`, the full network where it is covered by the
            weights, in one of these processes.
        shallow_image_s: the same of `shallow`, the cheapest cut.
    """

    seconds: Span
    decoding_s: float
    profile_s: float
    probe_s: float
    device: str
    precision: str
    workers: int
    deepest: str
    image_s: float
    shallow: str
    shallow_image_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskForecast:
    """How much a search would write, in bytes, and how much is free where it would.

    Attributes:
        cache: the decoded images, 0 where they are there already.
        trials: weights and predictions of all trials, which stay.
        checkpoints: at most so much more while trainings run or rest.
        cache_free, run_free: what is free on the file systems of the two folders.
    """

    cache: int
    trials: Span
    checkpoints: int
    cache_folder: str
    run_folder: str
    cache_free: int
    run_free: int
    same_disk: bool

    @property
    def run_peak(self) -> int:
        """The most that the run folder may hold at once."""
        return int(self.trials.most) + self.checkpoints

    @property
    def shortage(self) -> str:
        """Say where there may not be room enough; empty where there is."""
        wanted = [
            (self.cache_folder, self.cache + (self.run_peak if self.same_disk else 0), self.cache_free),
            (self.run_folder, self.run_peak + (self.cache if self.same_disk else 0), self.run_free),
        ]
        short = [
            f"{folder}: {needed:,} bytes may be needed, {free:,} are free"
            for folder, needed, free in wanted
            if needed > free
        ]
        return "; ".join(short)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What a search would do.

    Attributes:
        policy: what decides which trainings are made.
        cuts: the candidates, shallow to deep, the full network last; `to_profile` how many of them would be timed.
        images: by split.
        full_macs: what one training of the full network costs in all its epochs.
        exhaustive_macs: what it would cost to train every cut by every strategy on every seed.
        resumes: whether a search lies in the run folder already, which would go on; the forecast is of all of it.
        patience: a training may stop after this many epochs without a better score; 0 where none does.
    """

    policy: str
    cuts: tuple[str, ...]
    to_profile: int
    images: dict[str, int]
    stages: tuple[StageForecast, ...]
    trainings: Span
    macs: Span
    full_macs: float
    exhaustive_macs: float
    patience: int
    time: TimeForecast
    disk: DiskForecast
    resumes: bool
