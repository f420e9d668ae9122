"""What models said of labelled images, as it lies on disk: a trial's, an artifact's, or a table's predictions.

Three forms are understood: a trial's folder in its run folder, or `predictions_val.npz` or `predictions_test.npz`
in it; an artifact, whose `reference.npz` holds the trained model's probabilities by content of the image; and a CSV
table as `ttl-deploy predict` writes it. No image is read, and no model is run.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.data import opened_splits
from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.errors import DataError, LabelError, NoRunError, UsageError
from ttl_deploy.files import unescape_cell
from ttl_deploy.records.candidates import slug_of
from ttl_deploy.records.data import ABSENT, PRESENT, UNKNOWN, Label, Sample, Split
from ttl_deploy.records.trials import TestOpening
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime.artifact import open_artifact

_NPZ = re.compile(r"predictions_(val|test)\.npz")
_SPLITS: dict[str, Split] = {"val": "val", "test": "test"}
_PROBABILITY = "p_"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPredictions:
    """One model's probabilities `(N, C)` of the images `samples`.

    `sha256` of a sample is empty where a table does not give it. `temperature` is what an artifact divides its
    logits by; trials are not calibrated, and of a table it is not known. `run` and `trial` say whose locked test split
    this is a use of; None where it lies in no run folder.
    """

    name: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    probabilities: NDArray[np.float64]
    patients_known: bool
    run: RunFolder | None = None
    trial: str = ""
    temperature: float = 1.0


def choose_split(paths: Sequence[Path], given: Split | None) -> Split:
    """Return the split that is compared: the given one, that in the files' names, or `test`.

    Raises `UsageError` where these are not the same.
    """
    named = {path: _SPLITS[found.group(1)] for path in paths if (found := _NPZ.fullmatch(path.name))}
    split = given if given is not None else next(iter(named.values()), _SPLITS["test"])
    for path, of_file in named.items():
        if of_file != split:
            raise UsageError(f"{path} is of the split {of_file!r}, but {split!r} is compared: give files of one split")
    return split


def read(paths: Sequence[Path], *, split: Split, labels: Path | None = None) -> tuple[StoredPredictions, ...]:
    """Read the models' predictions of one split, all in the order of the first one's images.

    `labels` is a table with the columns path and label, and optionally patient_id, split and sha256, such as a run
    folder's `data/manifest.csv`; tables of predictions need it unless they have these columns themselves, artifacts
    unless they lie in their run folder. Raises `DataError` naming the first image, label or patient that differs.
    """
    found = [_read(path, split=split, labels=labels) for path in paths]
    if len({one.name for one in found}) < len(found):
        found = [replace(one, name=str(path)) for path, one in zip(paths, found, strict=True)]
    names = [one.name for one in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"{twice[0]} is given twice: name every model once")
    return tuple(_in_order_of(found[0], one) for one in found)


def tell_temperatures(models: Sequence[StoredPredictions]) -> str:
    """Say where a temperature can move what is compared; nothing where all have the same, or classes are two.

    It keeps the order of two classes' probabilities, and so their AUROC. Of several classes each is ranked against the
    rest, and that order it can change.
    """
    temperatures = {model.name: model.temperature for model in models}
    if len(models[0].classes) == 2 or len(set(temperatures.values())) == 1:
        return ""
    told = ", ".join(f"{name} {value:.4g}" for name, value in temperatures.items())
    return (
        f"the models are calibrated by different temperatures ({told}; 1 is none), which moves the AUROC of several "
        "classes a little: compare trials with trials, or artifacts with artifacts"
    )


def record_openings(
    models: Sequence[StoredPredictions], *, split: Split, command: str, by: str = "compare"
) -> tuple[RunFolder, ...]:
    """Write into the ledgers of the runs these predictions are from that `by` uses their test split; returns the runs.

    Raises `RunBusyError` while another process writes there, and `StorageError` where nobody can.
    """
    if split != "test":
        return ()
    trials: dict[Path, list[str]] = {}
    for model in models:
        if model.run is not None:
            trials.setdefault(model.run.path.resolve(), []).append(model.trial)
    for path, keys in trials.items():
        opening = TestOpening(split=split, command=command, trials=tuple(dict.fromkeys(keys)))
        opened_splits.record_use(RunFolder(path), opening, by=by)
    return tuple(RunFolder(path) for path in trials)


def _read(path: Path, *, split: Split, labels: Path | None) -> StoredPredictions:
    if _NPZ.fullmatch(path.name):
        return _of_trial(path, split)
    if (path / f"predictions_{split}.npz").is_file():
        return _of_trial(path / f"predictions_{split}.npz", split)
    if path.suffix.lower() == ".csv":
        return _of_table(path, split, labels)
    if (path / "manifest.json").is_file():
        return _of_artifact(path, split, labels)
    raise UsageError(
        f"{path} holds no predictions: give a trial's folder (or its predictions_{split}.npz), an artifact's "
        "folder, or a .csv that `ttl-deploy predict` wrote"
    )


def _of_trial(path: Path, split: Split) -> StoredPredictions:
    folder = path.resolve().parent
    run = RunFolder(folder.parent.parent)
    if not (run.data / "manifest.csv").is_file():
        raise NoRunError(f"{path} does not lie in a run folder, so its images are not known: give it as it lies there")
    manifest = load_manifest(run.data)
    try:
        with np.load(path, allow_pickle=False) as content:
            probabilities = np.asarray(content["probabilities"], dtype=np.float64)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    samples = tuple(manifest.samples[position] for position in manifest.of_split(split))
    if probabilities.shape != (len(samples), len(manifest.classes)):
        raise DataError(
            f"{path} holds {probabilities.shape} probabilities, but the run has {len(samples)} {split} images "
            f"of {len(manifest.classes)} classes: one was changed"
        )
    return StoredPredictions(
        name=folder.name,
        classes=manifest.classes,
        samples=samples,
        probabilities=probabilities,
        patients_known=manifest.patients_known,
        run=run,
        trial=folder.name,
    )


def _of_artifact(path: Path, split: Split, labels: Path | None) -> StoredPredictions:
    artifact = open_artifact(path)
    described = artifact.manifest
    if described.precision != "fp32":
        raise UsageError(
            f"{path} computes in {described.precision}, and holds what the trained model said, not what it says "
            "itself: run `ttl-deploy predict` with it, and give the table"
        )
    folder = RunFolder(path.resolve().parent.parent)
    run = folder if (folder.data / "manifest.csv").is_file() else None
    if run is not None:
        manifest = load_manifest(run.data)
        samples = tuple(manifest.samples[position] for position in manifest.of_split(split))
        known = manifest.patients_known
    elif labels is not None:
        samples, known = _read_labels(labels, split, described.classes)
    else:
        raise UsageError(f"{path} does not lie in its run folder: give the images' labels with --labels")
    references = artifact.references()
    for sample in samples:
        if sample.sha256 not in references:
            raise DataError(
                f"{path} holds no probabilities of {sample.path} ({split} split; found by its sha256): "
                "its model was not scored on this image"
            )
    return StoredPredictions(
        name=described.name,
        classes=described.classes,
        samples=samples,
        probabilities=np.array([references[sample.sha256] for sample in samples], dtype=np.float64),
        patients_known=known,
        run=run,
        temperature=described.temperature,
        trial=f"{described.model.cut}__{slug_of(described.strategy)}__s{described.seed}",
    )


def _of_table(path: Path, split: Split, labels: Path | None) -> StoredPredictions:
    rows = _rows(path)
    names = [name for name in rows[0] if name.startswith(_PROBABILITY)]
    classes = tuple(name.removeprefix(_PROBABILITY) for name in names)
    if len(classes) < 2 or "path" not in rows[0]:
        raise DataError(
            f"{path} has the columns {', '.join(rows[0])}: it needs `path`, and one `{_PROBABILITY}<class>` per class"
        )
    samples, known = _read_labels(labels or path, split, classes)
    predicted = _by_sample(rows, samples, source=path)
    return StoredPredictions(
        name=path.stem,
        classes=classes,
        samples=samples,
        probabilities=np.array([_probabilities(predicted[sample.path], names, path) for sample in samples]),
        patients_known=known,
    )


def _probabilities(row: Mapping[str, str], names: Sequence[str], source: Path) -> list[float]:
    try:
        return [float(row[name]) for name in names]
    except ValueError as error:
        why = row.get("error") or str(error)
        raise DataError(f"{source} has no probabilities of {row['path']}: {why}") from error


def _by_sample(
    rows: Sequence[Mapping[str, str]], samples: Sequence[Sample], *, source: Path
) -> dict[str, Mapping[str, str]]:
    """Find each sample's row: a row's path is the sample's, or ends with it. Rows of other images are let be."""
    wanted = {sample.path for sample in samples}
    found: dict[str, Mapping[str, str]] = {}
    for row in rows:
        parts = PurePosixPath(row["path"].replace("\\", "/")).parts
        endings = (str(PurePosixPath(*parts[start:])) for start in range(len(parts)))
        match = next((ending for ending in endings if ending in wanted), None)
        if match in found:
            raise DataError(f"{source} has two rows for {match}: give every image once")
        if match is not None:
            found[match] = row
    for sample in samples:
        if sample.path not in found:
            raise DataError(f"{source} has no row for {sample.path}: every image with a label needs one")
    return found


