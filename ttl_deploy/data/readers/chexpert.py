"""CheXpert: `train.csv` and `valid.csv` with fourteen observations, patients in the paths."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ttl_deploy.data.readers.cells import Stated, read_labels, read_marks
from ttl_deploy.data.readers.columns import Columns, find_columns, require_columns
from ttl_deploy.data.readers.table_files import Table, is_table, join_tables, read_header, read_table, shorten
from ttl_deploy.data.readers.table_rows import collect, image_root, read_rows
from ttl_deploy.data.splits import SPLIT_WORDS
from ttl_deploy.errors import LabelError
from ttl_deploy.plugins import Progress, RawData
from ttl_deploy.records.data import Reading, Split

OBSERVATIONS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""What CheXpert and MIMIC-CXR state of each image or study: 1, 0, -1 (uncertain) or blank (not mentioned)."""
_TABLES = ("train.csv", "valid.csv")
_FOLDERS = ("CheXpert-v1.0-small", "CheXpert-v1.0")
_PATIENT = re.compile(r"(?:^|/)(patient\d+)/")


class ChexpertReader:
    """Reads the folder `CheXpert-v1.0[-small]`, the one that holds it, or one of its two tables.

    The paths in the tables begin with the folder's name; where the folder is called otherwise, or the tables lie in
    it, that part is left out. `valid.csv` is the validation split. Sex, Age, Frontal/Lateral and AP/PA are kept.
    """

    def recognises(self, data: str) -> bool:
        """Accept tables with a column Path and all fourteen observations."""
        return bool(_tables_of(Path(data)))

    def read(self, data: str, reading: Reading, *, progress: Progress | None = None) -> RawData:
        """Read all rows; raises `DataError` and its kinds with row and column."""
        tables = [(path, read_table(path)) for path in _tables_of(Path(data))]
        table = join_tables([table for _, table in tables])
        require_columns(table, ("Path", *OBSERVATIONS))
        named = replace(reading, image_col=reading.image_col or "Path", label_col=reading.label_col or OBSERVATIONS[0])
        columns = choose_observations(table, find_columns(table, named), chosen=bool(reading.label_col))
        folder = tables[0][0].parent
        rows = read_rows(table, columns, labels=read_observations(table, columns.labels))
        images = _leave_out_folder(rows.images, image_root(reading, folder))
        patients = rows.patients if columns.patient is not None else _patients(table, columns.image)
        splits = rows.splits if columns.split is not None else _splits(tables)
        rows = replace(rows, images=images, patients=patients, splits=splits)
        return collect(rows, reading, name=folder.resolve().name, root=folder)


def choose_observations(table: Table, columns: Columns, *, chosen: bool) -> Columns:
    """Take all fourteen observations for labels unless the user has chosen columns; none of them is `extra`."""
    observed = tuple(require_columns(table, OBSERVATIONS))
    labels = columns.labels if chosen else observed
    return replace(columns, labels=labels, extra=tuple(i for i in columns.extra if i not in observed))


def read_observations(table: Table, columns: Sequence[int]) -> list[Stated]:
    """Return what every row says of observations; another column is read as in any table."""
    if all(table.header[i] in OBSERVATIONS for i in columns):
        return read_marks(table, columns)
    return read_labels(table, columns)


def _tables_of(data: Path) -> list[Path]:
    """Return the tables of the data set that a path belongs to, if it does."""
    if not data.is_dir():
        return [data] if is_table(data.name) and data.is_file() and _is_chexpert(data) else []
    for folder in (data, *(data / name for name in _FOLDERS)):
        tables = [folder / name for name in _TABLES if (folder / name).is_file()]
        if tables:
            return tables if folder.name in _FOLDERS or any(map(_is_chexpert, tables)) else []
    return []


def _is_chexpert(table: Path) -> bool:
    return {"Path", *OBSERVATIONS} <= set(read_header(table))


def _leave_out_folder(images: Sequence[str], root: Path) -> list[str]:
    """Leave out the data set's name at the beginning of the paths where there is no such folder."""
    leads = {image.partition("/")[0] for image in images}
    absent = {f"{lead}/" for lead in leads if lead.startswith("CheXpert") and not (root / lead).is_dir()}
    return [image.partition("/")[2] if f"{image.partition('/')[0]}/" in absent else image for image in images]


def _patients(table: Table, column: int) -> list[str | None]:
    patients: list[str | None] = []
    for position, path in enumerate(table.column(column)):
        found = _PATIENT.search(path)
        if found is None:
            place = f"{table.where(position)}, column {table.header[column]!r}"
            raise LabelError(f"{place}: {shorten(path)} names no patient; expected is a folder such as patient00001")
        patients.append(found.group(1))
    return patients


def _splits(tables: Sequence[tuple[Path, Table]]) -> list[Split | None]:
    """Return the splits that the tables are called after; none where only one table was given by another name."""
    splits: list[Split | None] = []
    for path, table in tables:
        splits += [SPLIT_WORDS.get(path.stem.lower())] * len(table.rows)
    return splits
