"""`report.md`: the same story; parsed by another program, it holds the same numbers and no foreign markup."""

from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from ttl_deploy.report.markdown import escape, render_markdown

from .hostile import PAYLOADS, RTL, hostile


def parse(text):
    """Return the HTML that Markdown with tables and raw HTML makes of a text."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def cells(text):
    """Return the rows of all tables as the parser reads them."""
    rows, tokens = [], MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    for position, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            shown = tokens[position + 1].children
            rows[-1].append("".join(child.content for child in shown))
    return rows


def test_it_tells_the_story_in_the_order_of_the_page(story):
    text = render_markdown(story)
    titles = ("# How much", "## Data", "## What each cut costs", "## Is a smaller", "## Scores per class")
    titles += ("## Training", "## Exported", "## Failures", "## When the test", "## How to reproduce")
    places = [text.find(f"\n{title}" if title.startswith("##") else title) for title in titles]
    assert -1 not in places
    assert places == sorted(places)
    for words in (story.fingerprint.sha256, story.command, story.failures[0].reason, "ttl-deploy bench RUN"):
        assert words in text


def test_tables_hold_the_scores_of_the_record(story):
    rows = cells(render_markdown(story))
    for point in story.front.points:
        score = point.validation[0]
        row = next(row for row in rows if point.cut in row[:2])
        assert f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]" in row
    for trial in story.results:
        assert any(row[0] == trial.key and f"{trial.val_auroc:.4f}" in row for row in rows)


def test_hostile_names_stay_text(story):
    text = render_markdown(hostile(story))
    html = parse(text)
    for tag in ("<script", "<img", "<svg", "<a ", "<b>"):
        assert tag not in html
    assert RTL not in text
    shown = "\n".join(cell for row in cells(text) for cell in row)
    assert all(payload in shown for payload in PAYLOADS[:4])


@pytest.mark.parametrize(
    "name",
    ["a|b", "*bold*", "1. list", "- list", "# title", "`code`", "[x](http://y)", "0.574", "a\nb", "&lt;", "_a_", "\\"],
)
def test_escaped_text_reads_as_it_was(name):
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(escape(name))
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert "".join(child.content for child in tokens[1].children) == name.replace("\n", " ")
    assert {child.type for child in tokens[1].children} <= {"text", "text_special"}


def test_a_run_that_has_just_begun_has_a_text(story):
    bare = replace(story, front=None, choice=None, profile=None, exports=(), trials=(), curves={}, model_curves=None)
    text = render_markdown(bare)
    assert "No trial has finished yet" in text
    assert "## Training" not in text
