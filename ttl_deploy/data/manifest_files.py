"""A manifest on disk: `manifest.csv`, `fingerprint.json`, `checks.json`."""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ttl_deploy.data import remembered
from ttl_deploy.data.labels import classes_of, unknown_of
from ttl_deploy.errors import DataError
from ttl_deploy.files import escape_cell, make_folder, publish_text, sha256_bytes, sha256_file, unescape_cell
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
_MAYBE_FORMULA = re.compile(r"\0[ \n]*[=+\-@\t\r']")
_QUOTED = re.compile(r"[\",\r\n]")
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


_asked_last: list[tuple[Manifest, DataFingerprint]] = []  # the manifest is held, so no other can take its place


def fingerprint(manifest: Manifest) -> DataFingerprint:
    """Identify a data set by content: equal for equal images, labels, splits and patients, wherever they lie."""
    for asked, answer in _asked_last:
        if asked is manifest:
            return answer
    answer = _fingerprint(manifest)
    know_fingerprint(manifest, answer)
    return answer


def know_fingerprint(manifest: Manifest, known: DataFingerprint) -> None:
    """Take for a manifest's fingerprint what was found of it before, as long as no other manifest is asked about."""
    _asked_last[:] = [(manifest, known)]


def _fingerprint(manifest: Manifest) -> DataFingerprint:
    patients = {sample.patient_id for sample in manifest.samples}
    hidden = {patient: sha256_bytes(patient.encode()) for patient in patients}
    labels = {label: _write_label(label, manifest.classes) for label in {sample.label for sample in manifest.samples}}
    lines = sorted(
        [
            f"{sample.sha256}\t{labels[sample.label]}\t{sample.split}\t{hidden[sample.patient_id]}"
            for sample in manifest.samples
        ]
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
    """Read what `save_manifest` wrote, exactly; raises `DataError` where a file was changed or is missing.

    What large ones say is remembered by their content, which is read in any case.
    """
    try:
        contents = [sha256_file(folder / name) for name in ("manifest.csv", "fingerprint.json", "checks.json")]
    except OSError:
        return _load(folder)  # which tells what is missing
    key = remembered.key_of("stored", *contents)
    if (found := remembered.recall(key)) is not None:
        know_fingerprint(found.manifest, found.fingerprint)
        return found.manifest
    with remembered.collection_paused():
        manifest = _load(folder)
    remembered.remember(key, remembered.Remembered(manifest=manifest, fingerprint=fingerprint(manifest)))
    return manifest


def _load(folder: Path) -> Manifest:
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
    samples = manifest.samples
    extra = tuple(dict.fromkeys(name for sample in samples for name in sample.extra))
    labels = {label: _write_label(label, manifest.classes) for label in {sample.label for sample in samples}}
    columns: list[list[str]] = [
        [sample.path for sample in samples],
        [labels[sample.label] for sample in samples],
        [sample.patient_id for sample in samples],
        [sample.split for sample in samples],
        [sample.sha256 for sample in samples],
        *([sample.extra[name] for sample in samples] for name in extra),
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # with "\n" alone, Python 3.11 leaves a lone "\r" unquoted
    writer.writerow((*_COLUMNS, *(_EXTRA + name for name in extra)))
    rows = zip(*(_escape_cells(column) for column in columns), strict=True)
    if any(_QUOTED.search("\0".join(column)) for column in columns):
        writer.writerows(rows)
    else:
        text.writelines([",".join(row) + "\r\n" for row in rows])
    return text.getvalue()


def _escape_cells(cells: list[str]) -> list[str]:
    """Escape what begins like a formula; one look at all cells together tells most columns that nothing does."""
    return [escape_cell(cell) for cell in cells] if _MAYBE_FORMULA.search("\0" + "\0".join(cells)) else cells


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
