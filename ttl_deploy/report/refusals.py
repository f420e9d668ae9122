"""What did not come about in a run, and why, as far as the run folder tells."""

from collections.abc import Iterator
from dataclasses import dataclass

from ttl_deploy.records.refusals import RefusedExport
from ttl_deploy.report.story import ExportStory, RunStory
from ttl_deploy.report.tables import left_out
from ttl_deploy.runtime.precision_words import describe_attempt, describe_parity


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One thing that failed or was refused: what kind of thing, which one, and the reason in words.

    `measured` are the numbers behind the reason, a line each; `command` and `time` (UTC) are what was typed, and when;
    `since` says what has come of it. All four are empty where they are not known.
    """

    what: str
    which: str
    why: str
    measured: tuple[str, ...] = ()
    command: str = ""
    time: str = ""
    since: str = ""


def list_refusals(story: RunStory) -> tuple[Refusal, ...]:
    """List failed trials, cuts over a limit, refused exports, and what of the exports did not hold."""
    trials = [Refusal(what=f"trial, {one.kind}", which=one.key, why=one.reason) for one in story.failures]
    cuts = [
        Refusal(what="cut, not trained", which=cut, why=f"over the limit: {why}")
        for cut, why in left_out(story).items()
    ]
    refused = [_of_refused(one, story) for one in story.refused]
    return (*trials, *cuts, *refused, *(one for export in story.exports for one in _of_export(export)))


def _of_refused(refused: RefusedExport, story: RunStory) -> Refusal:
    asked, measured = refused.asked, refused.measured
    attempts = [describe_attempt(one) for one in measured.attempts] if measured else []
    last = list(describe_parity(measured.parity)) if measured and measured.parity else []
    if attempts and last:
        last = [f"the last try: {'; '.join(last)}"]
    return Refusal(
        what="export",
        which=f"{asked.artifact}: {asked.format} in {asked.precision}",
        why=refused.reason,
        measured=(*attempts, *last),
        command=refused.command,
        time=_moment(refused.time),
        since=_tell_since(refused, story),
    )


def _tell_since(refused: RefusedExport, story: RunStory) -> str:
    """Say whether an artifact of this name was published, before it was refused or after."""
    found = next((one.manifest for one in story.exports if one.manifest.name == refused.asked.artifact), None)
    if found is None:
        return "not published so far"
    if found.created <= refused.time:
        return f"what had been published on {_moment(found.created)} stays in its place"
    drop = "" if found.gate is None else f", where a loss of {found.gate.max_drop:g} was to be excluded"
    return f"published since, on {_moment(found.created)}{drop}"


def _moment(time: str) -> str:
    """Write a moment as `2026-01-05 10:00 UTC`."""
    return f"{time[:16].replace('T', ' ')} UTC" if time else ""


def _of_export(export: ExportStory) -> Iterator[Refusal]:
    manifest = export.manifest
    for attempt in manifest.quantisation.attempts if manifest.quantisation else ():
        if not attempt.passed:
            yield Refusal(
                what="try at lower precision",
                which=manifest.name,
                why=describe_attempt(attempt),
                since="a later try passed, and was published",
            )
    for found in (*export.earlier, *([export.verification] if export.verification else [])):
        if not found.passed:
            yield Refusal(
                what="verification",
                which=f"{manifest.name} on {found.target}, {found.images} images",
                why=found.note or "the file's answers are not the model's",
                measured=() if found.parity is None else describe_parity(found.parity),
            )
    digests = {one.sha256 for one in manifest.files}
    for bench in export.benchmarks:
        for failure in bench.failures:
            if failure.artifact_sha256 in digests:
                yield Refusal(
                    what="benchmark",
                    which=f"{manifest.name} on {failure.target} ({bench.machine.host}), batch {failure.batch}",
                    why=failure.reason,
                )
