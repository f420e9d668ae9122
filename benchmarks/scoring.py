"""Test scores of everything that a run has trained, for comparisons in which nothing is chosen."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray

from ttl_deploy import plugins
from ttl_deploy.data.cache import open_cache
from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.evidence import intervals
from ttl_deploy.evidence.metrics import evaluate
from ttl_deploy.records import codec
from ttl_deploy.records.scores import Score
from ttl_deploy.records.trials import TestOpening, Trial, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime.machine import usable_cores
from ttl_deploy.search import findings
from ttl_deploy.search.executors.memory import find_places
from ttl_deploy.search.tasks import Task


def test_all(run: RunFolder, command: str) -> None:
    """Score every finished trial on the test split, as far as that was not done, and say so in the ledger."""
    keys = [one.key for one in findings.outcomes(run).values() if isinstance(one, TrialResult) and not one.is_joint]
    left = [codec.load(Trial, run.trial(key) / "trial.json") for key in keys if not _is_tested(run, key)]
    if not left:
        return
    cache = open_cache(load_manifest(run.data), run.settings().decode).path
    tasks = [
        Task(kind="test", trial=trial, run=str(run.path), cache=str(cache), device="cpu", cost=1.0) for trial in left
    ]
    opening = TestOpening(split="test", command=command, trials=tuple(trial.key for trial in left))
    places = find_places([torch.device("cpu")], usable_cores())
    with run.owned(), closing(plugins.load("executors", "local")(places)) as executor:
        run.ledger.append("test_opened", "benchmark", codec.to_builtins(opening))
        for done in executor.run(tasks, report=lambda position, progress: None):
            if done.outcome is not None:
                raise RuntimeError(f"{left[done.position].key} cannot be tested: {done.outcome}")


def _is_tested(run: RunFolder, key: str) -> bool:
    return (run.trial(key) / "predictions_test.npz").exists()


def read_test(run: RunFolder, trained: Sequence[TrialResult]) -> NDArray[np.float32]:
    """Return the test probabilities `(seeds, n, C)` of trials."""
    return np.stack([findings.read_probabilities(run, one.key, "test") for one in trained])


def score_test(run: RunFolder, trained: Sequence[TrialResult]) -> tuple[Score, list[float | None]]:
    """Return the mean test AUROC over trials with its interval over patients, and the value of each."""
    truth = findings.labelled_split(run.data, "test")
    predicted = read_test(run, trained)
    resampled = intervals.resample(predicted, truth.labels, truth.patients)
    values = [evaluate("auroc", one, truth.labels).value for one in predicted]
    return intervals.score_resampled(resampled, "auroc", split="test"), values
