"""How a data set is read: the options that `search`, `probe`, `inspect` and `verify` share."""

import csv
import dataclasses
import io
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ttl_deploy.errors import UsageError
from ttl_deploy.records.data import Reading

ImageCol = Annotated[str | None, typer.Option(help="Column of the table with the images' paths [recognised].")]
LabelCol = Annotated[
    str | None,
    typer.Option(help="Column of the table with the label; several, separated by commas, are findings [recognised]."),
]
PatientCol = Annotated[str | None, typer.Option(help="Column of the table with the patient's id [recognised].")]
SplitCol = Annotated[
    str | None,
    typer.Option(help="Column with train, val or test; none ignores the splits that the data name [recognised]."),
]
Labels = Annotated[
    str | None,
    typer.Option(
        "--label", help="Keep these classes or findings, separated by commas; one makes a task of two classes."
    ),
]
Uncertain = Annotated[
    str | None, typer.Option(help="Uncertain findings: ones, zeros, or ignore, which masks them [ignore].")
]
Blank = Annotated[str | None, typer.Option(help="Findings left blank: zeros, or ignore, which masks them [zeros].")]
ClassMap = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Rename and group classes: CSV with columns old,new, or TOML (docs/data.md)."),
]
ImageRoot = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="Where the table's images lie [the table's folder].")
]
MaxBad = Annotated[float | None, typer.Option(min=0, max=1, help="Stop above this share of unreadable images [0.01].")]
PARAMETERS = {
    "image_col": ImageCol,
    "label_col": LabelCol,
    "patient_col": PatientCol,
    "split_col": SplitCol,
    "label": Labels,
    "uncertain": Uncertain,
    "blank": Blank,
    "class_map": ClassMap,
    "image_root": ImageRoot,
    "max_bad": MaxBad,
}
"""What a command gets in the place of its `**reading`."""
_FIELDS = {field.name for field in dataclasses.fields(Reading)} - {"labels", "classes"}
OPTIONS = frozenset(_FIELDS | {"label", "class_map"})
"""The options' names in a config file."""
_LARGEST_MAP = 1 << 20


def read_reading(merged: Mapping[str, Any], *, like: Reading | None = None) -> Reading:
    """Return what the options say, those not given as in `like`; raises `UsageError` for what does not fit."""
    given = {name: merged[name] for name in _FIELDS if merged.get(name) is not None}
    if (labels := merged.get("label")) is not None:
        given["labels"] = split_names(labels) if isinstance(labels, str) else labels
    if (class_map := merged.get("class_map")) is not None:
        given["classes"] = read_class_map(Path(str(class_map)))
    if isinstance(given.get("label_col"), list | tuple):
        given["label_col"] = ",".join(given["label_col"])
    known = {field.name: getattr(like, field.name) for field in dataclasses.fields(Reading)} if like else {}
    try:
        return msgspec.convert(known | given, type=Reading)
    except (msgspec.ValidationError, ValueError) as error:
        raise UsageError(f"cannot use these settings: {error}") from error


def split_names(text: str) -> tuple[str, ...]:
    """Return the names of a list with commas."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError("--label is empty: name one class or finding, or several separated by commas")
    return names


def read_class_map(path: Path) -> dict[str, str]:
    """Read a small mapping file, old class name to new; an empty new name leaves a class out.

    TOML: `new = "old"` or `new = ["old", "old"]`. CSV: the columns old and new. Raises `UsageError`.
    """
    try:
        if path.stat().st_size > _LARGEST_MAP:
            raise UsageError(f"{path} is larger than 1 MB: a class map has one line per class")
        text = path.read_text(encoding="utf-8-sig")
        pairs = _pairs_of_toml(text) if path.suffix.lower() == ".toml" else _pairs_of_csv(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, csv.Error, ValueError) as error:
        raise UsageError(f"cannot read the class map {path}: {error}") from error
    mapped: dict[str, str] = {}
    for old, new in pairs:
        if mapped.setdefault(old, new) != new:
            raise UsageError(f"{path} maps {old!r} to {mapped[old]!r} and to {new!r}: keep one of them")
    if not mapped:
        raise UsageError(f"{path} maps nothing: give lines such as old,new, or TOML new = ['old', 'old']")
    return mapped


def _pairs_of_toml(text: str) -> list[tuple[str, str]]:
    pairs = []
    for new, old in tomllib.loads(text).items():
        names = old if isinstance(old, list) else [old]
        if not all(isinstance(name, str) for name in names):
            raise ValueError(f"{new} = {old!r}: give the old name, or a list of them")
        pairs += [(name, new) for name in names]
    return pairs


def _pairs_of_csv(text: str) -> list[tuple[str, str]]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), strict=True) if any(row)]
    if not rows or [name.casefold() for name in rows[0]] != ["old", "new"]:
        raise ValueError("its first row must be old,new")
    for row in rows[1:]:
        if len(row) != 2 or not row[0]:
            raise ValueError(f"the row {row!r} must hold an old name and a new one, which may be empty")
    return [(old, new) for old, new in rows[1:]]
