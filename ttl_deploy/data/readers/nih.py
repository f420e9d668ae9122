"""NIH ChestX-ray14: `Data_Entry_2017.csv`, images in twelve folders, the official lists of the splits."""

from dataclasses import replace
from pathlib import Path

from ttl_deploy.data.readers.cells import Stated, read_lists, split_list
from ttl_deploy.data.readers.columns import find_columns, require_columns
from ttl_deploy.data.readers.table_files import Table, read_table, read_text
from ttl_deploy.data.readers.table_rows import collect, read_rows
from ttl_deploy.errors import LabelError
from ttl_deploy.plugins import Progress, RawData
from ttl_deploy.records.data import DataWarning, Reading, Split

_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
_LISTS: tuple[tuple[str, Split], ...] = (("train_val_list.txt", "train"), ("test_list.txt", "test"))
_IMAGE, _LABEL = "Image Index", "Finding Labels"


class NihReader:
    """Reads the folder with `Data_Entry_2017.csv` (or `_v2020`), or that table.

    Images lie in `images/`, or in `images_001/images` to `images_012/images`, or anywhere below. "No Finding" stands
    for none of the fourteen. With `train_val_list.txt` and `test_list.txt` beside the table the test split is
    the official one, and validation is taken from train later.
    """

    def recognises(self, data: str) -> bool:
        """Accept the table by its name: with a damaged one, folders of images are no classes either."""
        return _table_of(Path(data)) is not None

    def read(self, data: str, reading: Reading, *, progress: Progress | None = None) -> RawData:
        """Read all rows; raises `DataError` and its kinds with row and column."""
        path = _table_of(Path(data)) or Path(data)
        table = read_table(path)
        require_columns(table, (_IMAGE, _LABEL))
        columns = find_columns(table, reading)
        splits: list[Split | None] = []
        warnings: list[DataWarning] = []
        if columns.split is None:
            table, splits, warnings = _with_official_splits(table, columns.image, path.parent)
        rows = read_rows(table, columns, labels=None if reading.label_col else _read_findings(table))
        rows = replace(rows, splits=splits) if splits else rows
        return collect(rows, reading, name="ChestX-ray14", root=path.parent, warnings=warnings)


def _table_of(data: Path) -> Path | None:
    paths = [data / name for name in _TABLES] if data.is_dir() else [data]
    return next((path for path in paths if path.name in _TABLES and path.is_file()), None)


def _read_findings(table: Table) -> list[Stated]:
    column = table.header.index(_LABEL)
    return read_lists(table, column, {cell: split_list(cell) for cell in set(table.column(column))})


def _with_official_splits(
    table: Table, image: int, folder: Path
) -> tuple[Table, list[Split | None], list[DataWarning]]:
    """Return the rows that are in the official lists, and their splits; all rows and none where there are no lists."""
    lists = [folder / name for name, _ in _LISTS if (folder / name).is_file()]
    if len(lists) < len(_LISTS):
        text = "the official splits are not used, as only {} is here: put the other list beside it"
        told = [DataWarning(kind="no-official-splits", message=text.format(path.name)) for path in lists]
        return table, [], told
    splits = _read_lists(folder)
    listed = [position for position, name in enumerate(table.column(image)) if name in splits]
    if not listed:
        raise LabelError(f"no image of {table.name} is in the official lists beside it: take all of one release")
    kept = table.keep(listed)
    left_out = len(table.rows) - len(listed)
    text = f"{left_out} images are in none of the official lists and left out"
    told = [DataWarning(kind="left-out-rows", message=text)] if left_out else []
    return kept, [splits[name] for name in kept.column(image)], told


def _read_lists(folder: Path) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for name, split in _LISTS:
        for image in read_text(folder / name).split():
            if splits.setdefault(image, split) != split:
                raise LabelError(f"{image} is in {_LISTS[0][0]} and in {_LISTS[1][0]} of {folder}: keep one of them")
    return splits
