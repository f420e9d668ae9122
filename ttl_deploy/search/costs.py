"""What trainings cost, in multiply-accumulates: before they are made, and afterwards by the epochs they took."""

from collections.abc import Mapping

from ttl_deploy.records.models import FULL
from ttl_deploy.records.trials import Trial

_STEP = 3.0
"""Passes that a training step is worth: one forward, and backward about two (each product has two factors)."""


def trial_macs(
    trial: Trial, macs: Mapping[str, int], images: Mapping[str, int], *, epochs: float | None = None
) -> float:
    """Return the MACs of a trial's epochs, all that it is allowed unless `epochs` says how many.

    `macs` are those of one image by cut; `images` the numbers of images by split. Validation is one pass per epoch,
    a teacher one per training image. Frozen layers, and features that are kept between epochs, would cost less.
    """
    own = macs[trial.model.cut] * (_STEP * images["train"] + images["val"])
    teachers = macs[FULL] * images["train"] if trial.teacher is not None else 0.0
    return (trial.train.epochs if epochs is None else epochs) * (own + teachers)
