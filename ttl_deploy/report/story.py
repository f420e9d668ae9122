"""Everything a run has to tell, gathered; the tables and the page are written from it alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ttl_deploy.records.artifacts import ArtifactManifest, Parity, VerifyReport
from ttl_deploy.records.benchmarks import BenchReport
from ttl_deploy.records.data import DataFingerprint, DataWarning
from ttl_deploy.records.openings import EarlierOpenings
from ttl_deploy.records.probe import Probe
from ttl_deploy.records.refusals import RefusedExport
from ttl_deploy.records.scores import Choice, Front
from ttl_deploy.records.stages import StageCosts
from ttl_deploy.records.subgroups import Subgroups
from ttl_deploy.records.target_results import TargetCheck
from ttl_deploy.records.trials import (
    CutProfile,
    EpochRecord,
    Profile,
    SearchSettings,
    TestOpening,
    TrialFailure,
    TrialResult,
)
from ttl_deploy.records.weights import WeightsUsed
from ttl_deploy.report.analysis_story import AnalysisStory
from ttl_deploy.report.model_curves import RunCurves


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportStory:
    """One exported artifact, with its verification and benchmarks as far as they were made.

    `parity` is what it was published on; None where that file is not there. `verification` is the newest, `earlier`
    are the others, of other machines and splits. `targets` are the machines whose results were brought here.
    """

    manifest: ArtifactManifest
    parity: Parity | None = None
    verification: VerifyReport | None = None
    earlier: tuple[VerifyReport, ...] = ()
    benchmarks: tuple[BenchReport, ...] = ()
    targets: tuple[TargetCheck, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStory:
    """A run as the report tells it.

    `front` is None as long as no trial has finished. `curves` holds each trial's epochs under its
    key. `probe` is None where there was none, `stages` before the profile. `earlier` are other runs' openings of
    the test images before this run's `openings`, None where that was not recorded; `subgroups` those of the chosen
    model, None where its data have none. `model_curves` are of the chosen model and the reference, None where nothing
    is chosen, or their predictions are gone. `refused` are exports that a check refused, the oldest first. `unusable`
    counts images that do not decode by reason. `command` is what was typed, `versions` the software it ran with.
    """

    name: str
    settings: SearchSettings
    fingerprint: DataFingerprint
    warnings: tuple[DataWarning, ...]
    profile: Profile | None
    front: Front | None
    choice: Choice | None
    trials: tuple[TrialResult | TrialFailure, ...]
    curves: Mapping[str, tuple[EpochRecord, ...]]
    exports: tuple[ExportStory, ...] = ()
    refused: tuple[RefusedExport, ...] = ()
    weights: WeightsUsed | None = None
    openings: tuple[TestOpening, ...] = ()
    earlier: EarlierOpenings | None = None
    subgroups: Subgroups | None = None
    analysis: AnalysisStory | None = None
    probe: Probe | None = None
    stages: StageCosts | None = None
    model_curves: RunCurves | None = None
    unusable: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str

    @property
    def results(self) -> tuple[TrialResult, ...]:
        """The trials that finished."""
        return tuple(trial for trial in self.trials if isinstance(trial, TrialResult))

    @property
    def failures(self) -> tuple[TrialFailure, ...]:
        """The trials that did not."""
        return tuple(trial for trial in self.trials if isinstance(trial, TrialFailure))

    def cost(self, cut: str) -> CutProfile | None:
        """Return what a cut costs, or None where it was not profiled."""
        cuts = () if self.profile is None else self.profile.cuts
        return next((cost for cost in cuts if cost.cut == cut), None)
