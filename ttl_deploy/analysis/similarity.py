"""How alike two sets of features are: SVCCA and debiased linear CKA, in double precision.

SVCCA is Raghu et al. 2017 (arXiv 1706.05806), as Raghu et al. 2019 (arXiv 1902.07208) use it; debiased CKA is
Kornblith et al. 2019 (arXiv 1905.00414) with the unbiased HSIC of Song et al. 2012, equation 5.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating]
VARIANCE_SHARE = 0.99
FEWEST_IMAGES = 4
"""The unbiased HSIC divides by the number of images less three."""
_FLAT = 1e-12
"""A variance below this share of the features' mean square is rounding, not variation."""


@dataclass(frozen=True, slots=True)
class Directions:
    """An orthonormal basis `(n, k)` of the leading singular directions of centred features; none where all is flat."""

    basis: NDArray[np.float64]

    @property
    def samples(self) -> int:
        """How many samples the features had."""
        return len(self.basis)

    @property
    def count(self) -> int:
        """How many directions were kept."""
        return int(self.basis.shape[1])


def find_directions(features: Features, *, variance_share: float = VARIANCE_SHARE) -> Directions:
    """Keep the fewest singular directions of features `(n, d)` that hold this share of their variance."""
    given = np.asarray(features, dtype=np.float64)
    centred = given - given.mean(axis=0)
    squares, axes = np.linalg.eigh(centred.T @ centred)  # ascending
    squares, axes = np.maximum(squares[::-1], 0), axes[:, ::-1]
    if squares.sum() <= _FLAT * max(float((given**2).sum()), np.finfo(float).tiny):
        return Directions(np.empty((len(given), 0)))
    held = np.cumsum(squares) / squares.sum()
    count = int(np.searchsorted(held, variance_share - 1e-12)) + 1
    # What is kept explains at least (1 - share) / d of the variance, so nothing is divided by rounding noise.
    return Directions((centred @ axes[:, :count]) / np.sqrt(squares[:count]))


def correlate(one: Directions, other: Directions) -> NDArray[np.float64]:
    """Return the canonical correlations of two spaces, largest first: the cosines of their principal angles."""
    cosines = np.linalg.svd(one.basis.T @ other.basis, compute_uv=False)
    return np.minimum(np.asarray(cosines, dtype=np.float64), 1.0)


def explain_undefined(one: Directions, other: Directions) -> str:
    """Say why two spaces have no meaningful canonical correlations; nothing where they have.

    Spaces whose dimensions add up to the number of samples (less the mean) must share directions, whatever they hold.
    """
    if not one.count or not other.count:
        return "the features are the same for all images"
    if one.count + other.count >= one.samples - 1:
        return f"{one.samples} samples are too few for {one.count} + {other.count} directions"
    return ""


def correlate_noise(samples: int, counts: tuple[int, int], *, seed: int) -> NDArray[np.float64]:
    """Return the canonical correlations of Gaussian noise with as many samples and directions."""
    drawn = np.random.default_rng(seed)
    noise = [drawn.standard_normal((samples, count)) for count in counts]
    return correlate(*(Directions(np.linalg.qr(one - one.mean(axis=0))[0]) for one in noise))


def noise_edge(samples: int, counts: tuple[int, int]) -> float:
    """Return the largest canonical correlation that Gaussian noise is expected to have (Wachter 1980)."""
    y1, y2 = (count / samples for count in counts)
    return 1.0 if y1 + y2 >= 1 else float(np.sqrt(y1 * (1 - y2)) + np.sqrt(y2 * (1 - y1)))


def debiased_cka(x: Features, y: Features) -> float | None:
    """Return the debiased linear CKA of features `(n, p)` and `(n, q)`; None where one of them does not vary.

    1 for features that agree up to rotation and scale, 0 in the mean for independent ones, also where n < p.
    """
    one, other = _gram(x), _gram(y)
    own = _hsic(one, one), _hsic(other, other)
    scale = [_FLAT * float((np.asarray(given, dtype=np.float64) ** 2).sum(1).mean()) ** 2 for given in (x, y)]
    if any(value <= least for value, least in zip(own, scale, strict=True)):
        return None
    return _hsic(one, other) / float(np.sqrt(own[0] * own[1]))


def _gram(features: Features) -> NDArray[np.float64]:
    """Return the Gram matrix `(n, n)` with a diagonal of zeros; centring changes nothing but the rounding."""
    given = np.asarray(features, dtype=np.float64)
    centred = given - given.mean(axis=0)
    found: NDArray[np.float64] = centred @ centred.T
    np.fill_diagonal(found, 0)
    return found


def _hsic(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the unbiased HSIC of two Gram matrices with a diagonal of zeros (Song et al. 2012, equation 5)."""
    n = len(one)
    rows = one.sum(axis=0), other.sum(axis=0)
    product = float((one * other).sum())
    sums = float(rows[0].sum() * rows[1].sum()) / ((n - 1) * (n - 2))
    cross = 2 * float(rows[0] @ rows[1]) / (n - 2)
    return (product + sums - cross) / (n * (n - 3))
