"""What a search compares: a cut trained by a strategy; how people and file systems call it."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

JOINT = "joint"
"""What stands in place of a strategy for an exit of a network that was trained with a head at every cut."""


WARM = "from-joint"
"""The strategy that begins with the weights of such an exit."""

PROBED = "probe"
"""What stands in place of a trial's key where the heads of all exits begin as the probe's classifiers."""

ALL_EXITS = "all-exits"
"""What stands in place of a cut for such a network; no module can be called so."""


class Candidate(NamedTuple):
    """A cut's name and the strategy it is trained by, as it is typed: `lp-ft?probe=0.3`."""

    cut: str
    strategy: str


def name_candidate(candidate: Candidate, *, several: bool) -> str:
    """Return what a candidate is called: its cut alone, or `<cut> (<strategy>)` where there are several strategies."""
    return f"{candidate.cut} ({candidate.strategy})" if several else candidate.cut


def name_candidates(candidates: Iterable[Candidate]) -> dict[Candidate, str]:
    """Return the name of each of all the candidates that stand beside each other."""
    known = tuple(candidates)
    several = len({candidate.strategy for candidate in known}) > 1
    return {candidate: name_candidate(candidate, several=several) for candidate in known}


def slug_of(strategy: str) -> str:
    """Return a strategy's text as a part of a file name, its options joined by dashes."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in strategy)


def check_strategies(strategies: Sequence[str]) -> None:
    """Raise `ValueError` unless there is one, and no two are the same or would share a folder."""
    if not strategies:
        raise ValueError("strategies is empty: give at least one, such as full")
    if JOINT in strategies:
        raise ValueError(f"strategies: {JOINT!r} is no strategy: `--policy guided` trains all cuts as one network")
    for one, other in combinations(strategies, 2):
        if one == other:
            raise ValueError(f"strategies: {one!r} is given twice: give it once")
        if _split(one) == _split(other) or slug_of(one).casefold() == slug_of(other).casefold():
            raise ValueError(f"strategies: {one!r} and {other!r} are the same, or would share a folder: give one")


def _split(text: str) -> tuple[str, frozenset[str]]:
    name, _, options = text.partition("?")
    return name, frozenset(options.split("&"))
