"""`report.md`: the run's story as plain Markdown, for a repository, a ticket or a mail; the same order as the page."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ttl_deploy.evidence.choice import RULE_WORDS
from ttl_deploy.evidence.metrics import METRIC_WORDS
from ttl_deploy.evidence.subgroup_words import explain
from ttl_deploy.files import publish_text
from ttl_deploy.records.scores import Front
from ttl_deploy.report.artifacts import describe_calibration, describe_operating_point
from ttl_deploy.report.costs import cost_rows, format_count, format_part, tell_cost
from ttl_deploy.report.evidence import gather_evidence
from ttl_deploy.report.exports_listing import list_exports
from ttl_deploy.report.file_sizes import find_sizes
from ttl_deploy.report.listing import SPLIT_WORDS, Listing, explain_standings, front_rows
from ttl_deploy.report.looks import show_direction_marks
from ttl_deploy.report.model_curves import RunCurves
from ttl_deploy.report.narration import ask, reproduction, tell_gap, tell_omissions
from ttl_deploy.report.numbers import format_bytes, format_duration, format_latency, format_rest, format_score
from ttl_deploy.report.refusals import list_refusals
from ttl_deploy.report.story import ExportStory, RunStory
from ttl_deploy.runtime.precision_words import describe_parity, describe_precision

_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~$&!])")
_BEGINNING = re.compile(r"^(\d{0,9})([-+=]|(?<=\d)[.)](?=\s|$))")
"""What would begin a list, a rule or a heading at the start of a line."""


def write_markdown(path: Path, story: RunStory) -> None:
    """Publish the report as Markdown."""
    publish_text(path, render_markdown(story))


def render_markdown(story: RunStory) -> str:
    """Render the report as Markdown text; what comes from data, files and models is escaped."""
    sections = (
        _answer(story),
        _data(story),
        *(() if story.front is None else (_front(story, story.front), _verdicts(story, story.front))),
        *(() if story.model_curves is None else (_classes(story.model_curves),)),
        _subgroups(story),
        _training(story),
        _cost(story),
        _exports(story.exports),
        *(_export(export) for export in story.exports),
        _refusals(story),
        _openings(story),
        _reproduction(story),
    )
    title = f"# How much of {escape(story.settings.backbone)} does {escape(story.fingerprint.name)} need?"
    return "\n\n".join([title, *(block for section in sections for block in section)]) + "\n"


def escape(text: str) -> str:
    """Return text that Markdown shows as it is: no markup, no HTML, one line."""
    line = " ".join(show_direction_marks(text).split())
    return _BEGINNING.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", line))


def _answer(story: RunStory) -> Iterator[str]:
    yield escape(ask(story))
    if story.front is None:
        yield "No trial has finished yet, so there is no answer so far."
    elif story.choice is None:
        yield "Nothing was chosen."
    else:
        evidence = gather_evidence(story.front, story.choice, story.fingerprint.classes)
        yield f"**{escape(evidence.badge)}**: {escape(evidence.chosen)}"
        yield escape(story.choice.sentence)
    if gap := tell_gap(story):
        yield escape(gap)


def _data(story: RunStory) -> Iterator[str]:
    found = story.fingerprint
    yield "## Data"
    known = "" if found.patients_known else " No patient ids are known: intervals may be too narrow."
    yield f"{escape(found.name)}, read as {escape(found.reader)}; fingerprint `{found.sha256}`.{known}"
    yield _table(
        ("Split", "Images", "Patients", *found.classes),
        [(SPLIT_WORDS[one.split], one.images, one.patients, *one.per_class) for one in found.counts],
    )
    yield from _list(warning.message for warning in story.warnings)
    yield "What was left out:"
    yield from _list(tell_omissions(story))


def _front(story: RunStory, front: Front) -> Iterator[str]:
    yield "## What each cut costs, and how well it does"
    yield _listing(front_rows(front, story.choice))
    explained = explain_standings(front)
    if explained:
        yield escape(explained)
    if story.choice is not None:
        yield f"The rule of choice, {escape(story.choice.rule)}, {escape(RULE_WORDS[story.choice.rule])}."


def _verdicts(story: RunStory, front: Front) -> Iterator[str]:
    evidence = gather_evidence(front, story.choice, story.fingerprint.classes, sizes=find_sizes(story, front))
    yield "## Is a smaller model as good?"
    if evidence.verdicts is None:
        yield escape(evidence.absence)
    else:
        yield _listing(evidence.verdicts)
        yield from _list((*evidence.sentences, *evidence.tests))
    if evidence.metrics is not None:
        yield f"All metrics ({escape(evidence.roles)}):"
        yield _listing(evidence.metrics)


def _classes(found: RunCurves) -> Iterator[str]:
    yield "## Scores per class"
    yield f"On the {SPLIT_WORDS[found.split]} split, by one seed; the curves stand in report.html."
    names = [METRIC_WORDS[score.metric] for score in found.models[0].classes[0].scores]
    yield _table(
        ("Class", "Model", "With", "Without", *names),
        [
            (one.name, model.role, one.positives, one.negatives, *(format_score(score) for score in one.scores))
            for model in found.models
            for one in model.classes
        ],
    )


def _subgroups(story: RunStory) -> Iterator[str]:
    groups = story.subgroups
    if groups is None:
        return
    yield "## Subgroups"
    names = [METRIC_WORDS[score.metric] for score in groups.overall.scores]
    rows = [("", groups.overall), *((column.column, group) for column in groups.columns for group in column.groups)]
    yield _table(
        ("Column", "Group", "Images", "Patients", *names, "To the rest"),
        [
            (
                column,
                f"{group.name} ({group.small})" if group.small else group.name,
                group.images,
                group.patients,
                *(format_score(score) for score in group.scores),
                format_rest(group.to_rest) if group.to_rest else "",
            )
            for column, group in rows
        ],
    )
    yield from _list(explain(groups))


def _training(story: RunStory) -> Iterator[str]:
    if not story.results:
        return
    yield "## Training"
    yield _table(
        ("Trial", "Validation AUROC", "Best epoch", "Epochs", "Time", "Device"),
        [
            (
                one.key,
                "undefined" if one.val_auroc is None else f"{one.val_auroc:.4f}",
                one.best_epoch,
                one.epochs_run,
                format_duration(one.seconds),
                one.device,
            )
            for one in story.results
        ],
    )


def _cost(story: RunStory) -> Iterator[str]:
    if story.stages is None:
        return
    yield "## What the search cost"
    yield escape(tell_cost(story.stages, story.settings))
    yield _table(
        ("Stage", "What it did", "Trainings", "In full trainings", "Of all", "Time", "What it told"),
        [
            (
                row.stage,
                row.did,
                row.trials or "none",
                format_count(row.full_trainings),
                format_part(row.exhaustive_share),
                "not taken" if row.seconds is None else format_duration(row.seconds),
                row.told,
            )
            for row in cost_rows(story.stages)
        ],
    )


def _exports(exports: Sequence[ExportStory]) -> Iterator[str]:
    if len(exports) > 1:
        yield "## Exported files"
        yield _listing(list_exports(exports))


def _export(export: ExportStory) -> Iterator[str]:
    manifest = export.manifest
    yield f"## Exported: {escape(manifest.name)}"
    lines = [
        *describe_precision(manifest),
        describe_calibration(manifest.calibration),
        *([describe_operating_point(manifest.operating_point)] if manifest.operating_point else []),
        f"intended use: {manifest.intended_use}",
    ]
    yield from _list(lines)
    yield _table(
        ("File", "Size", "sha256"), [(one.name, format_bytes(one.size_bytes), one.sha256) for one in manifest.files]
    )
    found = export.verification
    if found is None:
        yield "Not verified yet."
    else:
        said = "; ".join(describe_parity(found.parity)) if found.parity else found.note
        passed = "passed" if found.passed else "failed"
        yield f"Verification on {escape(found.target)}: **{passed}**, {found.images} images; {escape(said)}"
    yield from _benchmarks(export)


def _benchmarks(export: ExportStory) -> Iterator[str]:
    digests = {one.sha256 for one in export.manifest.files}
    for bench in export.benchmarks:
        rows = [row for row in bench.rows if row.artifact_sha256 in digests]
        if not rows:
            continue
        yield f"Benchmark on {escape(bench.machine.host)} ({escape(bench.machine.processor)}):"
        yield _table(
            ("Target", "Precision run", "Mode", "Batch", "Threads", "p50", "Noise", "Verdict"),
            [
                (
                    row.target,
                    row.precision,
                    row.mode,
                    row.batch,
                    row.threads,
                    next((format_latency(one.value_s) for one in row.percentiles if one.percent == 50), "not measured"),
                    format_latency(row.noise_s),
                    row.verdict,
                )
                for row in rows
            ],
        )


def _refusals(story: RunStory) -> Iterator[str]:
    found = list_refusals(story)
    yield "## Failures and refusals"
    if found:
        yield _table(
            ("What", "Which", "Why", "When", "What came of it"),
            [(one.what, one.which, "; ".join((one.why, *one.measured)), one.time, one.since) for one in found],
        )
        yield from _list(f"{one.which}: asked for by {one.command}" for one in found if one.command)
    else:
        yield "None is recorded."


def _openings(story: RunStory) -> Iterator[str]:
    yield "## When the test split was opened"
    if not story.openings:
        yield "It was not opened."
    yield from _list(f"{one.split} split, by {one.command}, for {', '.join(one.trials)}" for one in story.openings)


def _reproduction(story: RunStory) -> Iterator[str]:
    yield "## How to reproduce this"
    yield _code(reproduction(story))
    yield "The first was typed as it stands. In the others RUN is the run folder."
    if story.versions:
        yield _table(("Software", "Version"), list(story.versions.items()))
    yield _table(("Weights of", "sha256"), [(one.key, one.weights_sha256) for one in story.results])


def _code(lines: Sequence[str]) -> str:
    """Return a block of code; its fence is longer than any run of backticks inside."""
    text = show_direction_marks("\n".join(lines))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}sh\n{text}\n{fence}"


def _list(lines: Iterable[str]) -> Iterator[str]:
    told = "\n".join(f"- {escape(line)}" for line in lines)
    if told:
        yield told


def _listing(listed: Listing) -> str:
    return _table(listed.columns, listed.rows, numeric=listed.numeric)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, numeric: Sequence[bool] | None = None) -> str:
    """Lay out a table; numbers, or the columns that `numeric` names, align right."""
    right = numeric or [
        bool(rows) and all(isinstance(row[position], int) for row in rows) for position in range(len(columns))
    ]
    lines = [_row(columns), _row(("---:" if one else "---" for one in right), plain=True), *(_row(row) for row in rows)]
    return "\n".join(lines)


def _row(cells: Iterable[object], *, plain: bool = False) -> str:
    return f"| {' | '.join(str(cell) if plain else escape(str(cell)) for cell in cells)} |"
