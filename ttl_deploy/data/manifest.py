"""From what the user names to a manifest: read, hash, check, split."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ttl_deploy import plugins
from ttl_deploy.data import leakage, remembered
from ttl_deploy.data.folds import split_by_fold, tell_fold
from ttl_deploy.data.hashes import hash_files
from ttl_deploy.data.labelling import Labelled, label_rows
from ttl_deploy.data.labels import classes_of
from ttl_deploy.data.manifest_files import fingerprint, know_fingerprint
from ttl_deploy.data.quirks import find_quirks
from ttl_deploy.data.splits import assign_splits, choose_groups, group_samples
from ttl_deploy.errors import DataError, LabelError, UsageError
from ttl_deploy.plugins import Progress, RawData, RawSample
from ttl_deploy.records.data import SPLITS, DataWarning, Manifest, Reading, Sample, Split
from ttl_deploy.records.folds import Fold

NO_SPLITS = "none"
"""In place of a column: the splits that a source names are not used."""


def prepare(
    data: str,
    *,
    reading: Reading | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    fold: Fold | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Read a data set, hash its files, check it, and make the splits that it lacks.

    `data` is what one of the `readers/` knows; `reading` says how its rows become labels. An official test split is
    kept; val, or test, is carved out of train where it is missing, as a share of the images divided; with a `fold` all
    splits are made by it. Splits are made by patient and by content. Samples are sorted by path, so the result does
    not depend on the order of rows. That of a large set is remembered, and made anew where any file below the data was
    changed. Raises `DataError` and its kinds, or `UsageError` where `data` is nothing known.
    """
    _check_fractions(val_fraction, test_fraction)
    reading = reading or Reading()
    fractions: dict[Split, float] = {"val": val_fraction, "test": test_fraction}
    key = remembered.key_of(*_names(data), reading, fractions, split_seed, fold, plugins.names("readers"))
    if Path(data).exists() and (found := remembered.recall(key)) is not None:
        know_fingerprint(found.manifest, found.fingerprint)
        return found.manifest
    began_ns = time.time_ns()
    with remembered.collection_paused():
        made = _make(data, reading, fractions=fractions, split_seed=split_seed, fold=fold, progress=progress)
    if len(made.samples) >= remembered.WORTH_IMAGES and Path(data).exists() and _is_ours(made.reader):
        kept = remembered.Remembered(manifest=made, fingerprint=fingerprint(made))
        remembered.remember(key, kept, roots=_roots(data, reading, made), began_ns=began_ns)
    return made


def _is_ours(reader: str) -> bool:
    """Tell whether a reader is known to look at nothing but the files; of others' it is not known."""
    return str(plugins.load("readers", reader).__module__).startswith("ttl_deploy.")


def _names(data: str) -> tuple[str, str, str]:
    """Return all that a path of the data set can be told by: as it is given, from where, and where it leads."""
    return data, str(Path.cwd()), str(Path(data).resolve())


def _roots(data: str, reading: Reading, made: Manifest) -> list[Path]:
    """Return the folders that decide what a manifest is: those of the table or the images, and of all between."""
    given = Path(data).resolve()
    roots = [given if given.is_dir() else given.parent]
    for path in (Path(reading.image_root or given).resolve(), Path(made.root).resolve()):
        if path.is_dir() and not any(path.is_relative_to(root) for root in roots):
            roots.append(path)
    return roots


def _make(
    data: str,
    reading: Reading,
    *,
    fractions: Mapping[Split, float],
    split_seed: int,
    fold: Fold | None,
    progress: Progress | None,
) -> Manifest:
    """Make a manifest from the files as they are."""
    reader_name, raw = _read(data, reading, progress=progress)
    labelled = label_rows(sorted(raw.samples, key=lambda row: row.path), reading, source=data)
    rows, classes = labelled.rows, labelled.classes
    hashes = hash_files(raw.root, [row.path for row in rows], progress=progress)
    patients_known = _patients_known(rows, source=data)
    samples = _samples(labelled, hashes)
    official = _official_splits(rows, source=data)
    in_splits = [sample for sample, split in zip(samples, official, strict=True) if split]
    leakage.check(in_splits, patients_known=patients_known)
    made = _missing_splits(official)
    if fold is None:
        samples = _with_made_splits(samples, official, made, fractions=fractions, classes=classes, seed=split_seed)
    else:
        samples = split_by_fold(samples, official, classes, fold, seed=split_seed)
    _require_training_images(samples, classes)
    leakage.check(samples, patients_known=patients_known)
    warnings = (
        *raw.warnings,
        *labelled.warnings,
        *(_made_warnings(made, seed=split_seed) if fold is None else (tell_fold(fold, seed=split_seed),)),
        *find_quirks(samples, classes, patients_known=patients_known),
    )
    return Manifest(
        name=raw.name,
        root=str(raw.root),
        reader=reader_name,
        classes=classes,
        samples=samples,
        patients_known=patients_known,
        multilabel=labelled.multilabel,
        warnings=warnings,
    )


