"""The films of a drawn data set, patient by patient, and the table of their labels.

What the kinds are for:

* `texture`: a fine interstitial pattern in one zone of a lung. Statistics of neighbouring pixels
  decide, so a shallow cut is enough.
* `blob`: one to three round nodules, among small dense dots and wide haze that both classes show.
  The middle scale decides.
* `shape`: the heart's apex and the stomach's bubble of gas lie on opposite sides (heterotaxy). Each
  alone looks the same in both classes and points left as often as right, so only their relation
  across the film decides.
* `pair`: specks of chalk in a breast, two by two at a fixed distance: side by side, or one above the
  other. What is seen through a window smaller than that distance is the same in both classes, so the
  receptive fields of a network say from which cut on it can be right at all (`phantom/pairs.py`).

Every kind is drawn so that the classes overlap: no classifier reaches an AUROC of 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.data.phantom.chest import meet_chest_patient
from ttl_deploy.data.phantom.pairs import meet_breast_patient
from ttl_deploy.records.data import Split

PHANTOM_VERSION = 1
"""Raised with every change that changes a pixel; part of the drawn data set's folder name."""

PhantomKind = Literal["texture", "blob", "shape", "pair"]
PHANTOM_KINDS: tuple[PhantomKind, ...] = ("texture", "blob", "shape", "pair")
"""A kind's place here is part of the seed of its films: new ones come last."""
_TEST_SHARE = 0.3
_POSITIVE_SHARE = 0.45


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSettings:
    """What to draw: `patients` with one to four films each, `size` pixels a side."""

    kind: PhantomKind = "blob"
    patients: int = 240
    size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not 12 <= self.patients <= 100_000:
            raise ValueError(f"patients = {self.patients}; allowed are 12 to 100000")
        if not 32 <= self.size <= 1024:
            raise ValueError(f"size = {self.size}; allowed are 32 to 1024 pixels")
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed}; allowed are 0 and above")


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomFilm:
    """One drawn film, `pixels` being `(size, size)` uint8, and its row of the label table."""

    path: str
    label: str
    patient_id: str
    split: Split
    view: str
    sex: str
    pixels: NDArray[np.uint8]


class Patient(Protocol):
    """Who is on the films; `views` are the usual and the rarer projection."""

    @property
    def positive(self) -> bool: ...

    @property
    def sex(self) -> str: ...

    @property
    def views(self) -> tuple[str, str]: ...

    def draw_film(self, *, view: str, size: int, rng: np.random.Generator) -> NDArray[np.uint8]: ...


def draw_phantom(settings: PhantomSettings) -> Iterator[PhantomFilm]:
    """Draw all films, patient by patient; the same settings always give the same pixels."""
    rng = np.random.default_rng([PHANTOM_VERSION, PHANTOM_KINDS.index(settings.kind), settings.seed])
    positive = _spread(settings.patients, _POSITIVE_SHARE, rng)
    tested = _spread(settings.patients, _TEST_SHARE, rng)
    for number in range(settings.patients):
        patient = _meet_patient(settings.kind, positive=bool(positive[number]), rng=rng)
        films = int(rng.choice(4, p=(0.25, 0.3, 0.25, 0.2))) + 1
        for film in range(films):
            view = patient.views[int(rng.random() < 0.35)]
            label = "finding" if patient.positive else "normal"
            yield PhantomFilm(
                path=f"images/p{number:05d}_{film}.png",
                label=label,
                patient_id=f"p{number:05d}",
                split="test" if tested[number] else "train",
                view=view,
                sex=patient.sex,
                pixels=patient.draw_film(view=view, size=settings.size, rng=rng),
            )


def _spread(count: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mark exactly a share of `count` patients, in random order."""
    marked = np.arange(count) < round(count * share)
    return rng.permutation(marked)


def _meet_patient(kind: PhantomKind, *, positive: bool, rng: np.random.Generator) -> Patient:
    if kind == "pair":
        return meet_breast_patient(positive=positive, rng=rng)
    return meet_chest_patient(kind, positive=positive, rng=rng)
