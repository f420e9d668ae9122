"""What did not come about in a run, and why, as far as the run folder tells."""

from collections.abc import Iterator
from dataclasses import dataclass

from ttl_deploy.report.story import ExportStory, RunStory
from ttl_deploy.report.tables import left_out
from ttl_deploy.runtime.precision_words import describe_attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One thing that failed or was refused: what kind of thing, which one, and the reason in words."""

    what: str
    which: str
    why: str


def list_refusals(story: RunStory) -> tuple[Refusal, ...]:
    """List failed trials, cuts over a limit, and what of the exports did not hold or could not be measured."""
    trials = [Refusal(what=f"trial, {one.kind}", which=one.key, why=one.reason) for one in story.failures]
    cuts = [
        Refusal(what="cut, not trained", which=cut, why=f"over the limit: {why}")
        for cut, why in left_out(story).items()
    ]
    return (*trials, *cuts, *(one for export in story.exports for one in _of_export(export)))


def _of_export(export: ExportStory) -> Iterator[Refusal]:
    manifest = export.manifest
    for attempt in manifest.quantisation.attempts if manifest.quantisation else ():
        if not attempt.passed:
            yield Refusal(what="try at lower precision", which=manifest.name, why=describe_attempt(attempt))
    if export.verification and not export.verification.passed:
        told = export.verification.note or "the file's answers are not the model's"
        yield Refusal(what="verification", which=f"{manifest.name} on {export.verification.target}", why=told)
    digests = {one.sha256 for one in manifest.files}
    for bench in export.benchmarks:
        for failure in bench.failures:
            if failure.artifact_sha256 in digests:
                yield Refusal(
                    what="benchmark",
                    which=f"{manifest.name} on {failure.target} ({bench.machine.host}), batch {failure.batch}",
                    why=failure.reason,
                )
