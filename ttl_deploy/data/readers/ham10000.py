"""HAM10000: `HAM10000_metadata`, images named by their ids in two folders, several images of a lesion."""

from pathlib import Path

from ttl_deploy.data.readers.columns import find_columns, require_columns
from ttl_deploy.data.readers.table_files import read_table
from ttl_deploy.data.readers.table_rows import collect, read_rows
from ttl_deploy.plugins import Progress, RawData
from ttl_deploy.records.data import Reading

_TABLES = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
_COLUMNS = ("lesion_id", "image_id", "dx")


class Ham10000Reader:
    """Reads the folder with `HAM10000_metadata` (with or without `.csv`), or that table.

    Images are looked up by `image_id` in all folders below, such as `HAM10000_images_part_1`. The label is `dx`;
    images of one lesion stay together as those of a patient do, since patients are not told.
    """

    def recognises(self, data: str) -> bool:
        """Accept the table by its name: with a damaged one, folders of images are no classes either."""
        return _table_of(Path(data)) is not None

    def read(self, data: str, reading: Reading, *, progress: Progress | None = None) -> RawData:
        """Read all rows; raises `DataError` and its kinds with row and column."""
        path = _table_of(Path(data)) or Path(data)
        table = read_table(path)
        require_columns(table, _COLUMNS)
        rows = read_rows(table, find_columns(table, reading))
        return collect(rows, reading, name="HAM10000", root=path.parent)


def _table_of(data: Path) -> Path | None:
    paths = [data / name for name in _TABLES] if data.is_dir() else [data]
    return next((path for path in paths if path.name in _TABLES and path.is_file()), None)
