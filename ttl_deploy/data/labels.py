"""Labels of either kind: one class per image, or a mark for every class."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.records.data import PRESENT, UNKNOWN, Label, Sample


def label_array(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Return class numbers `(n,)`; or marks `(n, classes)`, 1 present, 0 absent, -1 not known."""
    return np.array([sample.label for sample in samples], dtype=np.int64)


def classes_of(label: Label) -> tuple[int, ...]:
    """Return the numbers of the classes that an image is known to have."""
    if isinstance(label, int):
        return (label,)
    return tuple(number for number, mark in enumerate(label) if mark == PRESENT)


def unknown_of(label: Label) -> tuple[int, ...]:
    """Return the numbers of the classes of which it is not known whether an image has them."""
    if isinstance(label, int):
        return ()
    return tuple(number for number, mark in enumerate(label) if mark == UNKNOWN)


def name_label(label: Label, classes: Sequence[str]) -> str:
    """Return the name of an image's class; of several, all that it has, and `?` behind those that are not known."""
    if isinstance(label, int):
        return classes[label]
    named = [
        classes[i] + ("" if mark == PRESENT else "?") for i, mark in enumerate(label) if mark in (PRESENT, UNKNOWN)
    ]
    return ", ".join(named) or "none"
