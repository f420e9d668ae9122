"""Verdicts in tables and sentences: is a smaller model as good as the reference, and is that known at all?"""

import math

from ttl_deploy.evidence.noninferiority import MOST_TIMES
from ttl_deploy.records.scores import Choice, Comparison, Front, NonInferiority
from ttl_deploy.report.listing import Listing
from ttl_deploy.report.numbers import format_difference, format_score

_LARGEST_MARGIN = 0.5
_UNKNOWN_PATIENTS = "patients are not known, so every image counts as one: with several per patient this is too sure"


def verdict_rows(comparison: Comparison) -> Listing:
    """Lay out a comparison, the reference first; DeLong's differences only where there are some."""
    scores = {model.name: format_score(model.auroc) for model in comparison.models}
    found = comparison.verdicts
    columns = {
        "model": [comparison.reference, *(one.model for one in found)],
        f"{'validation' if comparison.split == 'val' else comparison.split} AUROC": list(scores.values()),
        "difference": ["reference", *(_difference(one) for one in found)],
        "DeLong's difference": ["", *(format_difference(one.delong.difference) if one.delong else "" for one in found)],
        "p (Holm)": ["", *(_format_p(one.holm_non_inferior) for one in found)],
        "verdict": ["", *(one.verdict for one in found)],
        "positives needed": ["", *(_needed(one) for one in found)],
        "smallest margin": ["", *(format_margin(one.smallest_margin) for one in found)],
    }
    filled = {title: cells for title, cells in columns.items() if title != "DeLong's difference" or any(cells)}
    return Listing(
        columns=tuple(filled),
        numeric=tuple(title not in ("model", "verdict") for title in filled),
        rows=tuple(zip(*filled.values(), strict=True)),
    )


def state_verdict(found: NonInferiority) -> str:
    """Say one verdict, and what can be claimed: `layer3: inconclusive, too few positives: …; a loss of …`."""
    said = f"{found.model}: {found.verdict}, {found.reason}"
    if found.smallest_margin is None:
        return said
    smallest = f"smallest margin {format_margin(found.smallest_margin)}"
    return f"{said}; {smallest if _is_shown(found) else _state_margin(found)}"


def describe_tests(comparison: Comparison) -> tuple[str, ...]:
    """Say by which margin, level and correction the verdicts of a table were reached, a line each."""
    alpha, models = (1 - comparison.level) / 2, len(comparison.verdicts)
    floor = f"; {said}" if (said := _state_floor(comparison)) else ""
    lines = (
        f"margin {comparison.margin:g}; {100 * comparison.level:g} % intervals, by resampling patients, not corrected",
        f"p: of being worse by the margin or more, corrected for {models} comparison{'s' * (models != 1)} by Holm's "
        f"method; at most {alpha:.3g} makes non-inferior",
        f"smallest margin: the least at which the model would be non-inferior, corrected too{floor}",
    )
    return lines if comparison.patients_known else (*lines, _UNKNOWN_PATIENTS)


def describe_margin(comparison: Comparison) -> tuple[str, ...]:
    """Say the same of verdicts that stand alone, without the columns of their table."""
    alpha, models = (1 - comparison.level) / 2, len(comparison.verdicts)
    lines = (
        f"margin {comparison.margin:g}, one-sided tests at {alpha:.3g} by resampling patients, corrected for {models} "
        f"comparison{'s' * (models != 1)} by Holm's method",
        _state_floor(comparison),
        "" if comparison.patients_known else _UNKNOWN_PATIENTS,
    )
    return tuple(line for line in lines if line)


def state_choice(front: Front, choice: Choice) -> str:
    """Say plainly whether the chosen candidate is shown to be as good as the reference, or why that is not known."""
    point = front.point_of(choice.cut, choice.strategy)
    if point.name == front.reference:
        return f"{point.name} is the reference itself: no smaller model was chosen, so there is nothing to compare."
    found = front.verdict(point.name)
    if found is None or front.verdicts is None:
        return f"Whether {point.name} is as good as the full network is not known: {_why_none(front)}."
    margin, reference = front.verdicts.margin, front.reference
    rests = _state_difference(found, seeds=(len(point.seeds), len(front.point(front.verdicts.reference).seeds)))
    if found.verdict == "non-inferior":
        return f"{point.name} is as good as {reference} within {margin:g}: non-inferior on the test split, {rests}."
    if found.verdict == "inferior":
        return f"{point.name} is worse than {reference} by more than {margin:g}: inferior on the test split, {rests}."
    return (
        f"{point.name} is not shown to be as good as {reference}: {found.verdict} on the test split at a margin of "
        f"{margin:g}, {rests}."
    )


