"""Table files as text: CSV and TSV in any dialect, also gzipped, and Parquet."""

import codecs
import csv
import gzip
import io
import os
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ttl_deploy.data.readers.parquet_files import open_parquet, read_parquet_cells
from ttl_deploy.errors import DataError, LabelError

TEXT_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
TABLE_SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
_DELIMITERS = (",", ";", "\t", "|")
_SNIFFED_CHARACTERS = 1 << 16
_SNIFFED_ROWS = 32
_LARGEST_BYTES = 1 << 29  # a table of a million images has about 100 MB
_SHOWN = 120

Cells = tuple[str, ...]
"""A row; a tuple of text is nothing that the garbage collector goes through again and again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file that rows came from: those from position `start` on, with their numbers in the file."""

    path: Path
    start: int
    numbers: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A header and rows of as many cells, without blanks around them; rows without content are left out.

    Text tables count as a spreadsheet does: the header is row 1. The rows of Parquet files count from 1.
    """

    header: tuple[str, ...]
    rows: Sequence[Cells]
    sources: tuple[Source, ...]

    def where(self, position: int, *, beside: int | None = None) -> str:
        """Return file and row number of a row for messages; no file where the row `beside` it has the same."""
        source = self._source(position)
        row = f"row {source.numbers[position - source.start]}"
        return row if beside is not None and self._source(beside) is source else f"{source.path} {row}"

    def _source(self, position: int) -> Source:
        return self.sources[bisect_right([source.start for source in self.sources], position) - 1]

    @property
    def name(self) -> str:
        """The files' names, for messages about all of it."""
        return " and ".join(str(source.path) for source in self.sources)

    def column(self, index: int) -> list[str]:
        """Return the cells of a column."""
        return [row[index] for row in self.rows]

    def keep(self, positions: Sequence[int]) -> "Table":
        """Return only the rows at these positions, which are given in order; they keep their numbers."""
        sources = []
        for source in self.sources:
            start = bisect_left(positions, source.start)
            chosen = positions[start : bisect_left(positions, source.start + len(source.numbers))]
            numbers = [source.numbers[position - source.start] for position in chosen]
            sources.append(Source(path=source.path, start=start, numbers=numbers))
        return Table(header=self.header, rows=[self.rows[i] for i in positions], sources=tuple(sources))


def is_table(name: str) -> bool:
    """Tell by its name whether a file can be a table."""
    return name.lower().endswith(TABLE_SUFFIXES)


def list_folder(folder: Path) -> list[tuple[str, bool]]:
    """Return the names in a folder, hidden ones left out, and whether they are folders; there may be very many."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror}") from error


def shorten(text: str) -> str:
    """Return a cell as messages show it."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"


def read_table(path: Path) -> Table:
    """Read a table; raises `DataError` where it cannot be read, `LabelError` with the row where it makes no sense."""
    if path.name.lower().endswith(".parquet"):
        names, cells = read_parquet_cells(path)
        return _collect(path, names, cells, first=1)
    text = read_text(path)
    header, *rows = _parse(path, text) or [()]
    if not any(header):
        raise LabelError(f"{path} has no header: its first row must name the columns, at least path and label")
    return _collect(path, header, rows, first=2)


def read_header(path: Path) -> tuple[str, ...]:
    """Return the names of a table's columns, reading little of it; none where it is no readable table."""
    try:
        if path.name.lower().endswith(".parquet"):
            return tuple(open_parquet(path).schema_arrow.names)
        text = read_text(path, limit=_SNIFFED_CHARACTERS, only_beginning=True)
        return tuple(next(iter(_parse(path, text)), ()))
    except DataError:
        return ()


