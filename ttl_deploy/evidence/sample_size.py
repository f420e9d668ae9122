"""How many patients a verdict takes: formulas alone."""

import math
from statistics import NormalDist

POWER = 0.8
_NORMAL = NormalDist()


def patients_to_exclude(share: float, *, alpha: float) -> int:
    """Return how many patients make a flaw that hits a `share` of them go unseen with probability alpha at most.

    A model that loses this share of the positives entirely has an AUROC lower by it, yet with fewer patients
    often none of them is in the sample, and no resample can tell: (1 - share)^n <= alpha.
    """
    return math.ceil(math.log(alpha) / math.log1p(-share))


def needed_factor(standard_error: float, distance: float, *, alpha: float, power: float = POWER) -> float:
    """Return how many times the patients a one-sided test needs, so that it rejects with probability `power`.

    `distance` is from the true difference to the margin, above 0; the standard error falls with the square root
    of the patients, and the difference is taken as normal (Chow et al. 2017, Sample Size Calculations, section 3.2).
    """
    quantiles = _NORMAL.inv_cdf(1 - alpha) + _NORMAL.inv_cdf(power)
    return (standard_error * quantiles / distance) ** 2