def is_shown(front: Front, choice: Choice) -> bool:
    """Tell whether the chosen candidate is the reference or shown to be as good."""
    name = front.point_of(choice.cut, choice.strategy).name
    found = front.verdict(name)
    return name == front.reference or (found is not None and _is_shown(found))


def _is_shown(found: NonInferiority) -> bool:
    return found.verdict == "non-inferior"


def warn_of_choice(front: Front, choice: Choice) -> str:
    """Say in a line that the chosen candidate is not shown to be as good as the reference; nothing where it is."""
    if is_shown(front, choice):
        return ""
    name = front.point_of(choice.cut, choice.strategy).name
    found = front.verdict(name)
    why = _why_none(front) if found is None else f"the verdict on the test split is {found.verdict}"
    return f"The chosen {name} is not shown to be as good as the full network: {why} (more below)"


def state_absence(front: Front) -> str:
    """Say why a front has no verdicts; nothing where it has some."""
    return "" if front.verdicts else f"No verdicts: {_why_none(front)}."


def format_margin(smallest: float | None) -> str:
    """Write the smallest margin rounded up, so that it can be claimed: `0.013`; `none` where none can."""
    if smallest is None:
        return ""
    above = (math.floor(1000 * smallest) + 1) / 1000
    return f"{above:.3f}" if above < _LARGEST_MARGIN else "none"


def _state_floor(comparison: Comparison) -> str:
    if comparison.margin_floor is None:
        return ""
    return f"with so few patients no margin below {format_margin(comparison.margin_floor)} can be claimed of any model"


def _why_none(front: Front) -> str:
    if front.reference is None:
        return "the full network was not trained"
    if not front.point(front.reference).test:
        return "the test split has not been opened"
    if front.verdicts is not None:
        return "it is not on the front, so the test split was not opened for it"
    if sum(bool(point.test) for point in front.points) == 1:
        return "nothing else is on the front"
    return "an older version made this run; `ttl-deploy compare` tests its trials"


def _state_difference(found: NonInferiority, *, seeds: tuple[int, int]) -> str:
    """Say what a verdict rests on: the difference, the p-value that decided, and for want of one what is missing.

    `seeds` are how many the model's AUROC and the reference's are means of.
    """
    if found.difference is None:
        return found.reason
    level = f"{100 * found.difference.level:g} % interval, paired by patient"
    averaged = "" if max(seeds) == 1 else f", AUROCs averaged over {seeds[0]} and {seeds[1]} seeds"
    said = f"its AUROC differs by {format_difference(found.difference)} ({level}{averaged})"
    if found.verdict == "inferior":
        return f"{said}, p = {_format_p(found.holm_inferior)} of losing less, after Holm's correction"
    said = f"{said}, p = {_format_p(found.holm_non_inferior)} of losing so much or more, after Holm's correction"
    return said if _is_shown(found) else f"{said}; {found.reason}; {_state_margin(found)}"


def _state_margin(found: NonInferiority) -> str:
    margin = format_margin(found.smallest_margin)
    return "no margin can be claimed" if margin == "none" else f"a loss of {margin} or more is excluded"


def _difference(found: NonInferiority) -> str:
    return format_difference(found.difference) if found.difference else "undefined"


def _format_p(p_value: float | None) -> str:
    if p_value is None:
        return ""
    return "1" if p_value >= 0.99995 else f"{p_value:.4f}"


def _needed(found: NonInferiority) -> str:
    if found.needed:
        return f"{found.needed.positives:,} ({found.needed.patients:,} patients)"
    return f"over {MOST_TIMES} times as many" if found.verdict == "inconclusive" else ""
