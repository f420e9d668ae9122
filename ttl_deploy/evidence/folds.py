"""Scores over the folds of a cross-validation.

Every fold has a model of its own, whose probabilities need not be comparable with another's; so areas are measured
within folds and averaged, never over all images together (Airola et al. 2011, Computational Statistics & Data
Analysis 55:1828, on pooling against averaging). Patients are resampled within their folds. The training sets of two
folds overlap, which intervals over patients do not show: they are somewhat too narrow (Bengio and Grandvalet 2004,
Journal of Machine Learning Research 5:1089).
"""

from collections.abc import Sequence

import numpy as np

from ttl_deploy.evidence.intervals import Resampled
from ttl_deploy.evidence.metrics import Evaluation


def pool(folds: Sequence[Resampled]) -> Resampled:
    """Return the means over folds of a model's metrics, and of their replicates.

    Replicates of different folds are independent where they were drawn with different seeds. A metric that is
    undefined in a fold is undefined.
    """
    metrics = [metric for metric in folds[0].evaluations if all(metric in one.evaluations for one in folds)]
    return Resampled(
        evaluations={metric: _average([one.evaluations[metric] for one in folds]) for metric in metrics},
        replicates={metric: np.mean([one.replicates[metric] for one in folds], axis=0) for metric in metrics},
        images=sum(one.images for one in folds),
        patients=sum(one.patients for one in folds),
    )


def _average(evaluations: Sequence[Evaluation]) -> Evaluation:
    bad = next(((number, one) for number, one in enumerate(evaluations, start=1) if one.value is None), None)
    per_class = tuple(_mean(values) for values in zip(*(one.per_class for one in evaluations), strict=True))
    return Evaluation(
        value=_mean([one.value for one in evaluations]),
        per_class=per_class,
        defined=sum(value is not None for value in per_class),
        reason="" if bad is None else f"in fold {bad[0]}: {bad[1].reason}",
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
