"""What the report says of the choice: the rule, the verdict, and every score of the chosen one and the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ttl_deploy.evidence.choice import LIMITS_WORDS, RULE_WORDS
from ttl_deploy.evidence.metrics import METRIC_WORDS
from ttl_deploy.records.scores import METRICS, PICK_RULES, Axis, Choice, Front, FrontPoint, Score
from ttl_deploy.report import verdicts
from ttl_deploy.report.file_sizes import BY_FILE_SIZE, stand_by_size
from ttl_deploy.report.listing import AXIS_WORDS, SPLIT_WORDS, Listing
from ttl_deploy.report.numbers import format_difference, format_score


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of choice: its name, what it does, and whether it made this choice."""

    name: str
    words: str
    used: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEvidence:
    """What a report says of a front and the choice from it.

    `chosen` is the sentence on the chosen candidate's verdict, `badge` that verdict in a word, and `shown` whether it
    is shown to be as good as the reference. `verdicts` is None where there are none, which `absence` explains.
    `standings` say who is on the front, and `seeded` whether there are several seeds. `roles` name the chosen one and
    the reference, `metrics` holds every score of both, `classes` those of each class where more than one is scored.
    """

    chosen: str
    badge: str
    shown: bool
    rules: tuple[Rule, ...]
    limits: str
    verdicts: Listing | None
    sentences: tuple[str, ...]
    tests: tuple[str, ...]
    absence: str
    standings: Listing
    seeded: bool
    roles: str
    metrics: Listing | None
    classes: Listing | None


def gather_evidence(
    front: Front, choice: Choice | None, classes: Sequence[str], *, sizes: Mapping[str, int] | None = None
) -> FrontEvidence:
    """Gather it; `classes` are the names of the classes in their order, `sizes` the files' bytes by candidate."""
    found = front.verdicts
    points = _find_points(front, choice)
    columns = _columns(points)
    return FrontEvidence(
        chosen="" if choice is None else verdicts.state_choice(front, choice),
        badge="" if choice is None else _badge(front, choice),
        shown=choice is not None and verdicts.is_shown(front, choice),
        rules=tuple(
            Rule(name=rule, words=RULE_WORDS[rule], used=choice is not None and choice.rule == rule)
            for rule in PICK_RULES
        ),
        limits=LIMITS_WORDS,
        verdicts=None if found is None else verdicts.verdict_rows(found),
        sentences=() if found is None else tuple(verdicts.state_verdict(one) for one in found.verdicts),
        tests=() if found is None else verdicts.describe_tests(found),
        absence=verdicts.state_absence(front),
        standings=_list_standings(front, sizes or {}),
        seeded=any(len(point.seeds) > 1 for point in front.points),
        roles="; ".join(f"{role}: {point.name}" for role, point in points.items()),
        metrics=_tabulate(columns, [(METRIC_WORDS[metric], metric, None) for metric in METRICS]),
        classes=_tabulate(
            columns,
            [
                (f"{METRIC_WORDS[metric]}, {name}", metric, number)
                for metric in METRICS
                for number, name in enumerate(classes)
                if len(classes) > 2 or _has_several(points)
            ],
        ),
    )


def _badge(front: Front, choice: Choice) -> str:
    name = front.point_of(choice.cut, choice.strategy).name
    if name == front.reference:
        return "the reference"
    found = front.verdict(name)
    return "not tested" if found is None else found.verdict


def _list_standings(front: Front, sizes: Mapping[str, int]) -> Listing:
    """Lay out where every candidate stands on every axis that was measured, and by the size of its file."""
    by_size = stand_by_size(front, sizes)
    axes = [axis for axis in AXIS_WORDS if any(point.standing(axis) for point in front.points)]
    titles = ["candidate" if len(front.strategies) > 1 else "cut", *(f"by {AXIS_WORDS[axis]}" for axis in axes)]
    rows = [[point.name, *(_state_standing(point, axis) for axis in axes)] for point in front.points]
    if by_size:
        titles.append(f"by {BY_FILE_SIZE}")
        rows = [[*row, by_size.get(row[0], "not measured")] for row in rows]
    return Listing(columns=tuple(titles), numeric=tuple(False for _ in titles), rows=tuple(map(tuple, rows)))


def _state_standing(point: FrontPoint, axis: Axis) -> str:
    by = next((one for one in point.dominated_by or () if one.axis == axis), None)
    if by is not None:
        return f"clearly worse than {by.by}: {format_difference(by.difference)}"
    return point.standing(axis) or "not measured"


def _find_points(front: Front, choice: Choice | None) -> dict[str, FrontPoint]:
    """Return the chosen one and the reference, as far as there are both, and they differ."""
    points: dict[str, FrontPoint] = {}
    if choice is not None:
        points["chosen"] = front.point_of(choice.cut, choice.strategy)
    if front.reference is not None and front.point(front.reference) not in points.values():
        points["reference"] = front.point(front.reference)
    return points


def _has_several(points: dict[str, FrontPoint]) -> bool:
    """Tell whether each of the classes is scored, as of two classes only one is unless an image can have both."""
    return any(len(score.per_class) > 1 for point in points.values() for score in point.validation)


def _columns(points: dict[str, FrontPoint]) -> dict[str, dict[str, Score]]:
    """Return by column title the scores of each point, by metric, on each split that has some."""
    return {
        f"{role}, {SPLIT_WORDS[split]}": {score.metric: score for score in scores}
        for role, point in points.items()
        for split, scores in (("val", point.validation), ("test", point.test))
        if scores
    }


def _tabulate(columns: dict[str, dict[str, Score]], wanted: Sequence[tuple[str, str, int | None]]) -> Listing | None:
    """Lay out metrics, or their values of single classes, by rows; those that no column has are left out."""
    rows = [
        (words, *(_cell(scores.get(metric), number) for scores in columns.values())) for words, metric, number in wanted
    ]
    filled = tuple(row for row in rows if any(row[1:]))
    if not filled:
        return None
    titles = ("Metric", *columns)
    return Listing(columns=titles, numeric=tuple(title != "Metric" for title in titles), rows=filled)


def _cell(score: Score | None, number: int | None) -> str:
    if score is None:
        return ""
    if number is None:
        classes = len(score.per_class)
        return format_score(score) + (f" ({score.defined}/{classes} classes)" if classes > 1 else "")
    if number >= len(score.per_class):
        return ""
    value = score.per_class[number]
    return "undefined" if value is None else f"{value:.3f}"
