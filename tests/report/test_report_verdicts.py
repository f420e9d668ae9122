"""What tables, sentences and the page say of verdicts, and what they say where there is none."""

import csv
import re
from dataclasses import replace

import pytest

from ttl_deploy.evidence.choice import RULE_WORDS, choose
from ttl_deploy.records.scores import AXES, METRICS, PICK_RULES, DelongTest, Dominated, PairedDifference, Score
from ttl_deploy.report import verdicts
from ttl_deploy.report.evidence import gather_evidence
from ttl_deploy.report.front_plot import draw_front
from ttl_deploy.report.numbers import format_difference, format_score
from ttl_deploy.report.page import render_page
from ttl_deploy.report.tables import FRONT_COLUMNS, write_front_csv

from .test_report_page import Outline

CLASSES = ("NORMAL", "PNEUMONIA")


def choose_point(story, **limits):
    return choose(story.front, "best", **limits)


def judged(story, name, verdict, **changes):
    """The front with another verdict on one candidate."""
    found = tuple(
        replace(one, verdict=verdict, **changes) if one.model == name else one for one in story.front.verdicts.verdicts
    )
    return replace(story.front, verdicts=replace(story.front.verdicts, verdicts=found))


def rows_of(listing):
    return [dict(zip(listing.columns, row, strict=True)) for row in listing.rows]


def test_each_verdict_is_a_row_with_what_it_rests_on(story):
    comparison = story.front.verdicts
    first, *others = rows_of(verdicts.verdict_rows(comparison))
    assert (first["model"], first["difference"]) == ("full", "reference")
    assert len(others) == len(comparison.verdicts) >= 2
    for row, found, model in zip(others, comparison.verdicts, comparison.models[1:], strict=True):
        assert row["model"] == found.model == model.name
        assert row["test AUROC"] == format_score(model.auroc)
        assert row["difference"] == format_difference(found.difference)
        assert float(row["p (Holm)"]) == pytest.approx(found.holm_non_inferior, abs=5e-5)
        assert row["verdict"] == found.verdict
        assert bool(row["positives needed"]) == (found.verdict == "inconclusive")


def test_delong_has_a_column_only_where_it_stands_beside(story):
    assert "DeLong's difference" not in verdicts.verdict_rows(story.front.verdicts).columns
    found = story.front.verdicts.verdicts[0]
    delong = DelongTest(difference=replace(found.difference, low=-0.5), standard_error=0.1, p_non_inferior=0.5)
    beside = judged(story, found.model, found.verdict, delong=delong)
    assert rows_of(verdicts.verdict_rows(beside.verdicts))[1]["DeLong's difference"] == format_difference(
        delong.difference
    )


@pytest.mark.parametrize(
    ("smallest", "text"), [(0.0, "0.001"), (0.0123, "0.013"), (0.013, "0.014"), (0.4995, "none"), (None, "")]
)
def test_the_smallest_margin_is_rounded_to_one_that_can_be_claimed(smallest, text):
    assert verdicts.format_margin(smallest) == text


@pytest.mark.parametrize(
    ("verdict", "words", "p_value", "shown"),
    [
        ("non-inferior", "is as good as full within 0.02: non-inferior on the test split, its AUROC", "0.0345", True),
        ("inferior", "is worse than full by more than 0.02: inferior on the test split, its AUROC", "0.0123", False),
        ("inconclusive", "is not shown to be as good as full: inconclusive on the test split at", "0.0345", False),
    ],
)
def test_the_choice_s_verdict_is_said_plainly(story, verdict, words, p_value, shown):
    name = story.front.verdicts.verdicts[0].model
    choice = choose_point(story, max_macs=story.front.point(name).macs)
    front = judged(story, choice.cut, verdict, holm_non_inferior=0.0345, holm_inferior=0.0123)
    said = verdicts.state_choice(front, choice)
    assert said.startswith(f"{choice.cut} {words}")
    assert format_difference(front.verdict(choice.cut).difference) in said
    assert "averaged over 2 and 2 seeds" in said
    assert f"p = {p_value} of losing" in said
    assert verdicts.is_shown(front, choice) == shown
    warning = (
        f"The chosen {choice.cut} is not shown to be as good as the full network: the verdict on the test split is"
    )
    assert verdicts.warn_of_choice(front, choice) == ("" if shown else f"{warning} {verdict} (more below)")
    page = render_page(replace(story, front=front, choice=choice))
    colour = "good" if shown else "bad"
    assert f'<p class="answer {colour}"><span class="badge {colour}">{verdict}</span> {said}' in page.replace(
        "&#39;", "'"
    )


