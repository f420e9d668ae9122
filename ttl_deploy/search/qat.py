"""Finetuning for 8 bits at an export: a trial's model, its training images, and where the weights are kept."""

import copy
from collections.abc import Callable

import numpy as np
import torch

from ttl_deploy.data.cache import PixelCache
from ttl_deploy.data.labels import label_array
from ttl_deploy.errors import GateError
from ttl_deploy.models import weights
from ttl_deploy.models.truncation import TruncatedModel
from ttl_deploy.plugins import Finetuned, Proof
from ttl_deploy.records.data import Manifest, Split
from ttl_deploy.records.quantisation import Finetuning
from ttl_deploy.records.trials import Trial
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.training import quantisation_aware
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.quantisation_aware import LEARNING_RATE, TEMPERATURE, Course
from ttl_deploy.training.steps import NotFiniteError


def plan_finetuning(
    run: RunFolder,
    trial: Trial,
    model: TruncatedModel,
    *,
    data: Manifest,
    cache: PixelCache,
    proof: Proof,
    epochs: int,
) -> Callable[[], Finetuned]:
    """Return what finetunes a copy of a trial's trained `model` when it is called, keeping the weights with the trial.

    That raises `GateError` where the finetuning fails. The weights are published when it is over, whatever is then
    thought of the file: the same command gives the same ones.
    """

    def finetune() -> Finetuned:
        learnt = copy.deepcopy(model)
        train = pixels_of(data, cache, "train")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            course = quantisation_aware.finetune(
                learnt,
                trial,
                train=train,
                val=pixels_of(data, cache, "val"),
                calibration=proof.calibration,
                epochs=epochs,
                device=device,
                report=lambda epoch, done, total: proof.progress(_stage(epoch, epochs), done, total),
            )
        except (NotFiniteError, torch.OutOfMemoryError) as error:
            raise GateError(
                f"no int8 file held the gate, and finetuning for 8 bits failed on {device}: {error}. "
                "Nothing was published: export --precision bf16 or fp32"
            ) from error
        return Finetuned(model=learnt.eval(), finetuning=_keep(run, trial, learnt, course, images=len(train)))

    return finetune


def pixels_of(data: Manifest, cache: PixelCache, split: Split) -> LabelledPixels:
    """Return the images and labels of a split, in the manifest's order."""
    positions = np.array(data.of_split(split), dtype=np.int64)
    labels = label_array([data.samples[position] for position in positions])
    return LabelledPixels(array=cache.array, rows=cache.rows[positions].astype(np.int64), labels=labels)


def _stage(epoch: int, epochs: int) -> str:
    return f"finetuning for 8 bits, epoch {epoch} of {epochs}"


def _keep(run: RunFolder, trial: Trial, model: TruncatedModel, course: Course, *, images: int) -> Finetuning:
    """Publish the weights in the trial's folder, and describe how they came about."""
    path = run.trial(trial.key) / f"int8-qat{len(course.after)}.safetensors"
    sha256 = weights.save_weights(model, path, convention=trial.input)
    return Finetuning(
        epochs=len(course.after),
        best_epoch=course.best_epoch,
        lr=LEARNING_RATE,
        temperature=TEMPERATURE,
        seed=trial.seed,
        images=images,
        auroc_before=course.before,
        auroc_after=course.after,
        weights=path.relative_to(run.path).as_posix(),
        weights_sha256=sha256,
    )
