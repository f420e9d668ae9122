"""A manifest on disk: `manifest.csv`, `fingerprint.json`, `checks.json`."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ttl_deploy.data.labels import classes_of, unknown_of
from ttl_deploy.errors import DataError
from ttl_deploy.files import escape_cell, make_folder, publish_text, sha256_bytes, unescape_cell
from ttl_deploy.records import codec
from ttl_deploy.records.data import (
    ABSENT,
    PRESENT,
    SPLITS,
    UNKNOWN,
    DataFingerprint,
    DataWarning,
    Label,
    Manifest,
    Sample,
    Split,
    SplitCount,
)

_COLUMNS = ("path", "label", "patient_id", "split", "sha256")
_MARKS = {PRESENT: "1", ABSENT: "0", UNKNOWN: "?"}
_EXTRA = "extra:"  # keeps a table's own column `label` apart from ours
CHECKS = (
    "every file was found and hashed",
    "every image has a label",
    "no patient stands in two splits",
    "no identical image stands in two splits",
    "every class has training images",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataChecks:
    """`checks.json`: what was checked, what was found, and where the images lay."""

    root: str
    passed: tuple[str, ...]
    images: int
    distinct_images: int
    patients: int
    warnings: tuple[DataWarning, ...]


def fingerprint(manifest: Manifest) -> DataFingerprint:
    """Identify a data set by content: equal for equal images, labels, splits and patients, wherever they lie."""
    lines = sorted(
        "\t".join(
            (
                sample.sha256,
                _write_label(sample.label, manifest.classes),
                sample.split,
                sha256_bytes(sample.patient_id.encode()),
            )
        )
        for sample in manifest.samples
    )
    content = "\n".join((*manifest.classes, "", *lines))
    return DataFingerprint(
        name=manifest.name,
        reader=manifest.reader,
        sha256=sha256_bytes(content.encode()),
        classes=manifest.classes,
        counts=tuple(_count(manifest, split) for split in SPLITS),
        patients_known=manifest.patients_known,
        multilabel=manifest.multilabel,
    )


def save_manifest(manifest: Manifest, folder: Path) -> None:
    """Write a manifest into `folder`, each file atomically, `manifest.csv` last."""
    make_folder(folder)
    checks = DataChecks(
        root=manifest.root,
        passed=CHECKS,
        images=len(manifest.samples),
        distinct_images=len({sample.sha256 for sample in manifest.samples}),
        patients=len({sample.patient_id for sample in manifest.samples}),
        warnings=manifest.warnings,
    )
    codec.save(folder / "checks.json", checks)
    codec.save(folder / "fingerprint.json", fingerprint(manifest))
    publish_text(folder / "manifest.csv", _to_csv(manifest))


def load_manifest(folder: Path) -> Manifest:
    """Read what `save_manifest` wrote, exactly; raises `DataError` where a file was changed or is missing."""
    stored = codec.load(DataFingerprint, folder / "fingerprint.json")
    checks = codec.load(DataChecks, folder / "checks.json")
    manifest = Manifest(
        name=stored.name,
        root=checks.root,
        reader=stored.reader,
        classes=stored.classes,
        samples=_from_csv(folder / "manifest.csv", stored),
        patients_known=stored.patients_known,
        multilabel=stored.multilabel,
        warnings=checks.warnings,
    )
    if fingerprint(manifest) != stored:
        raise DataError(
            f"{folder / 'manifest.csv'} does not fit its fingerprint.json: one was changed; start a new run"
        )
    return manifest


def _count(manifest: Manifest, split: Split) -> SplitCount:
    samples = [manifest.samples[position] for position in manifest.of_split(split)]
    present = Counter(number for sample in samples for number in classes_of(sample.label))
    unknown = Counter(number for sample in samples for number in unknown_of(sample.label))
    numbers = range(len(manifest.classes))
    return SplitCount(
        split=split,
        images=len(samples),
        patients=len({sample.patient_id for sample in samples}),
        per_class=tuple(present[number] for number in numbers),
        unknown=tuple(unknown[number] for number in numbers) if manifest.multilabel else (),
    )


def _to_csv(manifest: Manifest) -> str:
    extra = tuple(dict.fromkeys(name for sample in manifest.samples for name in sample.extra))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # with "\n" alone, Python 3.11 leaves a lone "\r" unquoted
    writer.writerow((*_COLUMNS, *(_EXTRA + name for name in extra)))
    for sample in manifest.samples:
        label = _write_label(sample.label, manifest.classes)
        cells = (sample.path, label, sample.patient_id, sample.split, sample.sha256)
        writer.writerow([escape_cell(cell) for cell in (*cells, *(sample.extra[name] for name in extra))])
    return text.getvalue()


def _write_label(label: Label, classes: Sequence[str]) -> str:
    """Write the class; of several per image a character for each, `1` present, `0` absent, `?` not known."""
    return classes[label] if isinstance(label, int) else "".join(_MARKS[mark] for mark in label)


def _read_label(text: str, stored: DataFingerprint) -> Label:
    if not stored.multilabel:
        return stored.classes.index(text)
    marks = {character: mark for mark, character in _MARKS.items()}
    if len(text) != len(stored.classes):
        raise ValueError(f"the label {text!r} does not have one character for each of {len(stored.classes)} classes")
    return tuple(marks[character] for character in text)


def _from_csv(path: Path, stored: DataFingerprint) -> tuple[Sample, ...]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        names = [name.removeprefix(_EXTRA) for name in header[len(_COLUMNS) :]]
        return tuple(_sample([unescape_cell(cell) for cell in row], stored, names) for row in rows)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, KeyError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _sample(row: Sequence[str], stored: DataFingerprint, names: Sequence[str]) -> Sample:
    path, label, patient_id, split, sha256, *extra = row
    return Sample(
        path=path,
        label=_read_label(label, stored),
        patient_id=patient_id,
        split=SPLITS[SPLITS.index(split)],
        sha256=sha256,
        extra=dict(zip(names, extra, strict=True)),
    )
