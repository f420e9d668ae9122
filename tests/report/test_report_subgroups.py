"""Subgroups in the report: the figure, the table on the page, the CSV; names from data are text in all of them."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest

from ttl_deploy.evidence.columns import find_groupings
from ttl_deploy.evidence.subgroups import Cases, Scored, score_columns, score_split
from ttl_deploy.records.openings import EarlierOpenings, KnownOpening
from ttl_deploy.records.subgroups import Subgroups
from ttl_deploy.report.page import render_page
from ttl_deploy.report.subgroup_plot import SUBGROUP_COLUMNS, draw_subgroups, write_subgroups_csv

HOSTILE = "<img src=x onerror=alert(1)>&amp;"


@pytest.fixture(scope="module")
def subgroups():
    """Three columns: a large one, one with a small and a one-sided group, and one with patients in several groups."""
    generator = np.random.default_rng(0)
    labels = np.repeat(generator.integers(0, 2, 200), 2)
    scores = 1 / (1 + np.exp(-(labels + generator.normal(size=400))))
    probabilities, patients = np.stack([1 - scores, scores], axis=1), np.repeat(np.arange(200), 2)
    site = np.full(400, "A", dtype=object)
    site[:10], site[np.flatnonzero(labels == 1)[-4:]] = "=B()", HOSTILE
    rows = [{"sex": "FM"[n // 2 % 2], "site": str(site[n]), "<view>": "AP"[n % 2]} for n in range(400)]
    cases = Cases(labels=labels, patients=patients, classes=("normal", "ill"), split="test", replicates=50)
    model, reference = Scored(probabilities=probabilities), Scored(probabilities=probabilities[:, ::-1])
    return Subgroups(
        split="test",
        model="layer3__full__s0",
        reference="full__full__s0",
        classes=("normal", "ill"),
        decision="the most probable class",
        level=0.95,
        patients_known=True,
        fewest=10,
        overall=score_split(cases, model, reference),
        columns=score_columns(replace(cases, permutations=19), find_groupings(rows)[0], model, reference),
        why_split="opened by the search; nothing was run anew",
    )


def rows_of(subgroups):
    return [(column, group) for column in subgroups.columns for group in column.groups]


def test_the_figure_has_a_mark_with_its_interval_for_every_group_that_has_a_score(subgroups):
    plot = draw_subgroups(subgroups)
    marks = {}
    for trace in plot["data"]:
        none = [0.0] * len(trace["x"])
        bars = trace.get("error_x", {"array": none, "arrayminus": none})
        for row, value, up, down in zip(trace["y"], trace["x"], bars["array"], bars["arrayminus"], strict=True):
            marks[row] = (trace["marker"]["symbol"], value, value - down, value + up)
    for row, (_, group) in enumerate(rows_of(subgroups)):
        score = group.score("auroc")
        if score.value is None:
            assert row not in marks
            continue
        symbol, *numbers = marks[row]
        bounds = (score.low, score.high) if score.low is not None else (score.value, score.value)
        assert numbers == pytest.approx([score.value, *bounds])
        assert symbol == ("circle-open" if group.small else "circle")
    assert len(plot["layout"]["yaxis"]["ticktext"]) == len(rows_of(subgroups))
    (line,) = plot["layout"]["shapes"]
    assert line["x0"] == line["x1"] == subgroups.overall.score("auroc").value


def test_all_marks_are_of_one_size_and_plotly_accepts_the_figure(subgroups):
    plot = draw_subgroups(subgroups)
    assert {trace["marker"]["size"] for trace in plot["data"]} == {9}
    go.Figure({"data": plot["data"], "layout": plot["layout"]})
    assert json.loads(json.dumps(plot, allow_nan=False)) == plot


def test_labels_hold_nothing_that_plotly_reads_as_markup(subgroups):
    plot = draw_subgroups(subgroups)
    texts = plot["layout"]["yaxis"]["ticktext"] + [text for trace in plot["data"] for text in trace["text"]]
    assert not re.search(r"<(?!/?b>|br>)|&", "".join(texts))


def test_the_csv_has_a_row_for_the_split_and_every_group(tmp_path, subgroups):
    write_subgroups_csv(tmp_path / "subgroups.csv", subgroups)
    with open(tmp_path / "subgroups.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == SUBGROUP_COLUMNS
    assert (rows[0]["column"], rows[0]["group"], rows[0]["images"]) == ("", "all", "400")
    for row, (column, group) in zip(rows[1:], rows_of(subgroups), strict=True):
        assert (row["column"], row["group"].removeprefix("'")) == (column.column, group.name)
        assert [row["images"], row["patients"], row["positives"]] == [
            str(n) for n in (group.images, group.patients, group.positives)
        ]
        for prefix, scores in (("", group.scores), ("reference_", group.reference_scores)):
            for score in scores:
                cells = [row[f"{prefix}{score.metric}{end}"] for end in ("", "_low", "_high")]
                found = tuple(None if cell == "" else float(cell) for cell in cells)
                assert found == (score.value, score.low, score.high)
        assert (row["to_rest"] == "") == (group.to_rest is None)
        assert (row["p_equal"] == "") == (column.test is None)
        assert row["small"] == group.small
    assert {row["group"] for row in rows} & {"'=B()"}


def test_the_page_shows_every_group_and_what_is_small(story, subgroups):
    page = render_page(replace(story, subgroups=subgroups))
    section = page[page.index('<section id="subgroups"') : page.index('<section id="test"')]
    text = re.sub(r"<[^>]+>", " ", section)
    assert '<a href="#subgroups">' in page
    for _, group in rows_of(subgroups):
        assert f"{group.images}" in text
        assert group.small in text
    assert section.count("<small>too small to judge: ") == sum(bool(group.small) for _, group in rows_of(subgroups))
    assert "groups were looked at" in text
    assert "nothing was run anew" in text
    assert "<img" not in section
    assert "&lt;img src=x onerror=alert(1)&gt;&amp;amp;" in section
    plot = json.loads(re.search(r'id="subgroups-plot">(.*?)</script>', section, re.DOTALL).group(1))
    assert plot["height"] == draw_subgroups(subgroups)["height"]


def test_a_run_without_subgroups_has_no_section(story):
    page = render_page(story)
    assert 'id="subgroups"' not in page
    assert "#subgroups" not in page


def make_opening(number, command="ttl-deploy search --data films"):
    return KnownOpening(
        test_sha256="0" * 64,
        run_id=str(number),
        run=f"/runs/{number}{HOSTILE}",
        key="search",
        command=command,
        time=f"2026-01-0{number}T10:00:00+00:00",
    )


@pytest.mark.parametrize(("number", "times"), [(1, "once"), (2, "2 times")])
def test_openings_by_other_runs_are_counted_and_listed(story, number, times):
    openings = tuple(make_opening(one + 1, command=HOSTILE) for one in range(number))
    earlier = EarlierOpenings(run_id="me", test_sha256="0" * 64, openings=openings, note="a note")
    page = render_page(replace(story, earlier=earlier))
    section = page[page.index('<section id="test"') : page.index('<section id="reproduce"')]
    assert f"had opened the same images {times} before" in section
    assert section.count("2026-01-0") == number
    assert "It was opened once" in section
    assert "a note" in section
    assert "<img" not in section


def test_a_run_that_knows_of_no_other_says_so_and_one_that_did_not_ask_too(story):
    none = EarlierOpenings(run_id="me", test_sha256="0" * 64)
    assert "No other run on that machine is known to have opened" in render_page(replace(story, earlier=none))
    assert "was not recorded" in render_page(story)
    assert "was not recorded" not in render_page(replace(story, openings=()))
