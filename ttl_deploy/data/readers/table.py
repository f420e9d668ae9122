"""Label tables: `labels.csv` with the columns path and label, and optionally patient_id and split."""

import csv
import io
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ttl_deploy.data.splits import SPLIT_WORDS
from ttl_deploy.errors import DataError, LabelError, UnreadableImageError
from ttl_deploy.plugins import Progress, RawData, RawSample
from ttl_deploy.records.data import Reading, Split

TABLE_NAMES = ("labels.csv", "labels.tsv")
_SUFFIXES = (".csv", ".tsv")
_DELIMITERS = (",", ";", "\t")
_PATH_NAMES = ("path", "image", "filename", "file_name", "file", "filepath", "file_path", "image_path", "img")
_PATIENT_NAMES = ("patient_id", "patient", "patientid", "subject_id", "subject")


class TableReader:
    """Reads a folder holding `labels.csv` (or `.tsv`), or the table itself.

    Paths are relative to the table's folder. Comma, semicolon or tab; UTF-8 with or without BOM.
    Names of columns are compared without case; the columns that are not used are kept as `extra`.
    Rows are counted as a spreadsheet does: the header is row 1.
    """

    def recognises(self, data: str) -> bool:
        """Accept a table, or a folder with one of the `TABLE_NAMES` in it."""
        return _table_of(Path(data)) is not None

    def read(self, data: str, reading: Reading, *, progress: Progress | None = None) -> RawData:
        """Read and check every row; raises `LabelError` or `UnreadableImageError` with row and column."""
        table = _table_of(Path(data))
        if table is None:
            raise DataError(f"{data} is no table: give a .csv or .tsv file, or a folder with {TABLE_NAMES[0]}")
        header, *rows = _parse(table)
        columns = _find_columns(header, reading.label_col or "label", table)
        root = table.parent.resolve()
        files = _FileFinder(root, table)
        samples = tuple(_samples(rows, columns, files))
        if not samples:
            raise DataError(f"{table} has a header and no rows: add one row per image")
        _refuse_blanks(samples, table)
        return RawData(name=root.name, root=root, samples=samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Where in a row things stand."""

    header: tuple[str, ...]
    path: int
    label: int
    patient: int | None
    split: int | None
    extra: tuple[int, ...]


def _table_of(data: Path) -> Path | None:
    if data.is_dir():
        return next((data / name for name in TABLE_NAMES if (data / name).is_file()), None)
    return data if data.suffix.lower() in _SUFFIXES and data.is_file() else None


def _parse(table: Path) -> list[list[str]]:
    """Return header and rows, cells stripped; blank rows stay, so that rows keep their numbers."""
    try:
        text = table.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {table}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{table} is not UTF-8 text (byte {error.start}): save it as 'CSV UTF-8'") from error
    if "\0" in text:
        raise LabelError(f"{table} holds NUL characters: it is damaged, or no text; save it as 'CSV UTF-8'")
    try:
        rows = [[cell.strip() for cell in row] for row in _rows(text)]
    except csv.Error as error:
        raise LabelError(f"{table} cannot be read as a table: {error}") from error
    if not rows or not any(rows[0]):
        raise LabelError(f"{table} has no header: its first row must name the columns, at least path and label")
    return rows


def _rows(text: str) -> Iterator[list[str]]:
    """Parse with the delimiter that finds the most columns in the first row."""
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


def _find_columns(header: Sequence[str], label_col: str, table: Path) -> _Columns:
    folded = [name.casefold().replace(" ", "_") for name in header]
    twice = sorted({name for name in folded if name and folded.count(name) > 1})
    if twice:
        raise LabelError(f"{table} has two columns named {twice[0]!r}: rename one")
    path = _first_of(_PATH_NAMES, folded)
    label = _first_of((label_col.strip().casefold().replace(" ", "_"),), folded)
    named = ", ".join(name for name in header if name)
    if path is None:
        raise LabelError(f"{table} has no column for the images (path, image or filename); it has: {named}")
    if label is None:
        raise LabelError(f"{table} has no column {label_col!r}; it has: {named}. Choose one with --label-col")
    patient, split = _first_of(_PATIENT_NAMES, folded), _first_of(("split",), folded)
    used = {path, label, patient, split}
    extra = tuple(i for i, name in enumerate(header) if name and i not in used)
    return _Columns(header=tuple(header), path=path, label=label, patient=patient, split=split, extra=extra)


def _first_of(names: Sequence[str], folded: Sequence[str]) -> int | None:
    return next((folded.index(name) for name in names if name in folded), None)


def _samples(rows: Sequence[Sequence[str]], columns: _Columns, files: "_FileFinder") -> Iterator[RawSample]:
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        if not any(row):
            continue
        where = f"{files.table} row {number}"
        if len(row) != len(columns.header):
            raise LabelError(f"{where} has {len(row)} cells, the header {len(columns.header)}: correct the row")
        path = files.find(row[columns.path], where=f"{where}, column {columns.header[columns.path]!r}")
        if path in seen:
            raise LabelError(f"{where} names {path} again, as row {seen[path]} does: keep one of the two rows")
        seen[path] = number
        yield _sample(row, columns, path=path, where=where)


def _sample(row: Sequence[str], columns: _Columns, *, path: str, where: str) -> RawSample:
    label = row[columns.label]
    if not label:
        raise LabelError(f"{where}, column {columns.header[columns.label]!r} is empty: every image needs a label")
    return RawSample(
        path=path,
        label=label,
        patient_id=(row[columns.patient] or None) if columns.patient is not None else None,
        split=_split_of(row[columns.split], where=where) if columns.split is not None else None,
        extra={columns.header[i]: row[i] for i in columns.extra},
    )


def _split_of(word: str, *, where: str) -> Split | None:
    if not word:
        return None
    split = SPLIT_WORDS.get(word.lower())
    if split is None:
        raise LabelError(f"{where}, column 'split' says {word!r}; allowed are train, val and test")
    return split


def _refuse_blanks(samples: Sequence[RawSample], table: Path) -> None:
    """Raise where some rows have a patient or a split and others have none."""
    for column, blank in (
        ("split", [sample for sample in samples if sample.split is None]),
        ("patient_id", [sample for sample in samples if sample.patient_id is None]),
    ):
        if 0 < len(blank) < len(samples):
            raise LabelError(
                f"{table}, column {column!r} is empty for {blank[0].path} and {len(blank) - 1} other rows, "
                "and filled for the rest: fill all of it, or leave the column out"
            )


class _FileFinder:
    """Turns a table's paths into paths below its folder; resolves each folder once."""

    def __init__(self, root: Path, table: Path) -> None:
        self.root = root
        self.table = table
        self._folders: dict[PurePosixPath, Path] = {}

    def find(self, text: str, *, where: str) -> str:
        """Return the path relative to the root, with forward slashes; raises with `where` if it leads nowhere good."""
        if not text:
            raise LabelError(f"{where} is empty: every row needs an image")
        given = PurePosixPath(text.replace("\\", "/"))
        try:
            path = self._folder(given.parent) / given.name
            self._require_below(path, text, where)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                path = path.resolve()
                self._require_below(path, text, where)
                mode = path.stat().st_mode
        except OSError as error:
            raise UnreadableImageError(f"{where}: {text} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(mode):
            raise UnreadableImageError(f"{where}: {text} is not a file")
        return path.relative_to(self.root).as_posix()

    def _require_below(self, path: Path, text: str, where: str) -> None:
        if path.name == ".." or not path.is_relative_to(self.root):
            raise LabelError(f"{where}: {text} leads out of {self.root}; images must lie below the table's folder")

    def _folder(self, folder: PurePosixPath) -> Path:
        if folder not in self._folders:
            self._folders[folder] = (self.root / folder).resolve()
        return self._folders[folder]