def limit_train(manifest: Manifest, limit: int, seed: int) -> Manifest:
    """Keep at most `limit` training images: whole patients, classes in their old proportions.

    val and test stay. Raises `UsageError` where no patient of some class fits into its share.
    """
    train = manifest.of_split("train")
    if limit >= len(train):
        return manifest
    if limit < len(manifest.classes):
        raise UsageError(f"--limit-train {limit} is below the number of classes, {len(manifest.classes)}")
    samples = [manifest.samples[position] for position in train]
    chosen = choose_groups(
        [sample.label for sample in samples],
        group_samples([sample.patient_id for sample in samples], [sample.sha256 for sample in samples]),
        keys=[sample.sha256 for sample in samples],
        limit=limit,
        seed=seed,
    )
    kept = {train[i] for i in chosen}
    missing = _classes_in(samples) - _classes_in([samples[i] for i in chosen])
    if missing:
        name = manifest.classes[min(missing)]
        raise UsageError(f"--limit-train {limit} leaves no room for a whole patient of class {name!r}: raise it")
    return _keep_train(manifest, kept)


def share_train(manifest: Manifest, fraction: float, seed: int) -> Manifest:
    """Keep about `fraction` of the training patients, whole: classes in their old proportions, each at least once.

    Patients that share identical images stay together and count as one. A patient with images of several
    classes counts for the rarest of them. val and test stay.
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"--train-fraction {fraction}; allowed are shares above 0 and up to 1")
    if fraction == 1:
        return manifest
    patients = _train_patients(manifest)
    labels = [_classes_in([manifest.samples[i] for i in patient]) for patient in patients]
    keys = [min(manifest.samples[i].sha256 for i in patient) for patient in patients]
    frequency = Counter(label for held in labels for label in held)
    chosen = choose_groups(
        [min(held, key=lambda label: (frequency[label], label), default=len(manifest.classes)) for held in labels],
        range(len(patients)),
        keys=keys,
        limit=max(round(fraction * len(patients)), 1),
        seed=seed,
    )
    # A class can be missing where all its patients have a rarer one too.
    for label in set(frequency).difference(*(labels[i] for i in chosen)):
        chosen.append(min((i for i, held in enumerate(labels) if label in held), key=keys.__getitem__))
    return _keep_train(manifest, {i for patient in chosen for i in patients[patient]})


def _train_patients(manifest: Manifest) -> list[list[int]]:
    """Return the positions of each training patient's images, together with whoever shares identical ones."""
    train = manifest.of_split("train")
    samples = [manifest.samples[position] for position in train]
    patients: defaultdict[int, list[int]] = defaultdict(list)
    groups = group_samples([sample.patient_id for sample in samples], [sample.sha256 for sample in samples])
    for position, group in zip(train, groups, strict=True):
        patients[group].append(position)
    return list(patients.values())


def _keep_train(manifest: Manifest, kept: set[int]) -> Manifest:
    """Return the manifest with these training images only, and a note of how many they are."""
    count = len(manifest.of_split("train"))
    note = DataWarning(kind="limited-train", message=f"{len(kept)} of {count} training images are used")
    left = tuple(s for i, s in enumerate(manifest.samples) if s.split != "train" or i in kept)
    return replace(manifest, samples=left, warnings=(*manifest.warnings, note))


def _check_fractions(val_fraction: float, test_fraction: float) -> None:
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < fraction < 0.5:
            raise UsageError(f"{name} = {fraction}; allowed are shares above 0 and below 0.5")


