"""Holm's step-down correction for several tests at once, and the smallest margin that it lets pass (Holm 1979)."""

import math
from collections.abc import Sequence

import numpy as np

from ttl_deploy.evidence.answers import Floats


def correct(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values corrected for their number, in the given order.

    Rejecting those at most alpha makes any false rejection at most alpha likely, whatever depends on what.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for step, position in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[position]))
        corrected[position] = largest
    return tuple(corrected)


def smallest_margins(differences: Sequence[Floats], *, alpha: float) -> tuple[float, ...]:
    """Return for each model the margin above which, and not below, "worse by the margin or more" is rejected.

    `differences` are each model's on its resamples `(R,)`, empty where they are unknown: such a model counts, and is
    never rejected. The p-value at a margin is that of `noninferiority`, corrected for all models. Not below 0; infinite
    where no margin is large enough.

    A larger margin lowers every p-value, so the procedure is walked through once: of the models that are left, the one
    that needs the smallest margin is rejected first, and the next not at a smaller one.
    """
    found = [math.inf] * len(differences)
    ordered = [np.sort(one) for one in differences]
    left = {number for number, one in enumerate(differences) if len(one)}
    unknown = len(differences) - len(left)
    reached = 0.0
    while left:
        alone = {number: _margin(ordered[number], len(left) + unknown, alpha=alpha) for number in sorted(left)}
        first = min(alone, key=lambda number: alone[number])
        reached = max(reached, alone[first])
        found[first] = reached
        left.remove(first)
    return tuple(found)


def _margin(ordered: Floats, models: int, *, alpha: float) -> float:
    """Return the margin above which few enough resamples are worse by it, if p-values are multiplied by `models`.

    `ordered` are its differences, rising.
    """
    p_values = models * (np.arange(1, len(ordered) + 2) / (1 + len(ordered)))
    worse = int(np.searchsorted(p_values, alpha, side="right")) - 1
    return -float(ordered[worse]) if worse >= 0 else math.inf
