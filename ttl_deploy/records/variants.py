"""Variants: a cut at another input size, or with fewer channels, than the cuts that a search compares first."""

from collections.abc import Sequence
from dataclasses import dataclass

from ttl_deploy.records.candidates import Candidate

_MARK = "@"
"""Begins what a variant adds to its cut's name; no module can be called so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A model beside a trained candidate: the same cut for images of `image_size` pixels, at a width.

    `image_size` is None where it is the search's own; `width` is 1 where no channel is missing.
    """

    of: Candidate
    image_size: int | None = None
    width: float = 1.0

    @property
    def suffix(self) -> str:
        """What its name adds to that of the cut: `@160px`, `@w0.5`, or both."""
        size = f"{_MARK}{self.image_size}px" if self.image_size is not None else ""
        return size + (f"{_MARK}w{self.width:g}" if self.width != 1 else "")

    @property
    def cut(self) -> str:
        """What it is called where cuts are."""
        return f"{self.of.cut}{self.suffix}"

    @property
    def candidate(self) -> Candidate:
        """What its trials are trainings of."""
        return Candidate(self.cut, self.of.strategy)

    @property
    def at_full_width(self) -> "Variant":
        """What it is narrowed from; the candidate itself has neither size nor width."""
        return Variant(of=self.of, image_size=self.image_size)

    @property
    def is_candidate(self) -> bool:
        """Whether it is the candidate itself, no variant of it."""
        return self.image_size is None and self.width == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Variants:
    """The variants that a search has decided to train, kept so that a resumed one goes on with the same."""

    variants: tuple[Variant, ...]


def base_cut(name: str) -> str:
    """Return the cut that a name means, without what a variant added to it."""
    return name.partition(_MARK)[0]


def is_variant(name: str) -> bool:
    """Tell whether a name is that of a variant."""
    return _MARK in name


def check_axes(image_sizes: Sequence[int], widths: Sequence[float], speedups: Sequence[float], *, largest: int) -> None:
    """Raise `ValueError` for sizes, widths or speed-ups that cannot be, or that are given twice."""
    for name, values in (("image_size", (*image_sizes, largest)), ("width", widths), ("speedup", speedups)):
        if len(set(values)) != len(values):
            raise ValueError(f"{name}: {', '.join(f'{value:g}' for value in values)} has one twice: give each once")
    if wrong := [size for size in image_sizes if not 8 <= size < largest]:
        raise ValueError(f"image_size {wrong[0]}: give 8 pixels or more; the largest, {largest}, is the search's own")
    if wrong_widths := [width for width in widths if not 0 < width < 1]:
        raise ValueError(f"width {wrong_widths[0]:g}: give shares of the channels above 0 and below 1, such as 0.5")
    if slow := [speedup for speedup in speedups if not 1 < speedup <= 20]:
        raise ValueError(f"speedup {slow[0]:g}: give how many times as fast, above 1 and up to 20, such as 2x")
