"""What a linear classifier reads at every cut of the frozen backbone."""

from dataclasses import dataclass

from ttl_deploy.records.scores import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeScore:
    """One cut's probe.

    Attributes:
        features: how many numbers per image it reads.
        cv_auroc: macro AUROC on the training images, each scored by the folds without its patient; None
            where it is undefined.
        validation: AUROC on the validation images, with its interval.
        penalty: the ridge penalty per image that gave the best `cv_auroc`.
    """

    cut: str
    features: int
    cv_auroc: float | None
    validation: Score
    penalty: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """All cuts probed with the features of one forward pass.

    `train_images` and `val_images` say how many were used; `macs` what the pass cost in all, multiply-accumulates;
    `seconds` how long the pass and the fits took.
    """

    cuts: tuple[ProbeScore, ...]
    train_images: int
    val_images: int
    macs: int
    seconds: float
