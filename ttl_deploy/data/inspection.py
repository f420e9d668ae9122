"""From a manifest and a look at its files to what they hold: counts, sizes, brightness, copies."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.data import near_duplicates
from ttl_deploy.data.labels import classes_of, name_label
from ttl_deploy.data.traits import Traits
from ttl_deploy.plugins import Progress
from ttl_deploy.records.data import SPLITS, Label, Manifest, Sample
from ttl_deploy.records.inspection import Brightness, ExactCopies, ImageSizes, NearDuplicates, NearPair, Spread

_KEPT_PAIRS = 1000
_ENOUGH_PAIRS = 100_000
_LEAST_CONTRAST = 4  # grey values between the darkest and the brightest; below it a hash is of noise


def measure_spread(values: Sequence[float] | NDArray[np.integer]) -> Spread:
    """Return smallest, middle and largest of at least one number."""
    return Spread(smallest=float(np.min(values)), median=float(np.median(values)), largest=float(np.max(values)))


def count_images_per_patient(manifest: Manifest) -> Spread:
    """Return how many images patients have."""
    return measure_spread(list(Counter(sample.patient_id for sample in manifest.samples).values()))


def measure_sizes(traits: Traits, *, image_size: int) -> ImageSizes:
    """Return the spread of widths and heights."""
    sizes = np.stack((traits["width"], traits["height"]), axis=1)
    return ImageSizes(
        width=measure_spread(sizes[:, 0]),
        height=measure_spread(sizes[:, 1]),
        distinct=len(np.unique(sizes, axis=0)),
        image_size=image_size,
        enlarged=int((sizes.max(axis=1) < image_size).sum()),
    )


def count_words(values: NDArray[np.str_]) -> dict[str, int]:
    """Count words, the most frequent first."""
    return dict(Counter(values.tolist()).most_common())


def measure_brightness(manifest: Manifest, positions: NDArray[np.intp], traits: Traits) -> tuple[Brightness, ...]:
    """Return the grey values of every split and class; `traits` are those of the samples at `positions`."""
    samples = [manifest.samples[position] for position in positions]
    found = []
    for split in SPLITS:
        for number, label in enumerate(manifest.classes):
            chosen = traits[[sample.split == split and number in classes_of(sample.label) for sample in samples]]
            some = len(chosen) > 0
            found.append(
                Brightness(
                    split=split,
                    label=label,
                    images=len(chosen),
                    darkest=int(chosen["darkest"].min()) if some else None,
                    brightest=int(chosen["brightest"].max()) if some else None,
                    mean=float(chosen["mean"].mean(dtype=np.float64)) if some else None,
                )
            )
    return tuple(found)


def count_copies(manifest: Manifest) -> ExactCopies:
    """Count groups of byte-identical files; without known patients none is across patients."""
    by_content: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in manifest.samples:
        by_content[sample.sha256].append(sample)
    groups = [same for same in by_content.values() if len(same) > 1]
    return ExactCopies(
        groups=len(groups),
        across_patients=sum(len({sample.patient_id for sample in same}) > 1 for same in groups),
        across_labels=sum(len({sample.label for sample in same}) > 1 for same in groups),
    )


def find_near_duplicates(
    manifest: Manifest, looks: Mapping[int, Traits], *, progress: Progress | None = None
) -> NearDuplicates:
    """Find nearly equal pictures in different splits, of different patients or with different labels.

    `looks` has the traits of the samples that decode, by position. Byte-identical files count as one.
    """
    first = {manifest.samples[position].sha256: position for position in sorted(looks, reverse=True)}
    distinct = sorted(first.values())
    shown = [position for position in distinct if _shows_something(looks[position])]
    pairs, matches, complete = _compare(manifest, shown, looks, progress=progress)
    level = near_duplicates.choose_level(matches, images=len(shown))
    kept = np.flatnonzero(matches >= level)
    best = kept[np.argsort(-matches[kept], kind="stable")]
    twos = [(manifest.samples[a], manifest.samples[b]) for a, b in pairs[best]]
    return NearDuplicates(
        images=len(shown),
        blank=len(distinct) - len(shown),
        across_splits=sum(a.split != b.split for a, b in twos),
        across_patients=sum(manifest.patients_known and a.patient_id != b.patient_id for a, b in twos),
        across_labels=sum(a.label != b.label for a, b in twos),
        pairs=tuple(
            _pair(manifest, a, b, match=float(match))
            for (a, b), match in zip(twos[:_KEPT_PAIRS], matches[best[:_KEPT_PAIRS]], strict=True)
        ),
        least_match=level,
        complete=complete,
    )


def _compare(
    manifest: Manifest, shown: Sequence[int], looks: Mapping[int, Traits], *, progress: Progress | None
) -> tuple[NDArray[np.intp], NDArray[np.float64], bool]:
    """Return pairs of positions `(m, 2)` within the radius that matter, their matches, and whether these are all."""
    pairs, matches = [np.empty((0, 2), np.intp)], [np.empty(0)]
    if not shown:
        return pairs[0], matches[0], True
    traits = np.stack([looks[position] for position in shown])
    kinds = _kinds(manifest, shown)
    for close in near_duplicates.find_close(traits["hash"], progress=progress):
        told = close[(kinds[close[:, 0]] != kinds[close[:, 1]]).any(axis=1)]
        pairs.append(np.asarray(shown)[told])
        matches.append(near_duplicates.match(traits["thumbnail"][told[:, 0]], traits["thumbnail"][told[:, 1]]))
        if sum(map(len, matches)) >= _ENOUGH_PAIRS:
            return np.concatenate(pairs), np.concatenate(matches), False
    return np.concatenate(pairs), np.concatenate(matches), True


def _shows_something(look: Traits) -> bool:
    return int(look["brightest"]) - int(look["darkest"]) >= _LEAST_CONTRAST


def _kinds(manifest: Manifest, positions: Sequence[int]) -> NDArray[np.intp]:
    """Return split, patient and label of each sample as numbers, `(n, 3)`; one patient where none is known."""
    samples = [manifest.samples[position] for position in positions]
    patients = [sample.patient_id if manifest.patients_known else "" for sample in samples]
    return np.stack(
        (
            [SPLITS.index(sample.split) for sample in samples],
            np.unique(patients, return_inverse=True)[1],
            _number_labels(samples),
        ),
        axis=1,
    )


def _number_labels(samples: Sequence[Sample]) -> NDArray[np.intp]:
    """Give equal labels equal numbers, `(n,)`."""
    numbers: dict[Label, int] = {}
    return np.array([numbers.setdefault(sample.label, len(numbers)) for sample in samples], dtype=np.intp)


def _pair(manifest: Manifest, a: Sample, b: Sample, *, match: float) -> NearPair:
    return NearPair(
        paths=(a.path, b.path),
        splits=(a.split, b.split),
        labels=(name_label(a.label, manifest.classes), name_label(b.label, manifest.classes)),
        patients=(a.patient_id, b.patient_id),
        match=match,
    )
