"""Specks of chalk in a breast, two by two, side by side or one above the other: a task whose depth is known.

The two specks of a pair are 5/16 of the film's side apart. On a normal film they lie side by side, with
a finding one above the other. Let D be that distance in pixels. The left (upper) speck lies anywhere in
the left (upper) half of a square of 2D × 2D in the film's centre, and its partner D further in the other
half. So each place of the square holds a speck in one of the 2D² placements of a pair, whichever way it
lies, and no window of `find_blind_side` pixels holds parts of both specks. It follows that

1. what such a window shows of a pair has the same distribution in both classes, wherever on the film the
   window is, also at the film's border;
2. so has what it shows of the whole film: the pairs of a film are placed independently of each other, and
   all else (their number, brightness, tissue, exposure, noise) does not depend on the class.

Take a network whose last map before average pooling sees no more than such a window. Strides, padding and
all, each position's expected value is then the same in both classes, and with it the expected pooled
feature. Where the means of the classes are equal, cross-entropy over a linear head with a bias is least
for weights of zero: it is convex, and its gradient there is the difference of the means. So nothing can be
learned but the classes' shares. Moving, turning and mirroring films in training changes nothing of this.
Scaling them down does where it brings specks nearer to each other than the window is wide, but the films
that are scored are as they were drawn. Max pooling or a deeper head can tell more than chance, by how
often two windows show something on the same film.

A network that sees more can be right, but need not be: the outermost pixels of a receptive field weigh
little, and how specks lie to each other is learned late. For MobileNetV2 and films of 96 pixels D is 30 and
the blind side 28, between `features.4` (27 pixels) and `features.5` (43). Test AUROC, on 465 films of 180
patients, after `ttl-deploy search --policy exhaustive --backbone mobilenet_v2 --weights FILE --epochs 5
--data 'phantom:pair?patients=600&size=96&seed=1' --image-size 96` with these `--cuts`, one training each:

    features.2   0.440 [0.382, 0.498]        features.8   0.884 [0.852, 0.912]
    features.4   0.436 [0.378, 0.499]        features.9   0.974 [0.963, 0.984]
    features.6   0.524 [0.450, 0.605]        features.11  0.984 [0.975, 0.991]
    features.7   0.572 [0.510, 0.632]        full         0.973 [0.961, 0.983]

The first two are chance: noise and brightness are a patient's own, so 180 patients leave about 0.04 either
way.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.data.phantom.greys import Plane, band_noise, expose

_DISTANCE = 5 / 16
_SPECK_RADIUS = 1 / 48
_TURNED_SHARE = 0.05  # of all pairs, so that the classes overlap

Place = tuple[int, int]
"""Row and column of a pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreastPatient:
    """What stays the same from film to film."""

    views: ClassVar[tuple[str, str]] = ("CC", "MLO")
    sex: ClassVar[str] = "F"

    positive: bool
    density: float
    coarseness: float  # wavelength of the largest clouds, in halves of the film
    brightness: float

    def draw_film(self, *, view: str, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Draw one film, `(size, size)`, with two or three pairs; a magnification looks the same in every view."""
        dense = self.density + 0.03 * _tissue(size, coarseness=self.coarseness, rng=rng)
        for _ in range(int(rng.integers(2, 4))):
            turned = bool(rng.random() < _TURNED_SHARE)
            number = int(rng.integers(count_placements(size)))
            for place in place_pair(number, size=size, upright=self.positive != turned):
                dense += self.brightness * draw_speck(place, size=size)
        return expose(dense, rng)


def meet_breast_patient(*, positive: bool, rng: np.random.Generator) -> BreastPatient:
    """Draw a patient at random."""
    return BreastPatient(
        positive=positive,
        density=rng.uniform(0.35, 0.5),
        coarseness=rng.uniform(0.8, 1.25),
        brightness=0.5 * float(np.exp(rng.normal(0, 0.3))),
    )


def find_distance(size: int) -> int:
    """Return how far apart the specks of a pair are, in pixels from centre to centre."""
    return round(size * _DISTANCE)


def find_blind_side(size: int) -> int:
    """Return the side in pixels of the largest window that never holds parts of both specks of a pair."""
    reach = math.ceil(size * _SPECK_RADIUS) - 1
    return find_distance(size) - 2 * reach


def count_placements(size: int) -> int:
    """Return in how many ways a pair that lies side by side can be placed; as many as for one that stands."""
    return 2 * find_distance(size) ** 2


def place_pair(number: int, *, size: int, upright: bool) -> tuple[Place, Place]:
    """Return where the specks of a placement are, `number` being 0 to `count_placements(size)` - 1."""
    distance = find_distance(size)
    margin = size // 2 - distance
    across, along = (margin + step for step in divmod(number, distance))
    if upright:
        return (along, across), (along + distance, across)
    return (across, along), (across, along + distance)


def draw_speck(place: Place, *, size: int) -> Plane:
    """Draw a speck of height 1, `(size, size)`; it is 0 from its radius on, so that its reach is known."""
    rows, columns = np.ogrid[:size, :size]
    squares = (rows - place[0]) ** 2 + (columns - place[1]) ** 2
    speck: Plane = np.clip(1 - squares / (size * _SPECK_RADIUS) ** 2, 0, None)
    return speck


def _tissue(size: int, *, coarseness: float, rng: np.random.Generator) -> Plane:
    """Draw clouds whose height falls with their wavelength, as in breast tissue."""
    clouds = np.zeros((size, size))
    for share in (1.0, 0.5, 0.25):
        clouds += share * band_noise(size, wavelength=share * coarseness, rng=rng)
    return clouds