def _read_labels(path: Path, split: Split, classes: tuple[str, ...]) -> tuple[tuple[Sample, ...], bool]:
    """Return the samples of one split, or all where the table has no splits, and whether it names patients."""
    rows = _rows(path)
    for column in ("path", "label"):
        if column not in rows[0]:
            raise LabelError(
                f"{path} has no column {column!r}: it has {', '.join(rows[0])}. Give a table with labels by --labels"
            )
    if "split" in rows[0]:
        rows = [row for row in rows if row["split"] == split]
    if not rows:
        raise DataError(f"{path} has no images in the split {split!r}: choose another with --split")
    paths = [row["path"] for row in rows]
    if len(set(paths)) < len(paths):
        twice = next(one for one in paths if paths.count(one) > 1)
        raise LabelError(f"{path} has two rows for {twice}: give every image once")
    known = "patient_id" in rows[0]
    return tuple(_sample(row, split, classes, path) for row in rows), known


def _sample(row: Mapping[str, str], split: Split, classes: tuple[str, ...], source: Path) -> Sample:
    label = _parse_label(row["label"], classes)
    if label is None:
        raise LabelError(
            f"{source} labels {row['path']} as {row['label']!r}, but predicted are {', '.join(map(repr, classes))}"
        )
    if not row.get("patient_id", "-"):
        raise LabelError(f"{source} has no patient_id for {row['path']}: give every image one, or leave the column out")
    return Sample(
        path=row["path"].replace("\\", "/"),
        label=label,
        patient_id=row.get("patient_id", row["path"]),
        split=split,
        sha256=row.get("sha256", ""),
    )