def join_tables(tables: Sequence[Table]) -> Table:
    """Append tables of the same columns, in whatever order they have them; raises `LabelError` for others."""
    first = tables[0]
    rows: list[Cells] = []
    sources: list[Source] = []
    for table in tables:
        if sorted(table.header) != sorted(first.header):
            odd = sorted(set(table.header) ^ set(first.header))
            raise LabelError(f"{first.name} and {table.name} differ in their columns: {', '.join(odd)}")
        order = [table.header.index(name) for name in first.header]
        start = len(rows)
        same = order == list(range(len(order)))
        rows += table.rows if same else [tuple(row[i] for i in order) for row in table.rows]
        sources += [
            Source(path=source.path, start=source.start + start, numbers=source.numbers) for source in table.sources
        ]
    return Table(header=first.header, rows=rows, sources=tuple(sources))


def _collect(path: Path, header: Sequence[str], rows: Sequence[Cells], *, first: int) -> Table:
    """Keep the rows with content; raises `LabelError` where one has too few or too many cells."""
    width = len(header)
    numbers: Sequence[int] = range(first, first + len(rows))
    if not all(len(row) == width and any(row) for row in rows):
        kept = [(number, row) for number, row in zip(numbers, rows, strict=True) if any(row)]
        for number, row in kept:
            if len(row) < width or any(row[width:]):  # spreadsheets append empty cells, which do no harm
                raise LabelError(f"{path} row {number} has {len(row)} cells, the header {width}: correct the row")
        numbers, rows = [number for number, _ in kept], [row[:width] for _, row in kept]
    if not rows:
        raise DataError(f"{path} has a header and no rows: add one row per image")
    return Table(header=tuple(header), rows=rows, sources=(Source(path=path, start=0, numbers=numbers),))


def read_text(path: Path, *, limit: int = _LARGEST_BYTES, only_beginning: bool = False) -> str:
    """Return a text file's content, unpacked from gzip; raises `DataError` where it is no text or too large."""
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb") as file:
            content = file.read(limit + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LabelError(f"{path} is a damaged gzip file: {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if only_beginning:
        content = content[: content.rfind(b"\n") + 1] or content
    elif len(content) > limit:
        raise LabelError(f"{path} is larger than {limit >> 20} MiB: split it, or leave out columns")
    text = _decode(path, content)
    if "\0" in text:
        raise LabelError(f"{path} holds NUL characters: it is damaged, or no text; save it as 'CSV UTF-8'")
    return text


def _decode(path: Path, content: bytes) -> str:
    """Decode UTF-8 with or without a byte order mark, and UTF-16 with one, as Excel's "Unicode text" has."""
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is not UTF-8 text (byte {error.start}): save it as 'CSV UTF-8'") from error


def _parse(path: Path, text: str) -> list[Cells]:
    """Return all rows, their cells without blanks around them."""
    rows: list[Cells] = []
    try:
        lines = io.StringIO(text, newline="")
        for row in csv.reader(lines, delimiter=_delimiter(path, text), strict=True, skipinitialspace=True):
            rows.append(tuple(map(str.strip, row)))
    except csv.Error as error:
        raise LabelError(f"{path} cannot be read as a table: row {len(rows) + 1}: {error}") from error
    return rows


def _delimiter(path: Path, text: str) -> str:
    """Return the delimiter by which the first rows agree on the most columns, else by which the header has most.

    Where two are as good, the one that the file's name stands for goes first.
    """
    head = text[:_SNIFFED_CHARACTERS]
    if len(head) < len(text):
        head = head[: head.rfind("\n") + 1] or head
    tabs_first = ".tsv" in path.name.lower()
    marks = sorted(_DELIMITERS, key=lambda mark: mark != "\t") if tabs_first else _DELIMITERS
    return max(marks, key=lambda mark: _agreement(head, mark))


def _agreement(head: str, delimiter: str) -> tuple[bool, int]:
    reader = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter, skipinitialspace=True)
    widths = [len(row) for row in islice(reader, _SNIFFED_ROWS) if row]
    return bool(widths) and widths[0] > 1 and len(set(widths)) == 1, widths[0] if widths else 0
