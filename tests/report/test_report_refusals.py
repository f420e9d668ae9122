"""Exports that a check refused: read from the run, told on the page and in Markdown, and what came of them."""

from dataclasses import replace

import pytest

from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import Attempt, Gate, Parity
from ttl_deploy.records.refusals import Asked, Measured, RefusedExport
from ttl_deploy.report.collect import _refused
from ttl_deploy.report.markdown import render_markdown
from ttl_deploy.report.page import render_page
from ttl_deploy.report.refusals import list_refusals
from ttl_deploy.runs.folder import RunFolder

PARITY = Parity(
    images=782, max_difference=0.41, mean_difference=0.02, decisions_flipped=31, limit=1.0, reference="torch",
    gate=Gate(max_drop=0.005),
)  # fmt: skip # a table of fields
ATTEMPT = Attempt(
    recipe="U8S8 all layers", kept=(), size_bytes=320_000, max_difference=0.41, sqnr_db=11.5, agreement=0.9604,
    auroc_difference=-0.004, auroc_low=-0.0093, passed=False,
)  # fmt: skip # a table of fields


@pytest.fixture
def refused(story):
    """An int8 export of the chosen cut that did not hold its gate, asked for in a hostile command."""
    manifest = story.exports[0].manifest
    asked = Asked(
        artifact=manifest.name, format="ort", precision="int8", cut=manifest.model.cut, strategy="full", seed=0,
        max_drop=0.005, qat_epochs=0, operating_rule="argmax", calibrate=True,
    )  # fmt: skip # a table of fields
    return RefusedExport(
        asked=asked,
        kind="GateError",
        reason="no int8 file held the gate in 1 tries, and nothing was published.",
        measured=Measured(parity=PARITY, attempts=(ATTEMPT,)),
        command="ttl-deploy export RUN --precision int8 <script>",
        time="2026-01-05T09:30:00+00:00",
    )


def test_a_refused_export_is_told_with_its_numbers_its_time_and_its_command(story, refused):
    (one,) = [one for one in list_refusals(replace(story, refused=(refused,))) if one.what == "export"]
    assert one.which == f"{refused.asked.artifact}: ort in int8"
    assert (one.why, one.command, one.time) == (refused.reason, refused.command, "2026-01-05 09:30 UTC")
    assert "96.04% of decisions the same, AUROC difference at least -0.0093" in one.measured[0]
    assert "decisions flipped 31 of 782 (96.04% the same, asked for 98%)" in one.measured[1]


@pytest.mark.parametrize(
    ("created", "said"),
    [
        ("2026-01-05T10:00:00+00:00", "published since, on 2026-01-05 10:00 UTC, where a loss of 0.02 was to be excl"),
        ("2026-01-04T10:00:00+00:00", "what had been published on 2026-01-04 10:00 UTC stays in its place"),
        (None, "not published so far"),
    ],
)
def test_what_came_of_it_is_told(story, refused, created, said):
    export = story.exports[0]
    shipped = replace(export.manifest, created=created or "", gate=Gate(max_drop=0.02))
    exports = (replace(export, manifest=shipped),) if created else ()
    told = [one.since for one in list_refusals(replace(story, refused=(refused,), exports=exports))]
    assert any(one.startswith(said) for one in told)


def test_page_and_markdown_show_it_as_text(story, refused):
    changed = replace(story, refused=(refused,))
    page, text = render_page(changed), render_markdown(changed)
    section = page[page.index('id="refusals-title"') : page.index('id="test-title"')]
    assert refused.reason in section
    assert "--precision int8 &lt;script&gt;" in section
    assert "96.04% of decisions the same" in section
    assert "published since" in section
    section = text[text.index("## Failures and refusals") :]
    assert "no int8 file held the gate in 1 tries" in section
    assert "01-05 09:30 UTC" in section
    assert "\\<script\\>" in section


def test_of_a_refusal_repeated_word_for_word_the_last_is_read(tmp_path, refused):
    run = RunFolder(tmp_path)
    assert _refused(run) == ()
    run.refusals.mkdir()
    later = replace(refused, time="2026-01-05T09:45:00+00:00")
    other = replace(refused, reason="another", time="2026-01-05T09:40:00+00:00")
    for number, one in enumerate((later, other, refused)):
        codec.save(run.refusals / f"{number}.json", one)
    assert _refused(run) == (other, later)
