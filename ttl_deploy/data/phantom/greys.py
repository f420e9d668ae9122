"""What drawn films of every kind are made of: edges, bumps, noise of one wavelength, and the film itself.

Greys are attenuations; the film's curve, exposure and noise come last.
"""

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float64]
"""A grey for every pixel, `(size, size)`."""


def edge(distance: Plane, width: float) -> Plane:
    """Go smoothly from 0 (negative distance) to 1."""
    risen: Plane = 0.5 * (1 + np.tanh(distance / width))
    return risen


def bump(x: Plane, y: Plane, *, at: tuple[float, float], radius: float) -> Plane:
    """Go smoothly from 1 at a point to 0; `radius` is the standard deviation."""
    risen: Plane = np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * radius**2))
    return risen


def band_noise(size: int, *, wavelength: float, rng: np.random.Generator) -> Plane:
    """Return noise of unit variance around one wavelength, in film units, an octave wide."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]) * size / 2
    octaves = np.log2(np.maximum(frequency, 1e-9) * wavelength)
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * np.exp(-2 * octaves**2)
    noise: Plane = np.fft.irfft2(spectrum, s=(size, size))
    noise /= noise.std()
    return noise


def expose(dense: Plane, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn attenuation into film: exposure, the detector's noise, the film's curve."""
    exposure, contrast = rng.normal(0, 0.045), rng.uniform(0.85, 1.15)
    dose = np.exp(-1.2 * dense)
    noisy = dense + rng.standard_normal(dense.shape) * 0.016 * rng.uniform(0.7, 1.4) / np.sqrt(dose)
    grey = 0.48 + exposure + contrast * (noisy - 0.48)
    return np.clip(255 * edge(grey - 0.5, 0.42) + 0.5, 0, 255).astype(np.uint8)
