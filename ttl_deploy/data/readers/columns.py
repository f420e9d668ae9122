"""Which column of a table holds what: as named, or recognised by its name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ttl_deploy.data.readers.table_files import Table, shorten
from ttl_deploy.data.splits import SPLIT_WORDS
from ttl_deploy.errors import LabelError
from ttl_deploy.records.data import Reading

Role = Literal["image", "label", "patient", "split"]

# Names as `fold` leaves them. The first group that a table has one of counts; two of one group are ambiguous.
_NAMES: dict[Role, tuple[tuple[str, ...], ...]] = {
    "image": (
        ("path",),
        (
            *("image", "img", "file", "filename", "filepath", "imagepath", "imgpath", "imagefile", "imagefilename"),
            *("imagename", "imgname", "imageindex", "imagefilepath", "relativepath", "relpath"),
        ),
        ("imageid", "imgid", "idcode", "isicid", "dicomid", "sopinstanceuid", "sopuid", "sopid", "uid"),
    ),
    "label": (
        ("label",),
        (
            *("labels", "class", "classname", "diagnosis", "dx", "target", "grade", "severity", "category"),
            *("finding", "findings", "findinglabels", "disease", "pathology", "y"),
        ),
    ),
    "patient": (
        ("patientid",),
        ("patient", "subjectid", "subject", "participantid", "participant", "personid", "pid"),
        ("lesionid",),
    ),
    "split": (("split",), ("set", "subset", "partition", "fold", "datasplit", "usage")),
}
_NEEDED = {"image": "for the images (path, image or filename)", "label": "for the label"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Where in a row things stand; `labels` are several where each is a finding of its own."""

    image: int
    labels: tuple[int, ...]
    patient: int | None
    split: int | None
    extra: tuple[int, ...]


def fold(name: str) -> str:
    """Return a column's name without case, spaces, underscores and hyphens."""
    return name.casefold().replace(" ", "").replace("_", "").replace("-", "")


def recognise(header: Sequence[str], role: Role) -> int | None:
    """Return the column that has a role by its name, if any; raises `LabelError` where several could."""
    folded = [fold(name) for name in header]
    for group in _NAMES[role]:
        found = [i for i, name in enumerate(folded) if name in group]
        if len(found) > 1:
            candidates = ", ".join(repr(header[i]) for i in found)
            raise LabelError(f"several columns could be the {role}: {candidates}. Choose one with --{role}-col")
        if found:
            return found[0]
    return None


def find_columns(table: Table, reading: Reading) -> Columns:
    """Return where things stand; raises `LabelError` with what the table has where a column is missing."""
    _refuse_twins(table)
    image = _column(table, reading.image_col, "image")
    labels = find_labels(table, reading.label_col)
    patient, split = _optional(table, reading.patient_col, "patient"), _split(table, reading.split_col)
    chosen = [("image", image), *(("label", i) for i in labels), ("patient", patient), ("split", split)]
    seen: dict[int, str] = {}
    for role, column in chosen:
        if column is not None and seen.setdefault(column, role) != role:
            twice = f"{role} and {seen[column]} are both column {table.header[column]!r}"
            raise LabelError(f"{table.name}: {twice}: name different ones with --{role}-col or --{seen[column]}-col")
    extra = tuple(i for i, name in enumerate(table.header) if name and i not in seen)
    return Columns(image=image, labels=labels, patient=patient, split=split, extra=extra)


def require_columns(table: Table, names: Sequence[str]) -> list[int]:
    """Return where the columns of a known data set stand; raises `LabelError` where one is not there."""
    absent = [name for name in names if name not in table.header]
    if absent:
        raise LabelError(f"{table.name} has no column {absent[0]!r}, as the data set's has; it has: {_names(table)}")
    return [table.header.index(name) for name in names]


def find_labels(table: Table, given: str) -> tuple[int, ...]:
    """Return the label's column; several where they are named with commas between them."""
    if not given or "," not in given or _position(table.header, given) is not None:
        return (_column(table, given, "label"),)
    names = [name.strip() for name in given.split(",") if name.strip()]
    found = tuple(_column(table, name, "label") for name in names)
    if not found or len(set(found)) < len(found):
        raise LabelError(f"--label-col {given}: name each column once")
    return found


def _column(table: Table, given: str, role: Role) -> int:
    found = _optional(table, given, role)
    if found is None:
        raise LabelError(f"{table.name} has no column {_NEEDED[role]}; it has: {_names(table)}. {_remedy(role)}")
    return found


def _optional(table: Table, given: str, role: Role) -> int | None:
    if not given:
        try:
            return recognise(table.header, role)
        except LabelError as error:
            raise LabelError(f"{table.name}: {error}") from error
    found = _position(table.header, given)
    if found is None:
        raise LabelError(f"{table.name} has no column {given!r}; it has: {_names(table)}. {_remedy(role)}")
    return found


def _split(table: Table, given: str) -> int | None:
    """A column called so counts; others, such as `set`, only if they hold the names of splits and nothing else."""
    found = _optional(table, given, "split")
    if found is None or given or fold(table.header[found]) == "split":
        return found
    words = {row[found].casefold() for row in table.rows}
    return found if words <= set(SPLIT_WORDS) else None


def _position(header: Sequence[str], given: str) -> int | None:
    """Return the column of a name: as it is written, else the only one that is alike."""
    name = given.strip()
    if header.count(name) == 1:
        return header.index(name)
    alike = [i for i, other in enumerate(header) if other and fold(other) == fold(name)]
    if len(alike) > 1:
        raise LabelError(f"{given!r} could be {', '.join(repr(header[i]) for i in alike)}: rename all but one")
    return alike[0] if alike else None


def _refuse_twins(table: Table) -> None:
    names = [name.casefold().replace(" ", "_") for name in table.header]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise LabelError(f"{table.name} has two columns named {shorten(twice[0])!r}: rename one")


def _names(table: Table) -> str:
    return shorten(", ".join(name for name in table.header if name))


def _remedy(role: Role) -> str:
    return f"Choose one with --{role}-col"
