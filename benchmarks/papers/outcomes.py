"""What the searches of an experiment came to: per candidate its test AUROC, its costs, how fast it learned."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from experiments import Experiment
from numpy.typing import NDArray
from shared import read_test, score_test

from ttl_deploy.evidence import intervals
from ttl_deploy.records.candidates import Candidate
from ttl_deploy.records.scores import PairedDifference, Score
from ttl_deploy.records.trials import TrialFailure, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import findings


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One candidate over all splits: the test score of each, and the validation AUROC after every epoch.

    `macs_share` is of the full network; `failure` says why there is no score.
    """

    cut: str
    strategy: str
    macs_share: float
    params_share: float
    scores: tuple[Score, ...] = ()
    curves: tuple[tuple[float, ...], ...] = ()
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
    """An experiment's rows, and the runs that they are from."""

    experiment: Experiment
    rows: tuple[Row, ...]
    runs: tuple[RunFolder, ...]

    def row(self, cut: str, strategy: str) -> Row:
        """Return one candidate's row; raises `KeyError` where there is none."""
        for row in self.rows:
            if (row.cut, row.strategy) == (cut, strategy):
                return row
        raise KeyError(f"{cut} by {strategy}")

    def compare(self, ours: Row, reference: Row) -> list[PairedDifference]:
        """Return the paired difference of test AUROC for every split."""
        return [self._compare(run, ours, reference) for run in self.runs]

    @staticmethod
    def _compare(run: RunFolder, ours: Row, reference: Row) -> PairedDifference:
        truth = findings.labelled_split(run.data, "test")
        a, b = (_predictions(run, row) for row in (ours, reference))
        return intervals.paired_difference(a, b, truth.labels, truth.patients, reference=reference.strategy)


def read_outcome(experiment: Experiment, runs: Sequence[RunFolder]) -> Outcome:
    """Read what finished searches left, all trials tested."""
    return Outcome(experiment=experiment, rows=tuple(_rows(runs)), runs=tuple(runs))


def _rows(runs: Sequence[RunFolder]) -> Iterator[Row]:
    front = findings.read(runs[0]).front
    costs = {point.cut: (point.macs_share, point.params_share) for point in front.points}
    for cut in runs[0].settings().cuts:
        for strategy in runs[0].settings().strategies:
            macs, params = costs.get(cut, (float("nan"), float("nan")))
            row = Row(cut=cut, strategy=strategy, macs_share=macs, params_share=params)
            found = [_trained(run, cut, strategy) for run in runs]
            failed = next((one.reason for one in found if isinstance(one, TrialFailure)), "")
            trained = [one for one in found if isinstance(one, TrialResult)]
            if failed or len(trained) < len(runs):
                yield replace(row, failure=failed or "not trained")
                continue
            yield replace(
                row,
                scores=tuple(score_test(run, [one])[0] for run, one in zip(runs, trained, strict=True)),
                curves=tuple(_curve(run, one) for run, one in zip(runs, trained, strict=True)),
            )


def _trained(run: RunFolder, cut: str, strategy: str) -> TrialResult | TrialFailure | None:
    wanted = Candidate(cut, strategy)
    found = findings.outcomes(run).values()
    return next((one for one in found if Candidate(one.cut, one.strategy) == wanted), None)


def _curve(run: RunFolder, trained: TrialResult) -> tuple[float, ...]:
    lines = (run.trial(trained.key) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    values = [json.loads(line)["val_auroc"] for line in lines]
    return tuple(float("nan") if value is None else value for value in values)


def _predictions(run: RunFolder, row: Row) -> NDArray[np.float32]:
    trained = _trained(run, row.cut, row.strategy)
    if not isinstance(trained, TrialResult):
        raise KeyError(f"{row.cut} by {row.strategy}")
    return read_test(run, [trained])
