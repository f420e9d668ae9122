"""What a search trains: its settings, one trial in, one result or failure out."""

import math
from dataclasses import dataclass, field
from typing import Literal

from ttl_deploy.records.candidates import ALL_EXITS, PROBED, Candidate, check_strategies, slug_of
from ttl_deploy.records.data import DecodeSettings, Reading, Split
from ttl_deploy.records.folds import Fold
from ttl_deploy.records.models import IMAGENET_INPUT, InputConvention, ModelSpec, Pool
from ttl_deploy.records.scores import MARGIN, PickRule
from ttl_deploy.records.stages import Stage, check_skip
from ttl_deploy.records.variants import check_axes

Precision = Literal["auto", "fp32", "bf16", "fp16"]
ClassWeights = Literal["balanced", "none"]
Loss = Literal["cross-entropy", "focal"]
Sampling = Literal["shuffled", "balanced"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random changes of training images, made on tensors; zeros switch a change off.

    `rotate_deg` degrees either way; `zoom` and `shift` shares of the image side; `brightness` and
    `contrast` shares of the value range.
    """

    flip: bool = True
    rotate_deg: float = 7.0
    zoom: float = 0.1
    shift: float = 0.05
    brightness: float = 0.1
    contrast: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How a trial learns. `patience` is in epochs, `warmup` a share of all steps.

    `early_stop` by `patience` epochs without a better validation AUROC; 0 never stops early.
    `focal_gamma` counts for the focal loss only. `sampling` is what an epoch shows: `shuffled` every image
    once, `balanced` as many images, of every class equally often. Balanced sampling goes with
    `class_weights="none"` only: both together would count rare classes twice. `ema` is how much of the
    averaged weights stays at each step, 0 for none; `compile` lets torch compile the model for training.
    `joint_teaching` counts where all cuts are trained as one network: how much each exit learns from the
    deepest one, besides the labels.
    """

    epochs: int = 10
    batch_size: int = 32
    lr: float = 5e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    patience: int = 5
    clip_norm: float = 5.0
    label_smoothing: float = 0.0
    class_weights: ClassWeights = "balanced"
    loss: Loss = "cross-entropy"
    focal_gamma: float = 2.0
    sampling: Sampling = "shuffled"
    precision: Precision = "auto"
    threads: int = 1
    augmentation: Augmentation = Augmentation()
    ema: float = 0.0
    compile: bool = False
    joint_teaching: float = 1.0

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 2,
            "lr": self.lr > 0,
            "weight_decay": self.weight_decay >= 0,
            "warmup": 0 <= self.warmup < 1,
            "patience": self.patience >= 0,
            "clip_norm": self.clip_norm > 0,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "threads": self.threads >= 1,
            "ema": 0 <= self.ema < 1,
            "focal_gamma": 0 <= self.focal_gamma < math.inf,
            "joint_teaching": 0 <= self.joint_teaching < math.inf,
        }
        for name, ok in checks.items():
            if not ok:
                raise ValueError(f"{name} = {getattr(self, name)} is out of range")
        if self.sampling == "balanced" and self.class_weights == "balanced":
            raise ValueError(
                "sampling and class_weights are both 'balanced', which counts rare classes twice: "
                "use class_weights 'none' with it, or sampling 'shuffled'"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Everything that decides a search's result; `config.json` of a run folder.

    `cuts` is `stages`, `all`, or names; `weights` is `imagenet`, `none` or a file; `normalise` is `auto`
    (what the weights are used to), a convention's name, or numbers MEAN/STD for pixel values in 0..1.
    `fold` makes the splits those of one fold of a cross-validation. `limit_train` (images) and `train_fraction`
    (share of the patients) use only part of the training split;
    at most one of them is set. Every cut is trained by every one of the `strategies`. `skip` are the stages
    that are left out; `warm_start` lets a guided search begin its finalists with the weights of their exits,
    for fewer epochs. `image_sizes` (pixels, smaller than the decode settings' own), `widths` (shares of the channels)
    and `speedups` (by how much the measured latency shall be divided) are further axes for the finalists: the cut that
    would be chosen and the full network. `margin` is the loss of test AUROC from which on a cut counts as worse than
    the full network.
    """

    backbone: str
    data: str
    weights: str = "imagenet"
    normalise: str = "auto"
    cuts: tuple[str, ...] = ("stages",)
    strategies: tuple[str, ...] = ("full",)
    policy: str = "guided"
    skip: tuple[Stage, ...] = ()
    warm_start: bool = False
    seeds: tuple[int, ...] = (0,)
    decode: DecodeSettings = field(default_factory=lambda: DecodeSettings(image_size=224))
    reading: Reading = field(default_factory=Reading)
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    split_seed: int = 0
    fold: Fold | None = None
    limit_train: int | None = None
    train_fraction: float | None = None
    pool: Pool = "avg"
    dropout: float = 0.1
    train: TrainSettings = TrainSettings()
    profile_target: str = "onnxruntime-cpu"
    profile_seconds: float = 1.0
    pick: PickRule = "smallest-within-interval"
    max_latency_s: float | None = None
    max_params: int | None = None
    max_macs: int | None = None
    margin: float = MARGIN
    image_sizes: tuple[int, ...] = ()
    widths: tuple[float, ...] = ()
    speedups: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.margin < 0.5:
            raise ValueError(
                f"margin = {self.margin}: give a difference in AUROC above 0 and below 0.5, such as {MARGIN}"
            )
        check_axes(self.image_sizes, self.widths, self.speedups, largest=self.decode.image_size)
        if self.speedups and "profile" in self.skip:
            raise ValueError("skip leaves out the profile, so no speed-up can be measured: give width instead")
        check_strategies(self.strategies)
        check_skip(self.skip, policy=self.policy)
        if "profile" in self.skip and self.max_latency_s is not None:
            raise ValueError("skip leaves out the profile, so max_latency cannot be kept: give one of them")
        if self.train_fraction is None:
            return
        if not 0 < self.train_fraction <= 1:
            raise ValueError(f"train_fraction = {self.train_fraction}; allowed are shares above 0 and up to 1")
        if self.limit_train is not None:
            raise ValueError("limit_train and train_fraction both say how much to train on: give one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One training: which model, how, from which seed. A pure function of this record and the data.

    `input` says how images are brought to the model, with one entry per channel that it takes, 1 or 3;
    `weights_input` how they were brought to the network that the weights file is from. `teacher` is the
    key of the trial whose model this one learns from, `start` that of the joint training with whose exit it
    begins, where its strategy wants one; for a joint training it may be `probe`, with whose heads it begins. A
    narrowed model begins with, and learns from, the trial at full width. `variant` is what its cut's name carries
    where its width or image size is not that of the other trials.
    """

    model: ModelSpec
    weights: str
    input: InputConvention = IMAGENET_INPUT
    weights_input: InputConvention = IMAGENET_INPUT
    strategy: str
    seed: int
    train: TrainSettings
    teacher: str | None = None
    start: str | None = None
    variant: str = ""

    @property
    def cut(self) -> str:
        """What the cut is called, with its width and image size where these are not everybody's."""
        return f"{self.model.cut}{self.variant}"

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the trials that must have been trained before."""
        return tuple(dict.fromkeys(key for key in (self.teacher, self.start) if key not in (None, PROBED)))

    @property
    def key(self) -> str:
        """Name of the trial, also its folder: `<cut>__<strategy>__s<seed>`, options joined by dashes.

        With several exits, `all-exits` stands for the cut.
        """
        what = ALL_EXITS if self.model.exits else self.cut
        return f"{what}__{slug_of(self.strategy)}__s{self.seed}"

    @property
    def candidate(self) -> Candidate:
        """What the trial is one training of."""
        return Candidate(self.cut, self.strategy)


def cut_of_key(key: str) -> str:
    """Return what a trial's cut is called, from the trial's key."""
    return key.partition("__")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """One line of `metrics.jsonl`; scores without intervals, times in seconds."""

    epoch: int
    train_loss: float
    val_loss: float
    val_auroc: float | None
    lr: float
    seconds: float
    data_wait_share: float
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """A finished trial. `precision` and `device` are those that really ran.

    `exits` are the trials into which a joint training was divided; its own `val_auroc` is their mean.
    """

    key: str
    cut: str
    strategy: str
    seed: int
    best_epoch: int
    epochs_run: int
    val_auroc: float | None
    params: int
    weights_sha256: str
    weights_note: str
    precision: str
    device: str
    seconds: float
    exits: tuple["TrialResult", ...] = ()

    @property
    def is_joint(self) -> bool:
        """Whether it is of all exits at once, and so no candidate itself."""
        return self.key.startswith(f"{ALL_EXITS}__")

    @property
    def candidate(self) -> Candidate:
        """What the trial was one training of."""
        return Candidate(self.cut, self.strategy)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPause:
    """A trial that rests after `epoch` epochs, to go on later or never.

    `val_auroc` is that of its best epoch so far; `seconds` what it has taken so far.
    """

    key: str
    cut: str
    strategy: str
    seed: int
    epoch: int
    val_auroc: float | None
    seconds: float

    @property
    def predictions(self) -> str:
        """Name of the file in the trial's folder with its validation probabilities at that point."""
        return f"predictions_val-epoch{self.epoch}.npz"

    @property
    def fact(self) -> str:
        """What the ledger knows it by: a trial can rest several times."""
        return f"{self.key}@{self.epoch}"

    @property
    def candidate(self) -> Candidate:
        """What the trial is one training of."""
        return Candidate(self.cut, self.strategy)


FailureKind = Literal["weights", "numerical", "memory", "unsupported", "crash", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFailure:
    """A trial that could not be finished, and why; the search goes on without it."""

    key: str
    cut: str
    strategy: str
    seed: int
    kind: FailureKind
    reason: str

    @property
    def candidate(self) -> Candidate:
        """What the trial was one training of."""
        return Candidate(self.cut, self.strategy)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutProfile:
    """A cut's costs before any training; latency of the exported model, one image, in seconds.

    `latency_noise_s` is the spread between fresh processes; `size_bytes` that of the ONNX file.
    `measured` is when the latency was (UTC, ISO 8601), and `cached` whether an earlier command did it.
    The fields from `stage` to `global_context` are those of `Cut`; None where a run did not record them.
    """

    cut: str
    params: int
    macs: int
    layers: int
    params_share: float
    macs_share: float
    size_bytes: int
    latency_s: float | None
    latency_noise_s: float | None
    note: str = ""
    measured: str = ""
    cached: bool = False
    stage: bool = False
    weights_bytes: int | None = None
    peak_bytes: int | None = None
    receptive_field: int | None = None
    global_context: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """All candidate cuts measured on one target and machine, shallow to deep, the full network last.

    `image_size` in pixels; `notes` say what a reader of the latencies should know.
    """

    target: str
    runtime: str
    precision: str
    threads: int
    batch: int
    machine: str
    cuts: tuple[CutProfile, ...]
    image_size: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TestOpening:
    """A use of the locked test split: by which command, for which trials."""

    split: Split
    command: str
    trials: tuple[str, ...]
