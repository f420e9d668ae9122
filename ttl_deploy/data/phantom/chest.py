"""Chest radiographs, with a finding in the texture, in round shapes, or in how two organs lie to each other.

Coordinates are those of the film, x and y from -1 to 1, y pointing down, the patient's right side
at the left.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.data.phantom.greys import Plane, band_noise, bump, edge, expose

ChestKind = Literal["texture", "blob", "shape"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChestPatient:
    """What stays the same from film to film."""

    views: ClassVar[tuple[str, str]] = ("PA", "AP")

    kind: ChestKind
    positive: bool
    female: bool
    thorax: float  # half width
    heart: float  # cardiothoracic ratio: the heart's width as a share of the thorax's
    heart_density: float
    apex: int  # side of the heart's apex, 1 being the patient's left
    bubble: int  # side of the stomach's gas
    tilt: float  # how much higher the diaphragm stands on the patient's right
    rib_spacing: float
    rib_phase: float
    fat: float
    severity: float  # amplitude of the finding
    side: int
    zone: float  # height of the finding
    seed: int

    @property
    def sex(self) -> str:
        return "F" if self.female else "M"

    def draw_film(self, *, view: str, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Draw one film, `(size, size)`."""
        x, y = _film_coordinates(size, rng)
        lungs = _lungs(x, y, self)
        dense = _body(x, y, self) - 0.62 * lungs
        dense += _heart(x, y, self, view=view) - _bubble(x, y, self, rng)
        dense += _spine(x, y) + _bones(x, y, self) + _vessels(lungs, x, y, rng)
        if self.female:
            dense += _breasts(x, y, self)
        dense += _everyday_shadows(lungs, x, y, rng)
        if self.positive and self.kind == "texture":
            dense += _interstitium(lungs, x, y, self, rng)
        if self.positive and self.kind == "blob":
            dense += _nodules(lungs, x, y, self)
        return expose(dense, rng)


def meet_chest_patient(kind: ChestKind, *, positive: bool, rng: np.random.Generator) -> ChestPatient:
    """Draw a patient at random."""
    apex = int(rng.choice((-1, 1))) if kind == "shape" else 1
    return ChestPatient(
        kind=kind,
        positive=positive,
        female=bool(rng.random() < 0.5),
        thorax=rng.uniform(0.6, 0.8),
        heart=float(np.clip(rng.normal(0.47, 0.035), 0.35, 0.6)),
        heart_density=rng.uniform(0.28, 0.46),
        apex=apex,
        bubble=-apex if kind == "shape" and positive else apex,
        tilt=rng.normal(0, 0.03),
        rib_spacing=rng.uniform(0.15, 0.185),
        rib_phase=rng.uniform(0, 1),
        fat=rng.uniform(0.7, 1.2),
        severity=float(np.exp(rng.normal(0, 0.45))),
        side=int(rng.choice((-1, 1))),
        zone=rng.uniform(-0.35, 0.3),
        seed=int(rng.integers(1 << 31)),
    )


