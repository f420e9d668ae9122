"""What a run's models start from."""

from dataclasses import dataclass

from ttl_deploy.records.models import InputConvention


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Whether a weights file holds everything a cut's trunk needs.

    `tensors` counts those the trunk takes from it, BatchNorm's step counters left out; `reason` says
    why the trunk is not covered.
    """

    cut: str
    covered: bool
    tensors: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsUsed:
    """`weights.json` of a run folder: what was loaded, from where, and what was changed to make it fit.

    Attributes:
        weights: what the user gave: `imagenet`, `none` or a file.
        url: where a published file comes from; empty for the user's own files.
        path: absolute path of the file that was read; empty without one.
        sha256: of that file.
        changes: what had to be adapted, in words.
        file_input: how images were brought to the network that the file is from.
        input: how they are brought to the run's networks.
        input_in_words: the same as a sentence.
        note: what trials note as their start where no file is read, otherwise empty.
        cuts: how far the file covers each cut's trunk.
    """

    weights: str
    url: str = ""
    path: str = ""
    sha256: str = ""
    changes: tuple[str, ...] = ()
    file_input: InputConvention
    input: InputConvention
    input_in_words: str
    note: str = ""
    cuts: tuple[Coverage, ...] = ()
