"""What the searches of an experiment came to: per entrant its test AUROC, its costs, how fast it learned."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from experiments import Entrant, Experiment
from numpy.typing import NDArray
from plan import Plan
from shared import read_test, score_test

from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.errors import DataError
from ttl_deploy.evidence import intervals
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.records.candidates import Candidate
from ttl_deploy.records.data import Manifest
from ttl_deploy.records.models import FULL, Cut
from ttl_deploy.records.scores import PairedDifference, Score
from ttl_deploy.records.trials import TrialFailure, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import findings


class NotMadeError(Exception):
    """Something that a comparison needs was not trained, or its score is not defined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One entrant over all splits: the test score of each, and the validation AUROC after every epoch.

    Shares are of the reference; `steps` those of the optimizer in one epoch, the mean over splits; `runs` are the
    searches that trained it, one per split; `failure` says why there is no score.
    """

    entrant: Entrant
    macs_share: float = math.nan
    params_share: float = math.nan
    steps: float = math.nan
    scores: tuple[Score, ...] = ()
    curves: tuple[tuple[float, ...], ...] = ()
    runs: tuple[RunFolder, ...] = ()
    failure: str = ""

    @property
    def auroc(self) -> float | None:
        """The mean over splits; None where one is undefined."""
        values = [score.value for score in self.scores if score.value is not None]
        return float(np.mean(values)) if values and len(values) == len(self.scores) else None

    def epochs_until(self, auroc: float) -> float | None:
        """Return after how many epochs validation first reaches an AUROC, the mean over splits; None if ever not."""
        reached = [next((i for i, value in enumerate(curve, 1) if value >= auroc), None) for curve in self.curves]
        known = [epoch for epoch in reached if epoch is not None]
        return float(np.mean(known)) if known and len(known) == len(reached) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An experiment's rows, the reference first; `images` are those of training, by split of the data.

    `classes` are how many there are, several labels per image where `multilabel`.
    """

    experiment: Experiment
    rows: tuple[Row, ...]
    images: tuple[int, ...] = ()
    tested: int = 0
    classes: int = 2
    multilabel: bool = False

    @property
    def reference(self) -> Row:
        """The whole network, finetuned: the first row."""
        return self.rows[0]

    @property
    def metric(self) -> str:
        """How the score is called: AUROC, or the mean over classes or findings."""
        if self.multilabel:
            return f"macro AUROC over {self.classes} findings"
        return "AUROC" if self.classes == 2 else f"macro AUROC over {self.classes} classes"

    def row(self, name: str) -> Row:
        """Return the row of that name in the paper; raises `NotMadeError` where it has no score."""
        found = next((row for row in self.rows if row.entrant.name == name), None)
        if found is None:
            raise NotMadeError(f"{name} is not in this setting")
        if found.auroc is None:
            raise NotMadeError(f"{name}: {found.failure or 'its AUROC is not defined'}")
        return found

    def compare(self, ours: Row, reference: Row, *, level: float = intervals.LEVEL) -> list[PairedDifference]:
        """Return the paired difference of test AUROC for every split; raises `NotMadeError` without scores."""
        for row in (ours, reference):
            if row.auroc is None:
                raise NotMadeError(f"{row.entrant.backbone}, {row.entrant.cut}: {row.failure or 'no AUROC'}")
        if all(score.value == 1 for row in (ours, reference) for score in row.scores):
            raise NotMadeError("both rank every test image right, so nothing could differ")
        return [_compare(ours, reference, a, b, level=level) for a, b in zip(ours.runs, reference.runs, strict=True)]


def _compare(ours: Row, reference: Row, a: RunFolder, b: RunFolder, *, level: float) -> PairedDifference:
    if _test_images(load_manifest(a.data)) != _test_images(load_manifest(b.data)):
        raise DataError(f"{a.path} and {b.path} have other test images, so their scores cannot be compared in pairs")
    truth = findings.labelled_split(a.data, "test")
    return intervals.paired_difference(
        _predictions(a, ours.entrant),
        _predictions(b, reference.entrant),
        truth.labels,
        truth.patients,
        reference=reference.entrant.name,
        level=level,
    )


def _test_images(manifest: Manifest) -> list[tuple[object, ...]]:
    samples = (manifest.samples[position] for position in manifest.of_split("test"))
    return [(sample.path, sample.sha256, sample.label, sample.patient_id) for sample in samples]


def _predictions(run: RunFolder, entrant: Entrant) -> NDArray[np.float32]:
    return read_test(run, [_result(run, entrant)])


def _result(run: RunFolder, entrant: Entrant) -> TrialResult:
    """Return an entrant's training; raises `NotMadeError` where it failed."""
    wanted = Candidate(entrant.cut, entrant.strategy)
    found = [one for one in findings.outcomes(run).values() if Candidate(one.cut, one.strategy) == wanted]
    if not found or isinstance(found[0], TrialFailure):
        raise NotMadeError(found[0].reason if found and isinstance(found[0], TrialFailure) else "not trained")
    return found[0]


def read_outcome(experiment: Experiment, plan: Plan, out: Path) -> Outcome:
    """Read what the finished searches below `out` left of an experiment, all trials tested."""
    first = [RunFolder(out / plan.find(experiment.entrants[0], split).folder) for split in experiment.splits]
    manifests = [load_manifest(run.data) for run in first]
    images = tuple(len(manifest.of_split("train")) for manifest in manifests)
    outcome = Outcome(
        experiment=experiment,
        rows=(),
        images=images,
        tested=len(manifests[0].of_split("test")),
        classes=len(manifests[0].classes),
        multilabel=manifests[0].multilabel,
    )
    return replace(outcome, rows=tuple(_rows(outcome, plan, out)))


def _rows(outcome: Outcome, plan: Plan, out: Path) -> Iterator[Row]:
    experiment = outcome.experiment
    steps = [math.ceil(count / experiment.splits[0].train.batch_size) for count in outcome.images]
    whole = _cost(experiment, experiment.entrants[0], outcome.classes)
    for entrant in experiment.entrants:
        row = Row(entrant=entrant, steps=float(np.mean(steps)))
        if entrant in experiment.cannot:
            yield replace(row, failure=experiment.cannot[entrant])
            continue
        cost = _cost(experiment, entrant, outcome.classes)
        row = replace(row, macs_share=cost.macs / whole.macs, params_share=cost.params / whole.params)
        runs = tuple(RunFolder(out / plan.find(entrant, split).folder) for split in experiment.splits)
        try:
            trained = [(run, _result(run, entrant)) for run in runs]
        except NotMadeError as error:
            yield replace(row, failure=str(error))
            continue
        yield replace(
            row,
            runs=runs,
            scores=tuple(score_test(run, [one])[0] for run, one in trained),
            curves=tuple(_curve(run, one) for run, one in trained),
        )


def _cost(experiment: Experiment, entrant: Entrant, classes: int) -> Cut:
    size = experiment.splits[0].decode.image_size
    cuts = {cut.name: cut for cut in list_cuts(entrant.backbone, image_size=size, classes=classes)}
    return cuts[entrant.cut if entrant.cut in cuts else FULL]


def _curve(run: RunFolder, trained: TrialResult) -> tuple[float, ...]:
    lines = (run.trial(trained.key) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    values = [json.loads(line)["val_auroc"] for line in lines]
    return tuple(float("nan") if value is None else value for value in values)
