"""What the report says of the choice: the rule, the verdict, and every score of the chosen one and the reference."""

from collections.abc import Sequence
from dataclasses import dataclass

from ttl_deploy.evidence.choice import LIMITS_WORDS, RULE_WORDS
from ttl_deploy.records.scores import METRICS, PICK_RULES, Choice, Front, FrontPoint, Score
from ttl_deploy.report import verdicts
from ttl_deploy.report.listing import METRIC_WORDS, Listing
from ttl_deploy.report.numbers import format_score

_SPLITS = {"val": "validation", "test": "test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of choice: its name, what it does, and whether it made this choice."""

    name: str
    words: str
    used: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEvidence:
    """What a report says of a front and the choice from it.

    `chosen` is the sentence on the chosen candidate's verdict, and `shown` whether it is shown to be as good as the
    reference. `verdicts` is None where there are none, which `absence` explains. `metrics` holds every score of the
    chosen one and the reference, `classes` those of each class, where there are more than two; None without a row.
    """

    chosen: str
    shown: bool
    rules: tuple[Rule, ...]
    limits: str
    verdicts: Listing | None
    sentences: tuple[str, ...]
    tests: tuple[str, ...]
    absence: str
    metrics: Listing | None
    classes: Listing | None


def gather_evidence(front: Front, choice: Choice | None, classes: Sequence[str]) -> FrontEvidence:
    """Gather it; `classes` are the names of the classes in their order."""
    found = front.verdicts
    columns = _columns(front, choice)
    return FrontEvidence(
        chosen="" if choice is None else verdicts.state_choice(front, choice),
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
        metrics=_tabulate(columns, [(METRIC_WORDS[metric], metric, None) for metric in METRICS]),
        classes=_tabulate(
            columns,
            [
                (f"{METRIC_WORDS[metric]}, {name}", metric, number)
                for metric in METRICS
                for number, name in enumerate(classes)
                if len(classes) > 2
            ],
        ),
    )


def _columns(front: Front, choice: Choice | None) -> dict[str, dict[str, Score]]:
    """Return by column title the scores of the chosen one and the reference, by metric, on each split that has some."""
    shown: dict[str, FrontPoint] = {}
    if choice is not None:
        point = front.point_of(choice.cut, choice.strategy)
        shown[f"{point.name}, chosen"] = point
    if front.reference is not None and front.reference not in {point.name for point in shown.values()}:
        shown[f"{front.reference}, reference"] = front.point(front.reference)
    return {
        f"{name}: {_SPLITS[split]}": {score.metric: score for score in scores}
        for name, point in shown.items()
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
