"""From cells to what they say: labels, findings, splits."""

import re
from collections.abc import Mapping, Sequence

from ttl_deploy.data.readers.table_files import Cells, Table, shorten
from ttl_deploy.data.splits import SPLIT_WORDS
from ttl_deploy.errors import LabelError
from ttl_deploy.records.data import DataWarning, Finding, Split

Stated = str | Mapping[str, Finding]
NO_FINDING = frozenset(("nofinding", "nofindings"))
_MARKS: Mapping[str, Finding] = {
    "1": "present",
    "true": "present",
    "0": "absent",
    "false": "absent",
    "-1": "uncertain",
    "": "blank",
    "nan": "blank",
}
_WHOLE = re.compile(r"(-?\d+)(?:\.0+)?")


def read_labels(table: Table, columns: Sequence[int]) -> list[Stated]:
    """Return what every row says; raises `LabelError` with row and column where that cannot be told.

    Several columns are findings, marked 1, 0, -1 or blank. One column holds classes; or findings, where its names
    are separated by `|`; or a finding's marks, where these are 1, 0 and -1.
    """
    if len(columns) > 1:
        return read_marks(table, columns)
    cells = table.column(columns[0])
    distinct = set(cells)
    if any("|" in cell for cell in distinct):
        return read_lists(table, columns[0], {cell: split_list(cell) for cell in distinct})
    marks = {_as_mark(cell) for cell in distinct}
    if "uncertain" in marks and None not in marks:
        return read_marks(table, columns)
    if "" in distinct:
        raise LabelError(f"{_place(table, cells.index(''), columns[0])} is empty: every image needs a label")
    return list(unify_numbers(cells))


def read_marks(table: Table, columns: Sequence[int]) -> list[Stated]:
    """Return the findings of columns that each hold 1, 0, -1 or nothing."""
    names = [table.header[i] for i in columns]
    marks = {cell: _as_mark(cell) for i in columns for cell in set(table.column(i))}
    known: dict[Cells, Mapping[str, Finding]] = {}
    stated: list[Stated] = []
    for position, row in enumerate(table.rows):
        cells = tuple([row[i] for i in columns])
        findings = known.get(cells)
        if findings is None:
            found = {name: mark for name, cell in zip(names, cells, strict=True) if (mark := marks[cell]) is not None}
            if len(found) < len(names):
                raise _no_mark(table, position, columns)
            findings = known[cells] = found
        stated.append(findings)
    return stated


def read_lists(table: Table, column: int, lists: Mapping[str, Sequence[str]]) -> list[Stated]:
    """Return the findings of a column whose cells name those that are present; the others are absent.

    `lists` has the names in every distinct cell. "No Finding" stands for none, and only by itself.
    """
    names = sorted({name for found in lists.values() for name in found if not _is_none(name)})
    if not names:
        raise LabelError(f"{table.name}, column {table.header[column]!r} names no finding at all")
    known: dict[str, Mapping[str, Finding]] = {}
    stated: list[Stated] = []
    for position, row in enumerate(table.rows):
        cell = row[column]
        if cell not in known:
            present = set(lists[cell])
            if not present or (len(present) > 1 and any(map(_is_none, present))):
                what = "names findings and none" if present else "is empty: every image needs a label"
                raise LabelError(f"{_place(table, position, column)} {what}{': ' if present else ''}{shorten(cell)}")
            known[cell] = {name: "present" if name in present else "absent" for name in names}
        stated.append(known[cell])
    return stated


def unify_numbers(cells: Sequence[str]) -> Sequence[str]:
    """Write `2.0` as `2` where all cells are whole numbers or blank, so that both spellings mean the same."""
    found = {cell: _WHOLE.fullmatch(cell) for cell in set(cells) if cell}
    numbers = {cell: match.group(1) for cell, match in found.items() if match}
    return [numbers.get(cell, cell) for cell in cells] if len(numbers) == len(found) else cells


def read_splits(table: Table, column: int) -> list[Split | None]:
    """Return the splits of a column; None where it is blank."""
    cells = table.column(column)
    splits: dict[str, Split | None] = {cell: SPLIT_WORDS.get(cell.casefold()) for cell in set(cells)}
    for cell, split in splits.items():
        if cell and split is None:
            place = _place(table, cells.index(cell), column)
            raise LabelError(f"{place} says {shorten(cell)!r}; allowed are train, val and test")
    return [splits[cell] for cell in cells]


def tell_of_classes(stated: Sequence[Stated]) -> list[DataWarning]:
    """Warn of classes that differ in case only."""
    names = {label for label in stated if isinstance(label, str)}
    folded: dict[str, str] = {}
    twins = [
        (folded[name.casefold()], name) for name in sorted(names) if folded.setdefault(name.casefold(), name) != name
    ]
    if not twins:
        return []
    first, second = twins[0]
    text = f"the classes {shorten(first)!r} and {shorten(second)!r} differ in case only and count as two"
    return [DataWarning(kind="similar-classes", message=text)]


def _as_mark(cell: str) -> Finding | None:
    number = _WHOLE.fullmatch(cell)
    return _MARKS.get(number.group(1) if number else cell.casefold())


def _no_mark(table: Table, position: int, columns: Sequence[int]) -> LabelError:
    """Return the error for the first cell of a row that is no mark."""
    column = next(i for i in columns if _as_mark(table.rows[position][i]) is None)
    shown = repr(shorten(table.rows[position][column]))
    place = _place(table, position, column)
    return LabelError(f"{place} says {shown}; allowed for a finding are 1, 0, -1 (uncertain) and blank")


def split_list(cell: str) -> tuple[str, ...]:
    """Return the names in a cell that are separated by `|`."""
    return tuple(name.strip() for name in cell.split("|") if name.strip())


def _is_none(name: str) -> bool:
    return name.casefold().replace(" ", "").replace("_", "") in NO_FINDING


def _place(table: Table, position: int, column: int) -> str:
    return f"{table.where(position)}, column {table.header[column]!r}"