def _parse_label(text: str, classes: tuple[str, ...]) -> Label | None:
    """Read a class's name, or, where an image can have several, `1`, `0` or `?` for each as in a run's manifest.csv."""
    if text in classes:
        return classes.index(text)
    marks = {"1": PRESENT, "0": ABSENT, "?": UNKNOWN}
    if len(text) == len(classes) and marks.keys() >= set(text):
        return tuple(marks[character] for character in text)
    return None


def _rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV table with a header and at least one row, without the apostrophes before formulas."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = ([unescape_cell(cell) for cell in row] for row in csv.reader(file, strict=True))
            found = [dict(zip(header, row, strict=True)) for row in rows if row]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"cannot read {path} as a comma-separated table: {error}") from error
    if not found:
        raise DataError(f"{path} has no rows: give one per image")
    return found


def _in_order_of(first: StoredPredictions, other: StoredPredictions) -> StoredPredictions:
    """Return the other model's predictions in the order of the first one's images, after checking that all agree."""
    if other.classes != first.classes:
        raise DataError(f"{first.name} predicts the classes {first.classes}, {other.name} {other.classes}")
    positions = {sample.path: position for position, sample in enumerate(other.samples)}
    for sample in first.samples:
        if sample.path not in positions:
            raise DataError(f"{other.name} has no prediction of {sample.path}, which {first.name} has")
        _check_same(sample, other.samples[positions[sample.path]], names=(first.name, other.name))
    more = sorted(positions.keys() - {sample.path for sample in first.samples})
    if more:
        raise DataError(f"{first.name} has no prediction of {more[0]}, which {other.name} has")
    order = [positions[sample.path] for sample in first.samples]
    return replace(other, samples=first.samples, probabilities=other.probabilities[order])


def _check_same(a: Sample, b: Sample, *, names: tuple[str, str]) -> None:
    pairs = {
        "label": (str(a.label), str(b.label)),
        "patient": (a.patient_id, b.patient_id),
        "content (sha256)": (a.sha256, b.sha256) if a.sha256 and b.sha256 else ("", ""),
    }
    for what, (one, other) in pairs.items():
        if one != other:
            raise DataError(
                f"the {what} of {a.path} differs: {one} in {names[0]}, {other} in {names[1]}. "
                "Models are compared on the same images with the same labels and patients"
            )
