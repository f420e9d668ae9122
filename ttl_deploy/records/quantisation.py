"""How a model was finetuned for the 8-bit numbers of its file."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuning:
    """Quantisation-aware finetuning of a trained model, whose weights are then no longer exactly the trial's.

    Attributes:
        epochs, best_epoch: how many were learnt, and after which the weights were kept, counted from 1.
        lr, temperature, seed: peak rate, temperature of the teacher's logits, seed of order and augmentation.
        images: training images of an epoch.
        auroc_before: of the model with rounding, on validation, before anything was learnt; None where undefined.
        auroc_after: the same after each epoch.
        weights: file of the finetuned weights in single precision, in the run folder.
        weights_sha256: its hash.
    """

    epochs: int
    best_epoch: int
    lr: float
    temperature: float
    seed: int
    images: int
    auroc_before: float | None
    auroc_after: tuple[float | None, ...]
    weights: str
    weights_sha256: str

    def __post_init__(self) -> None:
        if not 1 <= self.best_epoch <= self.epochs:
            raise ValueError(f"best_epoch = {self.best_epoch} is none of the {self.epochs} epochs")
