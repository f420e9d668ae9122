"""Everything to know of a data set before a search is begun; needs no torch."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.data import confounding, inspection
from ttl_deploy.data.labels import label_array
from ttl_deploy.data.manifest import prepare
from ttl_deploy.data.manifest_files import fingerprint
from ttl_deploy.data.traits import Traits, look_at
from ttl_deploy.errors import UnreadableImageError
from ttl_deploy.evidence import intervals
from ttl_deploy.plugins import Progress
from ttl_deploy.records.data import PRESENT, DataWarning, Manifest, Reading
from ttl_deploy.records.inspection import Confounding, Inspection, NearDuplicates, TraitScore, Unreadable
from ttl_deploy.runtime.machine import usable_cores

ALARM_AUROC = 0.7
ALARM_LOW = 0.6
"""A trait is alarming from this AUROC on, if its interval lies above this bound as well."""
_LEAST_PATIENTS = 10  # in at least two classes: with fewer, resamples agree on chance too often
_EXAMINED = 20_000
_REPLICATES = 500


def inspect_data(
    data: str,
    *,
    reading: Reading,
    val_fraction: float,
    test_fraction: float,
    split_seed: int,
    image_size: int,
    progress: Progress,
) -> Inspection:
    """Read, check and split the data as a search does, then look at every file once.

    Raises what a search would: `LeakageError`, `LabelError` and the others of `data.prepare`. Files that do not
    decode are listed; `UnreadableImageError` is raised where none does.
    """
    manifest = prepare(
        data,
        reading=reading,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        split_seed=split_seed,
        progress=progress,
    )
    paths = [sample.path for sample in manifest.samples]
    looks, failures = look_at(Path(manifest.root), paths, workers=usable_cores(), progress=progress)
    if not looks:
        raise UnreadableImageError(f"none of the {len(paths)} images of {data} can be read; such as: {failures[0]}")
    return _assemble(manifest, looks, failures, image_size=image_size, max_bad=reading.max_bad, progress=progress)


def _assemble(
    manifest: Manifest,
    looks: Mapping[int, Traits],
    failures: Mapping[int, str],
    *,
    image_size: int,
    max_bad: float,
    progress: Progress,
) -> Inspection:
    positions = np.array(sorted(looks), dtype=np.intp)
    traits = np.stack([looks[int(position)] for position in positions])
    near = inspection.find_near_duplicates(manifest, looks, progress=progress)
    examined = examine_confounding(manifest, positions, traits)
    return Inspection(
        name=manifest.name,
        root=manifest.root,
        reader=manifest.reader,
        classes=manifest.classes,
        patients_known=manifest.patients_known,
        splits=fingerprint(manifest).counts,
        images_per_patient=inspection.count_images_per_patient(manifest),
        sizes=inspection.measure_sizes(traits, image_size=image_size),
        file_types=inspection.count_words(traits["format"]),
        modes=inspection.count_words(traits["mode"]),
        brightness=inspection.measure_brightness(manifest, positions, traits),
        unreadable=tuple(Unreadable(path=manifest.samples[i].path, reason=failures[i]) for i in sorted(failures)),
        copies=inspection.count_copies(manifest),
        near_duplicates=near,
        confounding=examined,
        warnings=(
            *manifest.warnings,
            *_tell_unreadable(len(failures), len(manifest.samples), max_bad=max_bad),
            *_warn(near, examined.traits),
        ),
    )


def examine_confounding(manifest: Manifest, positions: NDArray[np.intp], traits: Traits) -> Confounding:
    """Score how well each trait predicts the label, on all images or a sample of patients.

    `traits` `(n,)` are those of the samples at `positions`. Where images can have several findings, what is predicted
    is whether they have any.
    """
    names = [manifest.samples[position].patient_id for position in positions]
    patients = np.unique(names, return_inverse=True)[1]
    chosen = confounding.choose_whole(patients, _EXAMINED)
    patients = patients[chosen]
    given = label_array([manifest.samples[positions[i]] for i in chosen])
    labels = (given == PRESENT).any(axis=1).astype(np.intp) if manifest.multilabel else given.astype(np.intp)
    classes = 2 if manifest.multilabel else len(manifest.classes)
    predicted = confounding.cross_validate(traits[chosen], labels, patients, classes=classes)
    scored = [_score(name, predicted[name], labels, patients) for name in predicted if len(set(labels)) > 1]
    return Confounding(
        images=len(labels),
        patients=len(np.unique(patients)),
        traits=tuple(sorted(scored, key=lambda score: -score.auroc)),
    )


def _score(
    trait: str, probabilities: NDArray[np.float64], labels: NDArray[np.intp], patients: NDArray[np.intp]
) -> TraitScore:
    found = intervals.score("auroc", probabilities, labels, patients, split="train", replicates=_REPLICATES)
    auroc = 0.5 if found.value is None else found.value
    counts = sorted(len(np.unique(patients[labels == label])) for label in np.unique(labels))
    # Without bounds all resamples agree, as at a perfect score.
    sure = counts[-2] >= _LEAST_PATIENTS and (found.low is None or found.low > ALARM_LOW)
    alarming = trait not in confounding.OF_CONTENT and auroc >= ALARM_AUROC and sure
    return TraitScore(trait=trait, auroc=auroc, low=found.low, high=found.high, alarming=alarming)


def _tell_unreadable(unreadable: int, images: int, *, max_bad: float) -> Iterator[DataWarning]:
    """Say what a search would do about files that cannot be read."""
    if not unreadable:
        return
    share = f"{unreadable} of {images} files ({unreadable / images:.1%}) cannot be read: a search"
    if unreadable > max_bad * images:
        text = f"{share} refuses the data set, as --max-bad allows {max_bad:.1%}; replace them, or take them out"
    else:
        text = f"{share} leaves them out, as --max-bad allows {max_bad:.1%}"
    yield DataWarning(kind="unreadable-images", message=text)


def _warn(near: NearDuplicates, traits: Sequence[TraitScore]) -> Iterator[DataWarning]:
    for count, what, cost in (
        (near.across_splits, "in different splits", "scores on the later split may be too good"),
        (near.across_patients, "of different patients", "one person may stand under two names"),
        (near.across_labels, "with different labels", "one of the two labels may be wrong"),
    ):
        if count:
            at_least = "" if near.complete else "at least "
            yield DataWarning(
                kind="near-duplicates", message=f"{at_least}{count} pairs of nearly equal pictures {what}: {cost}"
            )
    for score in traits:
        if score.alarming:
            yield DataWarning(kind="confounding", message=describe_alarm(score))


def describe_alarm(score: TraitScore) -> str:
    """Say what an alarming trait means."""
    bounds = "" if score.low is None else f" [{score.low:.2f}, {score.high:.2f}]"
    how = "predict" if score.trait == confounding.TOGETHER else "alone predicts"
    score_text = f"{score.trait} {how} the label with AUROC {score.auroc:.2f}{bounds}"
    return f"{score_text}: the classes may come from different machines"
