"""Records of the hardware beside the processor: graphics cards, and the state a Jetson board is in."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One graphics card as its driver describes it; empty text and None stand for what is not told."""

    name: str
    memory_bytes: int | None
    driver: str
    capability: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """One clock in Hz: what it runs at, and between what its governor may choose.

    `locked` says whether it stays where it is under any load; None where that cannot be read.
    """

    name: str
    current_hz: float | None
    lowest_hz: float | None
    highest_hz: float | None
    locked: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JetsonState:
    """A Jetson board at one moment; empty text stands for what cannot be read.

    `throttle_events` are counted by the hardware since it started; `held_back` names what lowers clocks right now.
    """

    model: str
    l4t: str
    jetpack: str
    power_mode: str
    clocks: tuple[Clock, ...] = ()
    temperatures_c: dict[str, float] = field(default_factory=dict)
    throttle_events: dict[str, int] = field(default_factory=dict)
    held_back: tuple[str, ...] = ()
    rails_w: dict[str, float] = field(default_factory=dict)
