"""Can the label be told from what is not in the picture: the file's size, type or encoding, or its border?

Where it can, the classes probably come from different machines or archives, and a network may learn
to tell those apart instead of the disease.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.data.traits import Traits

TOGETHER = "size, encoding and border together"
TRAIT_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "width": "image width",
        "height": "image height",
        "aspect": "aspect ratio",
        "format": "file type",
        "mode": "colour mode",
        "compression": "JPEG quality",
        "bytes": "bytes per pixel",
        "border": "border brightness",
        "black_border": "black share of the border",
    }
)
"""What is examined, and how it is called in texts."""
OF_CONTENT = (TRAIT_NAMES["bytes"],)
"""Traits that depend on how much detail a picture has as well, however it was encoded: worth knowing, no alarm."""
_MOST_BINS = 10
_PATIENTS_PER_BIN = 20
_FOLDS = 5
_SMOOTHING = 1.0


def cross_validate(
    traits: Traits, labels: NDArray[np.intp], groups: NDArray[np.intp], *, classes: int, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Predict the labels `(n,)` from each trait alone and from all together; each image from the other folds.

    `groups` `(n,)` number the patients, who stay whole. The classifier is naive Bayes on bins, with classes
    in balance: it needs no line between a trait and the label. Returns probabilities `(n, classes)` by name;
    traits that never vary are left out, and those `OF_CONTENT` are not among all together.
    """
    patients = len(np.unique(groups))
    binned = {name: _bin(_column(traits, key), patients=patients) for key, name in TRAIT_NAMES.items()}
    binned = {name: bins for name, bins in binned.items() if bins.max() > 0}
    folds = _divide(groups, seed=seed)
    logs = {name: _score(bins, labels, folds, classes=classes) for name, bins in binned.items()}
    foreign = [values for name, values in logs.items() if name not in OF_CONTENT]
    if len(foreign) > 1:
        logs[TOGETHER] = np.sum(foreign, axis=0)
    return {name: _softmax(values) for name, values in logs.items()}


def _column(traits: Traits, key: str) -> NDArray[np.generic]:
    if key == "aspect":
        return np.asarray(traits["width"] / traits["height"])
    if key == "bytes":
        return np.asarray(traits["size_bytes"] / (traits["width"].astype(np.int64) * traits["height"]))
    return np.asarray(traits[key])


def _bin(values: NDArray[np.generic], *, patients: int) -> NDArray[np.intp]:
    """Number words, and put figures into bins by their rank, equal ones by the middle of their ranks.

    So a value that most images share has a bin apart from those below and above it.
    """
    _, values_of, counts = np.unique(values, return_inverse=True, return_counts=True)
    if values.dtype.kind == "U":
        return np.asarray(values_of)
    bins = min(max(patients // _PATIENTS_PER_BIN, 2), _MOST_BINS)
    middles = (np.cumsum(counts) - counts / 2) / len(values)
    return np.unique((middles * bins).astype(np.intp)[values_of], return_inverse=True)[1].astype(np.intp)


def _divide(groups: NDArray[np.intp], *, seed: int) -> NDArray[np.intp]:
    """Give every image a fold; groups stay whole."""
    names, of_image = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return np.asarray((order % _FOLDS)[of_image])


def _score(
    bins: NDArray[np.intp], labels: NDArray[np.intp], folds: NDArray[np.intp], *, classes: int
) -> NDArray[np.float64]:
    """Return the logarithm of P(bin | class), up to smoothing, as the other folds have it; `(n, classes)`.

    What is added is the same for every class, whatever its size: a bin that the other folds never saw must
    favour none, or the fold's own share of the classes would show.
    """
    scores = np.zeros((len(bins), classes))
    for fold in range(_FOLDS):
        kept = folds != fold
        counts = np.zeros((bins.max() + 1, classes))
        np.add.at(counts, (bins[kept], labels[kept]), 1.0)
        rates = counts / np.maximum(counts.sum(axis=0), 1) + _SMOOTHING / max(int(kept.sum()), 1)
        scores[~kept] = np.log(rates)[bins[~kept]]
    return scores


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def choose_whole(groups: NDArray[np.intp], limit: int, *, seed: int = 0) -> Sequence[int]:
    """Return positions of at most `limit` images, or of one patient: whole patients, drawn at random."""
    names, of_image, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    kept = order[: max(1, int(np.searchsorted(np.cumsum(sizes[order]), limit, side="right")))]
    return [int(position) for position in np.flatnonzero(np.isin(of_image, kept))]