def test_an_undefined_verdict_says_why(story):
    choice = choose_point(story, max_macs=story.front.point("features.10").macs)
    nothing = dict.fromkeys(
        ("difference", "p_non_inferior", "holm_non_inferior", "holm_inferior", "smallest_margin", "needed")
    )
    front = judged(story, choice.cut, "undefined", reason="all 50 images are of class 0", **nothing)
    assert verdicts.state_choice(front, choice).endswith(
        "undefined on the test split at a margin of 0.02, all 50 images are of class 0."
    )
    assert not verdicts.is_shown(front, choice)
    assert rows_of(verdicts.verdict_rows(front.verdicts))[1]["difference"] != ""


def closed(story):
    """The run before its test split was opened."""
    points = tuple(replace(point, test=()) for point in story.front.points)
    return replace(story.front, verdicts=None, points=points)


def test_without_a_verdict_the_reason_is_told(story):
    choice = choose_point(story, max_macs=story.front.point("features.10").macs)
    only = tuple(point if point.cut == "full" else replace(point, test=()) for point in story.front.points)
    reasons = {
        "the full network was not trained": replace(closed(story), reference=None),
        "the test split has not been opened": closed(story),
        "nothing else is on the front": replace(story.front, verdicts=None, points=only),
        "an older version made this run; `ttl-deploy compare` tests its trials": replace(story.front, verdicts=None),
    }
    for reason, front in reasons.items():
        assert verdicts.state_absence(front) == f"No verdicts: {reason}."
        assert verdicts.state_choice(front, choice).endswith(f"is not known: {reason}.")
        assert f"not shown to be as good as the full network: {reason} (" in verdicts.warn_of_choice(front, choice)
        assert reason in Outline(render_page(replace(story, front=front, choice=choice))).text
    assert verdicts.state_absence(story.front) == ""


def test_a_choice_off_the_front_has_no_verdict_and_the_reference_needs_none(story):
    (off,) = (point for point in story.front.points if not point.on_front and point.cut == "features.16")
    chosen = replace(story.choice, cut=off.cut)
    assert "it is not on the front, so the test split was not opened for it" in verdicts.state_choice(
        story.front, chosen
    )
    itself = replace(story.choice, cut="full")
    assert "is the reference itself" in verdicts.state_choice(story.front, itself)
    assert verdicts.is_shown(story.front, itself)
    assert not verdicts.is_shown(story.front, chosen)


def test_the_page_says_margin_correction_rule_and_every_verdict(story):
    text = re.sub(r"\s+", " ", Outline(render_page(story)).text)
    for line in verdicts.describe_tests(story.front.verdicts):
        assert line in text
    for found in story.front.verdicts.verdicts:
        assert verdicts.state_verdict(found) in text
    assert "margin 0.02" in text
    assert f"corrected for {len(story.front.verdicts.verdicts)} comparisons by Holm's method" in text
    assert "neither test scores nor verdicts have a part in it" in text
    for rule in PICK_RULES:
        assert f"{rule}{' (this choice)' if rule == story.choice.rule else ''} {RULE_WORDS[rule]}." in text


def test_unknown_patients_weaken_the_verdicts_and_it_says_so(story):
    unknown = replace(story.front.verdicts, patients_known=False)
    assert "too sure" in verdicts.describe_tests(unknown)[-1]
    assert "too sure" not in " ".join(verdicts.describe_tests(story.front.verdicts))


def test_all_metrics_of_the_chosen_one_and_the_reference_stand_in_one_table(story):
    evidence = gather_evidence(story.front, story.choice, CLASSES)
    chosen, full = (story.front.point(name) for name in (story.choice.cut, "full"))
    columns = {
        "chosen, validation": chosen.validation,
        "chosen, test": chosen.test,
        "reference, validation": full.validation,
        "reference, test": full.test,
    }
    assert evidence.metrics.columns == ("Metric", *columns)
    assert len(evidence.metrics.rows) == len(chosen.validation)
    for row, *scores in zip(evidence.metrics.rows, *columns.values(), strict=True):
        assert row[1:] == tuple(format_score(score) for score in scores)
    assert evidence.classes is None
    assert evidence.roles == f"chosen: {chosen.name}; reference: full"
    alone = gather_evidence(closed(story), None, CLASSES)
    assert alone.metrics.columns == ("Metric", "reference, validation")


def test_of_several_classes_each_has_its_value_by_name(story):
    score = Score(
        metric="auroc",
        split="val",
        value=0.8,
        low=0.7,
        high=0.9,
        level=0.95,
        images=9,
        patients=9,
        per_class=(0.75, None, 0.85),
        defined=2,
        method="",
    )
    points = tuple(replace(point, validation=(score,), test=()) for point in story.front.points)
    found = gather_evidence(replace(story.front, points=points, verdicts=None), None, ("a", "b", "c"))
    assert found.metrics.rows == (("AUROC", "0.800 [0.700, 0.900] (2/3 classes)"),)
    assert found.classes.rows == (("AUROC, a", "0.750"), ("AUROC, b", "undefined"), ("AUROC, c", "0.850"))


