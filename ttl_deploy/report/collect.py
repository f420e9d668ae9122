"""From a run folder on disk to the story that the report tells; reads as far as the run got."""

import json
from collections import Counter
from pathlib import Path

import msgspec

from ttl_deploy.data.manifest_files import fingerprint, load_manifest
from ttl_deploy.data.quarantine import load_unusable
from ttl_deploy.errors import DataError, NoRunError
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import ArtifactManifest, Parity, VerifyReport
from ttl_deploy.records.benchmarks import BenchReport
from ttl_deploy.records.openings import EarlierOpenings
from ttl_deploy.records.probe import Probe
from ttl_deploy.records.refusals import RefusedExport
from ttl_deploy.records.scores import Choice, Front
from ttl_deploy.records.subgroups import Subgroups
from ttl_deploy.records.target_results import TargetCheck
from ttl_deploy.records.trials import EpochRecord, Profile, TestOpening
from ttl_deploy.records.weights import WeightsUsed
from ttl_deploy.report.analysis_page import read_analysis
from ttl_deploy.report.model_curves import RunCurves
from ttl_deploy.report.run_curves import read_curves
from ttl_deploy.report.story import ExportStory, RunStory
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime import stored_subgroups
from ttl_deploy.runtime.artifact import sha256_of_model
from ttl_deploy.runtime.kit.reading import CHECKS
from ttl_deploy.search import findings
from ttl_deploy.search.stages import describe_stages


def collect(run: RunFolder, *, embed_images: bool = False) -> RunStory:
    """Read everything a run has to tell; raises `NoRunError` where it has not come as far as its data.

    Pictures of patients are read only where they are to be embedded.
    """
    settings = run.settings()
    if not (run.data / "manifest.csv").exists():
        raise NoRunError(f"{run.path} has not come as far as reading its data: resume it with {run.command}")
    manifest = load_manifest(run.data)
    outcomes = findings.outcomes_so_far(run)
    front, choice = _front(run), run.read_choice() if run.chosen.exists() else None
    return RunStory(
        name=run.name,
        settings=settings,
        fingerprint=fingerprint(manifest),
        warnings=manifest.warnings,
        profile=codec.load(Profile, run.profile) if run.profile.exists() else None,
        front=front,
        choice=choice,
        trials=tuple(outcomes.values()),
        curves={key: _curve(run.trial(key) / "metrics.jsonl") for key in outcomes},
        exports=tuple(_export(run, folder) for folder in run.exports()),
        refused=_refused(run),
        openings=tuple(
            codec.from_builtins(TestOpening, dict(entry.content)) for entry in run.ledger.of_event("test_opened")
        ),
        earlier=codec.load(EarlierOpenings, run.earlier_openings) if run.earlier_openings.exists() else None,
        subgroups=_subgroups(run),
        analysis=read_analysis(run, embed_images=embed_images),
        weights=codec.load(WeightsUsed, run.weights) if run.weights.exists() else None,
        probe=codec.load(Probe, run.probe) if run.probe.exists() else None,
        stages=describe_stages(run),
        model_curves=_model_curves(run, front, choice),
        unusable=dict(Counter(one.reason for one in load_unusable(run.data)).most_common()),
        versions=_versions(run),
        command=run.command.read_text(encoding="utf-8").strip(),
    )


def _front(run: RunFolder) -> Front | None:
    """Return the front as it stands, or None before the first trial has finished."""
    try:
        return findings.read(run).front
    except (NoRunError, DataError):
        if run.front.exists():
            raise
        return None


def _model_curves(run: RunFolder, front: Front | None, choice: Choice | None) -> RunCurves | None:
    return None if front is None or choice is None else read_curves(run, front, choice)


def _subgroups(run: RunFolder) -> Subgroups | None:
    """Score the chosen model's subgroups by what it predicted before; None without such columns, or a choice.

    What the search opened of the test split is read again, and nothing more.
    """
    if not (run.chosen.exists() and run.front.exists() and stored_subgroups.list_columns(run)):
        return None
    model = stored_subgroups.find_model(run)
    if not any(stored_subgroups.has_predictions(run, model, split) for split in ("val", "test")):
        return None
    found = stored_subgroups.describe_subgroups(run, model)
    return found if found.columns else None


def _curve(path: Path) -> tuple[EpochRecord, ...]:
    if not path.exists():
        return ()
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(codec.from_builtins(EpochRecord, json.loads(line), source=str(path)) for line in lines)


def _export(run: RunFolder, folder: Path) -> ExportStory:
    """Gather an artifact with the newest verification of its file, and all its benchmarks."""
    manifest = codec.load(ArtifactManifest, folder / "manifest.json")
    model = sha256_of_model(manifest)
    measured = sorted((run.path / "bench").glob("*/*.json"), key=lambda path: path.stat().st_mtime_ns)
    verified = [codec.load(VerifyReport, path) for path in measured if path.name.startswith("verify-")]
    benches = [codec.load(BenchReport, path) for path in measured if not path.name.startswith("verify-")]
    checks = sorted((run.path / "bench").glob(f"*/{CHECKS}/*.json"), key=lambda path: path.name)
    ours = [report for report in verified if report.artifact_sha256 == model]
    return ExportStory(
        manifest=manifest,
        parity=codec.load(Parity, folder / "verify.json") if (folder / "verify.json").exists() else None,
        verification=ours[-1] if ours else None,
        earlier=tuple(ours[:-1]),
        benchmarks=tuple(bench for bench in benches if any(row.artifact_sha256 == model for row in bench.rows)),
        targets=tuple(one for path in checks if (one := codec.load(TargetCheck, path)).artifact_sha256 == model),
    )


def _refused(run: RunFolder) -> tuple[RefusedExport, ...]:
    """Read the refused exports in their order; of a refusal that was repeated word for word the last alone."""
    found = [codec.load(RefusedExport, path) for path in run.refusals.glob("*.json")]
    latest = {(one.asked, one.reason): one for one in sorted(found, key=lambda one: one.time)}
    return tuple(sorted(latest.values(), key=lambda one: one.time))


def _versions(run: RunFolder) -> dict[str, str]:
    if not run.environment.exists():
        return {}
    content = msgspec.json.decode(run.environment.read_bytes())
    return {name: str(value) for name, value in {**content.pop("decisive"), **content}.items()}
