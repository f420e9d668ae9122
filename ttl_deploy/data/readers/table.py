"""Label tables: a row per image, with columns for its file and its label, and optionally patient and split."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ttl_deploy.data.readers.columns import find_columns, find_labels, fold, recognise
from ttl_deploy.data.readers.table_files import (
    TABLE_SUFFIXES,
    Table,
    is_table,
    join_tables,
    list_folder,
    read_header,
    read_table,
)
from ttl_deploy.data.readers.table_rows import Rows, collect, read_rows
from ttl_deploy.data.splits import SPLIT_WORDS
from ttl_deploy.errors import DataError, LabelError
from ttl_deploy.plugins import Progress, RawData
from ttl_deploy.records.data import DataWarning, Reading, Split

TABLE_NAMES = ("labels.csv", "labels.tsv", "labels.parquet")


class TableReader:
    """Reads a table, or a folder holding `labels.csv`, one table of any name, or `train.csv` and `test.csv`.

    Paths are relative to the table's folder, or to the `image_root`. Columns are recognised by their names, which
    are compared without case, spaces and underscores; the columns that are not used are kept as `extra`.
    """

    def recognises(self, data: str) -> bool:
        """Accept a table, or a folder with tables that say which image has which label."""
        path = Path(data)
        return is_table(path.name) and path.is_file() if not path.is_dir() else bool(tables_of(path))

    def read(self, data: str, reading: Reading, *, progress: Progress | None = None) -> RawData:
        """Read and check every row; raises `DataError` and its kinds with row and column."""
        paths = tables_of(Path(data)) if Path(data).is_dir() else [Path(data)]
        if not paths or not all(is_table(path.name) for path in paths):
            known = ", ".join(TABLE_SUFFIXES)
            raise DataError(f"{data} is no table: give a file that ends in {known}, or a folder with {TABLE_NAMES[0]}")
        if len(paths) == 1:
            rows, warnings = _read_one(paths[0], reading), list[DataWarning]()
        else:
            rows, warnings = _read_splits(paths, reading)
        root = paths[0].parent.resolve()
        return collect(rows, reading, name=root.name, root=root, warnings=warnings)


def tables_of(folder: Path) -> list[Path]:
    """Return the tables of a folder that belong together; none where that cannot be told, or where there is none."""
    for name in TABLE_NAMES:
        if (folder / name).is_file():
            return [folder / name]
    listed = list_folder(folder)
    tables = [folder / name for name, is_folder in listed if is_table(name) and not is_folder]
    if len(tables) == 1:
        return tables if _names_images(tables[0]) or not any(is_folder for _, is_folder in listed) else []
    splits = [_split_of(path) for path in tables]
    belong = [path for path, split in zip(tables, splits, strict=True) if split]
    named = [split for split in splits if split]
    if "train" in named and len(set(named)) == len(named) and all(map(_names_images, belong)):
        return belong
    return []


def _split_of(table: Path) -> Split | None:
    return SPLIT_WORDS.get(table.name.lower().partition(".")[0])


def _names_images(table: Path) -> bool:
    """Tell whether a table's header has a column for images; a folder of classes may hold another table."""
    try:
        return recognise(read_header(table), "image") is not None
    except LabelError:
        return True


def _read_one(path: Path, reading: Reading) -> Rows:
    table = read_table(path)
    return read_rows(table, find_columns(table, reading))


def _read_splits(paths: Sequence[Path], reading: Reading) -> tuple[Rows, list[DataWarning]]:
    """Read tables that are called after splits; one without the label's column is left out, train excepted."""
    tables: list[Table] = []
    splits: list[Split | None] = []
    warnings = []
    for path in sorted(paths, key=lambda path: _split_of(path) != "train"):
        table = read_table(path)
        if tables and not _has_labels(table, reading, tables[0]):
            text = f"{path.name} has no labels and is left out: {len(table.rows)} rows"
            warnings.append(DataWarning(kind="unlabelled-table", message=text))
            continue
        tables.append(table)
        splits += [_split_of(path)] * len(table.rows)
    joined = join_tables(tables)
    columns = find_columns(joined, reading)
    rows = read_rows(joined, columns)
    return rows if columns.split is not None else replace(rows, splits=splits), warnings


def _has_labels(table: Table, reading: Reading, first: Table) -> bool:
    names = {fold(first.header[i]) for i in find_labels(first, reading.label_col)}
    return names <= {fold(name) for name in table.header}
