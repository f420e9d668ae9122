"""From one joint training to a finished trial for every cut: weights, predictions and result, each in a folder."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.evidence import metrics
from ttl_deploy.files import make_folder, sha256_file
from ttl_deploy.models import truncation, weights
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import JOINT
from ttl_deploy.records.trials import Trial, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.training import evaluation
from ttl_deploy.training.loop import PREDICTIONS, RESULT, WEIGHTS


def divide(run: RunFolder, trial: Trial, result: TrialResult) -> TrialResult:
    """Publish every exit of a finished joint training as a trial of its own; returns the result with theirs.

    What lies there already is written again, the same. The joint training's time is shared out evenly.
    """
    folder = run.trial(trial.key)
    network = truncation.build_exits(trial.model)
    weights.load_weights(network, folder / WEIGHTS)
    with np.load(folder / PREDICTIONS, allow_pickle=False) as content:
        predicted, labels = content["probabilities"], content["labels"]
    share = replace(result, seconds=result.seconds / len(trial.model.exits))
    exits = (
        _publish(run, network, exit_trial(trial, cut), share, predicted=predicted[:, number], labels=labels)
        for number, cut in enumerate(trial.model.exits)
    )
    return replace(result, exits=tuple(exits))


def exit_trial(trial: Trial, cut: str) -> Trial:
    """Describe what one exit of a joint training is as a trial."""
    return replace(trial, model=replace(trial.model, cut=cut, exits=()), strategy=JOINT)


def _publish(
    run: RunFolder,
    network: truncation.MultiExitModel,
    trial: Trial,
    share: TrialResult,
    *,
    predicted: NDArray[np.float32],
    labels: NDArray[np.int64],
) -> TrialResult:
    folder = make_folder(run.trial(trial.key))
    model = truncation.build(trial.model)
    model.load_state_dict(network.exit_state(trial.model.cut, model.state_dict()))
    codec.save(folder / "trial.json", trial)
    weights.save_weights(model, folder / WEIGHTS, convention=trial.input)
    evaluation.save_predictions(folder / PREDICTIONS, predicted=predicted, labels=labels)
    result = replace(
        share,
        key=trial.key,
        cut=trial.model.cut,
        strategy=trial.strategy,
        val_auroc=metrics.evaluate("auroc", predicted, labels).value,
        params=sum(parameter.numel() for parameter in model.parameters()),
        weights_sha256=sha256_file(folder / WEIGHTS),
    )
    codec.save(folder / RESULT, result)
    return result