def _film_coordinates(size: int, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Place the patient: shifted, turned and scaled a little."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(axis + rng.normal(0, 0.035), axis + rng.normal(0, 0.04))
    angle, zoom = rng.normal(0, 0.035), rng.uniform(0.92, 1.08)
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    return cosine * x + sine * y, cosine * y - sine * x


def _body(x: Plane, y: Plane, patient: ChestPatient) -> Plane:
    """Draw neck, shoulders and trunk."""
    shoulder = patient.thorax + 0.34
    half_width = 0.24 + (shoulder - 0.24) * edge(y + 0.83 - 0.12 * np.abs(x), 0.09)
    trunk = edge(half_width - np.abs(x), 0.04)
    return trunk * (0.66 + 0.1 * patient.fat * edge(y - 0.35, 0.4))


def _lungs(x: Plane, y: Plane, patient: ChestPatient) -> Plane:
    """Return how much of the beam's way is air, 0 to 1."""
    lungs = np.zeros_like(x)
    for side in (-1, 1):
        across = side * x / patient.thorax
        top = edge(y + 0.78 - 1.5 * (across - 0.42) ** 2, 0.05)
        dome = 0.46 + side * patient.tilt + 0.45 * (across - 0.4) ** 2 * np.sign(across - 0.4)
        bottom = edge(dome - y, 0.035)
        outer = 0.99 - 0.32 * np.clip(-0.15 - y, 0, None) ** 1.4 - 0.05 * np.clip(y, 0, None)
        lungs += edge(outer - across, 0.045) * edge(across - 0.13, 0.035) * top * bottom
    return lungs


def _heart(x: Plane, y: Plane, patient: ChestPatient, *, view: str) -> Plane:
    """Draw heart and mediastinum; two thirds of the heart's width lie on the side of its apex."""
    half = patient.thorax * patient.heart * (1.06 if view == "AP" else 1.0)
    off_centre = patient.apex * x - half / 3
    tilted = y - 0.24 - 0.25 * off_centre
    heart = edge(1 - (off_centre / half) ** 2 - (tilted / (0.75 * half + 0.06)) ** 2, 0.14)
    vessels = edge(0.105 + 0.03 * np.cos(6 * y + 1.5) - np.abs(x - 0.015), 0.035) * edge(0.4 - y, 0.2)
    return patient.heart_density * heart + 0.2 * vessels * (1 - 0.6 * heart)


def _bubble(x: Plane, y: Plane, patient: ChestPatient, rng: np.random.Generator) -> Plane:
    """Draw the stomach's gas below the diaphragm; on some films there is next to none."""
    gas = rng.uniform(0.12, 0.4) if rng.random() < 0.9 else 0.0
    across = patient.bubble * x - rng.uniform(0.33, 0.43)
    reach = (across / rng.uniform(0.13, 0.19)) ** 2 + ((y - rng.uniform(0.69, 0.75)) / 0.085) ** 2
    return gas * edge(1 - reach, 0.35)


def _spine(x: Plane, y: Plane) -> Plane:
    vertebrae: Plane = 0.75 + 0.25 * np.tanh(3 * np.sin(2 * np.pi * y / 0.17))
    return 0.1 * vertebrae * edge(0.075 - np.abs(x), 0.03)


def _bones(x: Plane, y: Plane, patient: ChestPatient) -> Plane:
    """Draw posterior and anterior ribs and the clavicles."""
    across = np.abs(x) / patient.thorax
    cage = edge(1.03 - across, 0.03) * edge(across - 0.1, 0.05) * edge(y + 0.8 - 0.4 * across**2, 0.04)
    cage = cage * edge(0.72 - y, 0.06)
    posterior = _rib_row(y + 0.16 * np.cos(1.9 * (across - 0.35)), patient, sharpness=2.2)
    anterior = _rib_row(y - 0.34 * (across - 0.2) + 0.4, patient, sharpness=1.6) * edge(across - 0.35, 0.1)
    collar = np.abs(y + 0.67 + 0.1 * across + 0.05 * np.sin(5 * across))
    clavicles = edge(0.03 - collar, 0.018) * edge(across - 0.12, 0.03) * edge(1.25 - across, 0.04)
    return cage * (0.13 * posterior + 0.06 * anterior) + 0.13 * clavicles


def _rib_row(height: Plane, patient: ChestPatient, *, sharpness: float) -> Plane:
    wave = np.sin(2 * np.pi * (height / patient.rib_spacing + patient.rib_phase))
    return edge(sharpness * (wave - 0.15), 1.0)


def _breasts(x: Plane, y: Plane, patient: ChestPatient) -> Plane:
    shadow = np.zeros_like(x)
    for side in (-1, 1):
        reach = ((side * x - 0.5) / 0.36) ** 2 + ((y - 0.2) / 0.34) ** 2
        shadow += 0.07 * patient.fat * edge(1 - reach, 0.25)
    return shadow


def _vessels(lungs: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """Draw hila and vascular markings, which fade towards the periphery."""
    hila = sum(bump(x, y, at=(side * 0.2, -0.05), radius=0.1) for side in (-1, 1))
    size = x.shape[0]
    streaks = band_noise(size, wavelength=0.22, rng=rng) + 0.6 * band_noise(size, wavelength=0.12, rng=rng)
    fade = np.exp(-np.abs(np.abs(x) - 0.2) / 0.35)
    return 0.16 * hila * lungs + 0.028 * streaks * fade * lungs


def _everyday_shadows(lungs: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> Plane:
    """Draw what both classes have: calcified dots and wide haze."""
    shadow = np.zeros_like(x)
    for _ in range(rng.poisson(1.5)):
        shadow += 0.22 * bump(x, y, at=_place_in_lung(rng), radius=rng.uniform(0.014, 0.022))
    for _ in range(rng.poisson(1.2)):
        shadow += rng.uniform(0.04, 0.1) * bump(x, y, at=_place_in_lung(rng), radius=rng.uniform(0.2, 0.3))
    return shadow * lungs


def _place_in_lung(rng: np.random.Generator) -> tuple[float, float]:
    return float(rng.choice((-1, 1))) * rng.uniform(0.24, 0.55), rng.uniform(-0.5, 0.35)


def _interstitium(lungs: Plane, x: Plane, y: Plane, patient: ChestPatient, rng: np.random.Generator) -> Plane:
    """Draw a net of fine lines in one zone."""
    zone = np.exp(-(((x - 0.42 * patient.side) / 0.3) ** 2) - ((y - patient.zone) / 0.34) ** 2)
    net = band_noise(x.shape[0], wavelength=0.085, rng=rng)
    return 0.14 * patient.severity * np.abs(net) * zone * lungs


def _nodules(lungs: Plane, x: Plane, y: Plane, patient: ChestPatient) -> Plane:
    """Draw nodules that stay in place from film to film."""
    own = np.random.default_rng(patient.seed)
    shadow = np.zeros_like(x)
    for _ in range(int(own.integers(1, 4))):
        at, radius = _place_in_lung(own), own.uniform(0.075, 0.11)
        reach = np.hypot(x - at[0], y - at[1])
        shadow += 0.19 * patient.severity * edge(radius - reach, 0.03)
    return shadow * (0.25 + 0.75 * lungs)