def _read(data: str, reading: Reading, *, progress: Progress | None) -> tuple[str, RawData]:
    """Ask the readers in the order of their table; `none` for the splits' column leaves out what they say of them."""
    if reading.split_col == NO_SPLITS:
        name, raw = _read(data, replace(reading, split_col=""), progress=progress)
        return name, replace(raw, samples=tuple(replace(row, split=None) for row in raw.samples))
    for name in plugins.names("readers"):
        reader: plugins.Reader = plugins.load("readers", name)()
        if reader.recognises(data):
            return name, reader.read(data, reading, progress=progress)
    path = Path(data)
    if path.exists():
        raise UsageError(
            f"{data} is a file of an unknown kind: give a folder of images, a table (.csv, .tsv, .parquet), or a "
            "MedMNIST .npz"
        )
    raise UsageError(
        f"{data} does not exist: give a folder of images, a table (.csv, .tsv, .parquet), a MedMNIST .npz, or a "
        "built-in demo such as phantom:blob"
    )


def _patients_known(rows: Sequence[RawSample], *, source: str) -> bool:
    named = sum(row.patient_id is not None for row in rows)
    if 0 < named < len(rows):
        raise LabelError(f"{source} names the patient of {named} of {len(rows)} images: name all, or none")
    return named > 0


def _samples(labelled: Labelled, hashes: Sequence[str]) -> tuple[Sample, ...]:
    """Build samples, all with the same extra columns; the splits still to be set."""
    columns = tuple(dict.fromkeys(name for row in labelled.rows for name in row.extra))
    return tuple(
        Sample(
            path=row.path,
            label=label,
            patient_id=row.patient_id if row.patient_id is not None else f"image-{sha256[:16]}",
            split=row.split or "train",
            sha256=sha256,
            extra={name: row.extra.get(name, "") for name in columns},
        )
        for row, label, sha256 in zip(labelled.rows, labelled.labels, hashes, strict=True)
    )


def _official_splits(rows: Sequence[RawSample], *, source: str) -> list[Split | None]:
    splits = [row.split for row in rows]
    given = sum(split is not None for split in splits)
    if 0 < given < len(splits):
        raise LabelError(f"{source} names the split of {given} of {len(splits)} images: name all, or none")
    if given and "train" not in splits:
        raise LabelError(f"{source} has no training images: name some 'train', or leave the splits out")
    return splits


def _missing_splits(official: Sequence[Split | None]) -> tuple[Split, ...]:
    return tuple(split for split in SPLITS[1:] if split not in official)


def _with_made_splits(
    samples: tuple[Sample, ...],
    official: Sequence[Split | None],
    made: Sequence[Split],
    *,
    fractions: Mapping[Split, float],
    classes: Sequence[str],
    seed: int,
) -> tuple[Sample, ...]:
    """Divide the images that are in no split but train into train and the missing splits."""
    if not made:
        return samples
    divided = [position for position, split in enumerate(official) if split in (None, "train")]
    chosen = [samples[position] for position in divided]
    wanted = {split: fractions[split] for split in made}
    splits = assign_splits(
        [sample.label for sample in chosen],
        group_samples([sample.patient_id for sample in chosen], [sample.sha256 for sample in chosen]),
        keys=[sample.sha256 for sample in chosen],
        classes=classes,
        fractions={"train": 1 - sum(wanted.values()), **wanted},
        seed=seed,
    )
    result = list(samples)
    for position, split in zip(divided, splits, strict=True):
        result[position] = replace(samples[position], split=split)
    return tuple(result)


def _classes_in(samples: Sequence[Sample]) -> set[int]:
    return {number for sample in samples for number in classes_of(sample.label)}


def _require_training_images(samples: Sequence[Sample], classes: Sequence[str]) -> None:
    trained = _classes_in([sample for sample in samples if sample.split == "train"])
    for label, name in enumerate(classes):
        if label not in trained:
            raise DataError(f"class {name!r} has no training images: add some, or leave the class out")


def _made_warnings(made: Sequence[Split], *, seed: int) -> tuple[DataWarning, ...]:
    if not made:
        return ()
    names = " and ".join(made)
    return (DataWarning(kind="made-splits", message=f"the source has no {names}: made here by patient, seed {seed}"),)