def with_all_standings(story):
    """The story with the full network clearly worse on every axis; on its own front it is not clearly so."""
    difference = PairedDifference(reference="features.13", value=-0.02, low=-0.03, high=-0.01, level=0.95)
    *others, last = story.front.points
    worse = replace(last, on_front=(), dominated_by=tuple(Dominated(axis=one, difference=difference) for one in AXES))
    front = replace(story.front, points=(*others, worse))
    assert {point.standing(axis) for point in front.points for axis in AXES} == {
        *("on the front", "not clearly worse", "clearly worse")
    }
    return replace(story, front=front)


def test_the_table_of_standings_names_who_is_clearly_better(story):
    front = with_all_standings(story).front
    listing = gather_evidence(front, story.choice, CLASSES).standings
    assert listing.columns == ("cut", "by MACs", "by parameters", "by latency")
    for row, point in zip(listing.rows, front.points, strict=True):
        for cell, axis in zip(row[1:], AXES, strict=True):
            assert cell.startswith(point.standing(axis))
            if point.standing(axis) == "clearly worse":
                (by,) = (one for one in point.dominated_by if one.axis == axis)
                assert cell == f"clearly worse than {by.by}: {format_difference(by.difference)}"


def test_the_csv_has_verdicts_standings_and_seeds(tmp_path, story):
    story = with_all_standings(story)
    write_front_csv(tmp_path / "front.csv", story.front)
    with open(tmp_path / "front.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == FRONT_COLUMNS
    for row, point in zip(rows, story.front.points, strict=True):
        found = story.front.verdict(point.name)
        assert row["verdict"] == (found.verdict if found else "")
        numbers = {
            "margin": 0.02 if found else None,
            "difference": found and found.difference.value,
            "difference_low": found and found.difference.low,
            "difference_high": found and found.difference.high,
            "p_non_inferior": found and found.p_non_inferior,
            "holm_non_inferior": found and found.holm_non_inferior,
            "holm_inferior": found and found.holm_inferior,
            "needed_positives": found and found.needed and found.needed.positives,
            "smallest_margin": found and found.smallest_margin,
            "test_auroc_seed_min": min(point.test[0].per_seed) if point.test else None,
            "test_auroc_seed_max": max(point.test[0].per_seed) if point.test else None,
        }
        assert {name: None if row[name] == "" else float(row[name]) for name in numbers} == numbers
        assert tuple(row["not_clearly_worse"].split()) == point.axes("not clearly worse")
        better = {f"dominated_by_{one.axis}": one.by for one in point.dominated_by}
        assert {f"dominated_by_{axis}": row[f"dominated_by_{axis}"] for axis in AXES} == {
            f"dominated_by_{axis}": better.get(f"dominated_by_{axis}", "") for axis in AXES
        }


@pytest.mark.parametrize("axis", AXES)
def test_marks_tell_the_three_standings_apart_and_have_bars_on_both_axes(story, axis):
    shown = with_all_standings(story)
    front = shown.front
    traces = [t for t in draw_front(shown, front)["data"] if t["meta"] == {"axis": axis} and "text" in t]
    assert len({(t["marker"]["symbol"], t["marker"]["color"]) for t in traces}) == len(traces) == 3
    symbol = {text: t["marker"]["symbol"] for t in traces for text in t["text"]}
    expected = {
        "on the front": "circle",
        "not clearly worse": "circle-open-dot",
        "clearly worse": "circle-open",
    }
    for point in front.points:
        (drawn,) = (symbol[text] for text in symbol if text.startswith(f"<b>{point.cut}</b>"))
        assert drawn == expected[point.standing(axis)]
    for trace in traces:
        assert ("error_x" in trace) == (axis == "latency_s")
        if axis == "latency_s":
            noise = {f"<b>{point.cut}</b>": point.latency_noise_s for point in front.points}
            for text, bar in zip(trace["text"], trace["error_x"]["array"], strict=True):
                assert bar == pytest.approx(1e3 * noise[text.partition("<br>")[0]])


def test_a_hover_text_names_few_metrics_and_the_verdict(story):
    texts = [text for trace in draw_front(story, story.front)["data"] for text in trace.get("text", ())]
    for point in story.front.points:
        text = next(text for text in texts if text.startswith(f"<b>{point.cut}</b>"))
        assert text.count("validation ") == 3 < len(METRICS)
        assert text.count("test AUROC") == bool(point.test)
        found = story.front.verdict(point.name)
        assert (f"verdict on test: {found.verdict}" in text) if found else ("on test" not in text)
