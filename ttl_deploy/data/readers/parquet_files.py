"""Parquet files through pyarrow, which is an optional part of the installation."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ttl_deploy import plugins
from ttl_deploy.errors import DataError, LabelError

NEED = "reading Parquet"
_MOST_CELLS = 200_000_000  # a few bytes of Parquet can stand for billions of rows


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Translate what pyarrow raises on a damaged file into a `DataError`."""
    arrow = plugins.import_part("pyarrow", need=NEED)
    try:
        yield
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} cannot be read as Parquet: {reason}. Write it anew") from error


def open_parquet(path: Path) -> Any:
    """Return a `pyarrow.parquet.ParquetFile`; raises `DataError`, or `MissingExtraError` without pyarrow."""
    parquet = plugins.import_part("pyarrow.parquet", need=NEED)
    with parquet_errors(path):
        file = parquet.ParquetFile(path)
    cells = file.metadata.num_rows * file.metadata.num_columns
    if cells > _MOST_CELLS:
        raise LabelError(f"{path} has {cells:,} cells, at most {_MOST_CELLS:,} are read: leave out columns")
    return file


def read_parquet_cells(path: Path) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the header and all cells as text; empty where a value is missing.

    Raises `LabelError` for a column of lists or of bytes, which no cell of text can hold.
    """
    file = open_parquet(path)
    with parquet_errors(path):
        table = file.read()
        columns = [_cells(path, name, table.column(i)) for i, name in enumerate(table.column_names)]
    return [name.strip() for name in table.column_names], list(zip(*columns, strict=True))


def cells_of(column: Any) -> list[str]:
    """Return the values of a column as text."""
    return ["" if value is None else str(value).strip() for value in column.to_pylist()]


def _cells(path: Path, name: str, column: Any) -> list[str]:
    types = plugins.import_part("pyarrow.types", need=NEED)
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        raise LabelError(f"{path}, column {name!r} holds {kind}; allowed are text, numbers and truth values")
    return cells_of(column)
