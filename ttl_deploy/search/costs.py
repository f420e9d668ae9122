"""What trainings cost, in multiply-accumulates: before they are made, and afterwards by the epochs they took."""

from collections.abc import Mapping

from ttl_deploy.records.trials import Trial, cut_of_key

_STEP = 3.0
"""Passes that a training step is worth: one forward, and backward about two (each product has two factors)."""


def epoch_macs(trial: Trial, macs: Mapping[str, int], images: Mapping[str, int]) -> float:
    """Return the MACs of one of a trial's epochs.

    `macs` are those of one image by the cuts' names; `images` the numbers of images by split. Validation is one
    pass, a teacher one per training image. Frozen layers, and features that are kept between epochs, would cost less.
    """
    teachers = macs[cut_of_key(trial.teacher)] * images["train"] if trial.teacher is not None else 0.0
    return cut_macs(macs[trial.cut], images) + teachers


def cut_macs(macs: int, images: Mapping[str, int]) -> float:
    """Return the MACs of an epoch of a model that takes `macs` for an image: training steps, then validation."""
    return macs * (_STEP * images["train"] + images["val"])
