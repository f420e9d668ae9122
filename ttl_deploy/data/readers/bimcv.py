"""BIMCV-COVID19+ and -: reports of sessions with radiologists' labels, X-rays in BIDS-like folders."""

import re
from collections.abc import Iterator
from pathlib import Path

from ttl_deploy.data.readers.cells import read_lists
from ttl_deploy.data.readers.columns import Columns, require_columns
from ttl_deploy.data.readers.table_files import Source, Table, list_folder, read_header, read_table
from ttl_deploy.data.readers.table_rows import collect, image_root, read_rows
from ttl_deploy.errors import LabelError, UsageError
from ttl_deploy.plugins import Progress, RawData
from ttl_deploy.records.data import DataWarning, Reading

_LABELS = "derivatives/labels/labels_*.tsv"
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_PARTICIPANT, _GENDER = "participant", "gender"
_HEADER = ("path", "PatientID", "ReportID", "Labels", _GENDER)


class BimcvReader:
    """Reads a folder with `derivatives/labels/labels_*.tsv` and `sub-S*/ses-E*/mod-rx/*.png`.

    Both may lie one folder deeper, as the archives unpack them. Every X-ray of a session has the labels of the
    session's report (`Labels`, a list such as `['normal']`), as findings; reports without labels are left out. CT
    volumes are not read. Of `participants.tsv` the gender is kept.
    """

    def recognises(self, data: str) -> bool:
        """Accept a folder with the table of labels."""
        return _table_of(Path(data)) is not None

    def read(self, data: str, reading: Reading, *, progress: Progress | None = None) -> RawData:
        """Read all reports and look for their X-rays; raises `DataError` and its kinds with row and column."""
        for option in ("image_col", "label_col", "patient_col", "split_col"):
            if given := getattr(reading, option):
                raise UsageError(f"--{option.replace('_', '-')} {given}: {data} has BIMCV's columns, so leave it out")
        path = _table_of(Path(data))
        if path is None:
            raise LabelError(f"{data} has no {_LABELS}")
        root = image_root(reading, Path(data))
        reports = read_table(path)
        table, warnings = _join(reports, root, _genders(path.parents[2]))
        columns = Columns(image=0, labels=(3,), patient=1, split=None, extra=(2, 4))
        lists = {cell: _names(cell) for cell in set(table.column(3))}
        rows = read_rows(table, columns, labels=read_lists(table, 3, lists))
        return collect(rows, reading, name=path.parents[2].resolve().name, root=root, warnings=warnings)


def _table_of(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    inner = [name for name, is_folder in list_folder(folder) if is_folder]
    found = [path for name in (".", *inner) for path in sorted((folder / name).glob(_LABELS))]
    return next(iter(found), None)


def _join(reports: Table, root: Path, genders: dict[str, str]) -> tuple[Table, list[DataWarning]]:
    """Return a table with a row per X-ray of a labelled report, and what is left out."""
    patient, report, labels = require_columns(reports, ("PatientID", "ReportID", "Labels"))
    sessions = _sessions(root)
    rows, numbers, unlabelled, without = [], [], 0, 0
    for position, row in enumerate(reports.rows):
        images = sessions.get((row[patient], row[report]), [])
        unlabelled += not _names(row[labels])
        without += not images
        if _names(row[labels]):
            for image in images:
                rows.append((image, row[patient], row[report], row[labels], genders.get(row[patient], "")))
                numbers.append(reports.sources[0].numbers[position])
    if not rows:
        raise LabelError(f"{reports.name}: no X-ray of any report is below {root} (sub-*/ses-*/mod-rx/*.png)")
    source = Source(path=reports.sources[0].path, start=0, numbers=numbers)
    return Table(header=_HEADER, rows=rows, sources=(source,)), list(_tell(unlabelled, without))


def _sessions(root: Path) -> dict[tuple[str, str], list[str]]:
    """Return the X-rays of every patient and session, relative to the root; links are not followed."""
    sessions: dict[tuple[str, str], list[str]] = {}
    for pattern in ("sub-*/ses-*/mod-rx", "*/sub-*/ses-*/mod-rx"):
        for folder in sorted(root.glob(pattern)):
            if folder.resolve() != root / folder.relative_to(root):
                continue
            images = sorted(path.relative_to(root).as_posix() for path in folder.glob("*.png"))
            sessions.setdefault((folder.parts[-3], folder.parts[-2]), []).extend(images)
    return sessions


def _genders(folder: Path) -> dict[str, str]:
    path = folder / "participants.tsv"
    if not {_PARTICIPANT, _GENDER} <= set(read_header(path)):
        return {}
    table = read_table(path)
    participant, gender = table.header.index(_PARTICIPANT), table.header.index(_GENDER)
    return {row[participant]: row[gender] for row in table.rows}


def _names(cell: str) -> tuple[str, ...]:
    """Return the names in a list as the tables write it: quoted, with commas or tabs between them."""
    names = (single or double for single, double in _QUOTED.findall(cell))
    return tuple(name.strip() for name in names if name.strip())


def _tell(unlabelled: int, without: int) -> Iterator[DataWarning]:
    if unlabelled:
        yield DataWarning(kind="images-without-labels", message=f"{unlabelled} reports have no labels and are left out")
    if without:
        yield DataWarning(kind="labels-without-images", message=f"{without} reports have no X-ray here")
