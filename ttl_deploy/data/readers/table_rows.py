"""From rows to samples: files found, duplicates merged or refused, missing images counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ttl_deploy.data.readers.cells import Stated, read_labels, read_splits, tell_of_classes, unify_numbers
from ttl_deploy.data.readers.columns import Columns
from ttl_deploy.data.readers.image_paths import Found, ImageFinder
from ttl_deploy.data.readers.table_files import Table, shorten
from ttl_deploy.errors import LabelError, UnreadableImageError, UsageError
from ttl_deploy.plugins import RawData, RawSample
from ttl_deploy.records.data import DataWarning, Reading, Split

_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What the rows of a table say, one list entry per row; `image_column` is for messages."""

    table: Table
    image_column: str
    images: Sequence[str]
    labels: Sequence[Stated]
    patients: Sequence[str | None]
    splits: Sequence[Split | None]
    extras: Sequence[dict[str, str]]

    def where(self, position: int) -> str:
        """Return file, row and column of an image, for messages."""
        return f"{self.table.where(position)}, column {self.image_column!r}"


def read_rows(table: Table, columns: Columns, *, labels: Sequence[Stated] | None = None) -> Rows:
    """Read what every row says, or take `labels` as read; raises `LabelError` with row and column."""
    return Rows(
        table=table,
        image_column=table.header[columns.image],
        images=table.column(columns.image),
        labels=read_labels(table, columns.labels) if labels is None else labels,
        patients=read_patients(table, columns.patient),
        splits=read_splits(table, columns.split) if columns.split is not None else [None] * len(table.rows),
        extras=read_extras(table, columns.extra),
    )


def read_patients(table: Table, column: int | None) -> list[str | None]:
    """Return the patients of a column, None where it is blank."""
    if column is None:
        return [None] * len(table.rows)
    return [patient or None for patient in unify_numbers(table.column(column))]


def read_extras(table: Table, columns: Sequence[int]) -> list[dict[str, str]]:
    """Return the cells of the columns that are kept, by the columns' names; equal ones are one dictionary."""
    names = [table.header[i] for i in columns]
    known: dict[tuple[str, ...], dict[str, str]] = {}
    extras = []
    for row in table.rows:
        cells = tuple([row[i] for i in columns])
        if cells not in known:
            known[cells] = dict(zip(names, cells, strict=True))
        extras.append(known[cells])
    return extras


def image_root(reading: Reading, default: Path) -> Path:
    """Return the folder that images lie below; raises `UsageError` where it is none."""
    if not reading.image_root:
        return default.resolve()
    root = Path(reading.image_root)
    if not root.is_dir():
        raise UsageError(f"--image-root {reading.image_root} is no folder: name the one that the images lie in")
    return root.resolve()


def collect(rows: Rows, reading: Reading, *, name: str, root: Path, warnings: Sequence[DataWarning] = ()) -> RawData:
    """Find the images of rows and make samples of them.

    Raises `LabelError` for an unsafe path, and for an image with two rows that contradict each other;
    `UnreadableImageError` where more images are missing than the reading allows.
    """
    root = image_root(reading, root)
    found = ImageFinder(root, remap=bool(reading.image_root)).find(rows.images, where=rows.where)
    told = [*warnings, *tell_of_classes(rows.labels), *_tell_of(found)]
    told += _allow_missing(rows, found, reading.max_bad)
    samples, merged = _samples(rows, found.paths)
    if merged:
        told.append(_warn("duplicate-rows", f"{merged} rows repeat another one and count once"))
    _refuse_blanks(samples, rows.table)
    return RawData(name=name, root=root, samples=tuple(samples), warnings=tuple(told))


def _samples(rows: Rows, paths: Sequence[str | None]) -> tuple[list[RawSample], int]:
    """Return the samples whose images exist, and how many rows said the same as another."""
    first: dict[str, int] = {}
    samples: list[RawSample] = []
    merged = 0
    columns = zip(paths, rows.labels, rows.patients, rows.splits, rows.extras, strict=True)
    for position, (path, label, patient, split, extra) in enumerate(columns):
        if path is None:
            continue
        before = first.setdefault(path, position)
        if before != position:
            _require_same(rows, before, position, path)
            merged += 1
            continue
        samples.append(RawSample(path=path, label=label, patient_id=patient, split=split, extra=extra))
    return samples, merged


def _require_same(rows: Rows, first: int, again: int, path: str) -> None:
    for what, values in (("label", rows.labels), ("patient", rows.patients), ("split", rows.splits)):
        if values[first] != values[again]:
            shown = f"{what} {_show(values[again], values[first])} instead of {_show(values[first], values[again])}"
            before = rows.table.where(first, beside=again)
            raise LabelError(
                f"{rows.table.where(again)} names {path} again, as {before} does, with the {shown}: "
                "keep one of the two rows"
            )


def _show(value: object, other: object) -> str:
    """Show a label; of findings only those that the other one has otherwise."""
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        value = ", ".join(f"{name} {mark}" for name, mark in value.items() if other.get(name) != mark)
    return shorten(repr(value))


def _allow_missing(rows: Rows, found: Found, max_bad: float) -> list[DataWarning]:
    """Warn of missing images; raises `UnreadableImageError` above the share that is allowed."""
    missing = found.missing
    if not missing:
        return []
    named = [
        f"{rows.where(position)}: {shorten(rows.images[position])} {reason}"
        for position, reason in list(missing.items())[:_NAMED]
    ]
    more = f"; and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    listed = "; ".join(named) + more
    if len(missing) > max_bad * len(rows.images):
        raise UnreadableImageError(
            f"{len(missing)} of {len(rows.images)} images are missing, allowed is a share of {max_bad:g} (--max-bad). "
            f"{listed}"
        )
    return [_warn("missing-images", f"{len(missing)} of {len(rows.images)} images are missing and left out: {listed}")]


def _tell_of(found: Found) -> list[DataWarning]:
    told = []
    if found.remapped:
        told.append(_warn("remapped-paths", f"{found.remapped} absolute paths were looked up below --image-root"))
    if found.by_name:
        told.append(_warn("found-by-name", f"{found.by_name} images were found by their names in folders below"))
    if found.unnamed:
        told.append(
            _warn("images-without-rows", f"{found.unnamed} images in the same folders have no row in the table")
        )
    return told


def _refuse_blanks(samples: Sequence[RawSample], table: Table) -> None:
    """Raise where some rows have a patient or a split and others have none."""
    for column, blank in (
        ("split", [sample for sample in samples if sample.split is None]),
        ("patient_id", [sample for sample in samples if sample.patient_id is None]),
    ):
        if 0 < len(blank) < len(samples):
            raise LabelError(
                f"{table.name}, column {column!r} is empty for {blank[0].path} and {len(blank) - 1} other rows, "
                "and filled for the rest: fill all of it, or leave the column out"
            )


def _warn(kind: str, message: str) -> DataWarning:
    return DataWarning(kind=kind, message=message)
