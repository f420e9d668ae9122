"""From a table's other columns to groups of images: values, bands of numbers, and blanks; nothing is dropped.

A column's cells are text. Few different values are groups as they are. Many are cut into bands where they are numbers,
and left out where they are names, as of an image or a study.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ttl_deploy.errors import UsageError
from ttl_deploy.evidence.answers import Floats, Integers
from ttl_deploy.records.subgroups import LeftOut

MOST_VALUES = 12
"""With more different values a column is cut into bands, or left out unless it is asked for."""
MOST_GROUPS = 50
"""A column with more groups than that is refused: a table of them would tell nothing."""
BLANK = "(blank)"
_MOST_WORDS = 5  # words such as "unknown" among numbers, each a group of its own
_QUARTILES = (0.25, 0.5, 0.75)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_DICOM_AGE = re.compile(r"(\d{3})([DWMY])", re.ASCII)
_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}
_LARGEST = 1e15  # whole numbers beyond are not told apart
_LONGEST = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """One column's groups: their `names` in order, and which of them each image is in, `members` `(N,)`."""

    column: str
    names: tuple[str, ...]
    members: Integers
    banded: bool = False


Rows = Sequence[Mapping[str, str]]
"""One mapping from column to cell per image."""


def find_groupings(
    rows: Rows, *, by: Sequence[str] = (), bands: Mapping[str, Sequence[float]] | None = None
) -> tuple[tuple[Grouping, ...], tuple[LeftOut, ...]]:
    """Divide images by the columns of their table; returns the groupings, and which columns are left out and why.

    Without `by` these are all columns in which few enough values, or numbers, make two groups or more. `bands` gives a
    column's edges; a column that is named there is used too. Raises `UsageError` for an unknown column, one
    with too many groups, and bands of what is no number.
    """
    edges = dict(bands or {})
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    for name in (*by, *edges):
        if name not in columns:
            raise UsageError(f"there is no column {name!r}: {_list(columns)}")
    found: list[Grouping] = []
    left_out: list[LeftOut] = []
    wanted = tuple(dict.fromkeys((*by, *edges))) if by else columns
    for column in wanted:
        cells = [row.get(column, "").strip() for row in rows]
        named = column in by or column in edges
        one = _group(column, cells, edges.get(column), named=named)
        if isinstance(one, Grouping):
            found.append(one)
        else:
            left_out.append(one)
    return tuple(found), tuple(left_out)


def clean_name(text: str) -> str:
    """Return a name as it can be shown: no control characters, and not endless."""
    printable = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    return printable if len(printable) <= _LONGEST else f"{printable[: _LONGEST - 1]}…"


def read_number(cell: str) -> float | None:
    """Read a number in ASCII with a decimal point, or an age as DICOM writes it (`058Y`, in years); else None."""
    if age := _DICOM_AGE.fullmatch(cell):
        return int(age.group(1)) / _PER_YEAR[age.group(2)]
    value = float(cell) if _NUMBER.fullmatch(cell) else math.nan
    return value if abs(value) <= _LARGEST else None


def _list(columns: Sequence[str]) -> str:
    if not columns:
        return "the data set has none besides path, label, patient and split"
    return f"there are {', '.join(columns)}"


def _group(column: str, cells: Sequence[str], edges: Sequence[float] | None, *, named: bool) -> Grouping | LeftOut:
    values = {cell for cell in cells if cell}
    numbers = {cell: number for cell in values if (number := read_number(cell)) is not None}
    words = sorted(values - numbers.keys())
    if edges is not None and not numbers:
        raise UsageError(f"column {column!r} holds no numbers but {words[:3]}: give --bands for another, or none")
    banded = edges is not None or (len(values) > MOST_VALUES and len(numbers) >= 2 and len(words) <= _MOST_WORDS)
    if not banded:
        ordered = sorted(numbers, key=lambda cell: (numbers[cell], cell)) + words
        keys, key_of = [clean_name(cell) for cell in ordered], {cell: at for at, cell in enumerate(ordered)}
    else:
        keys, key_of = _cut(numbers, cells, edges)
        key_of |= {word: len(keys) + at for at, word in enumerate(words)}
        keys += [clean_name(word) for word in words]
    if "" in cells:
        keys, key_of = [*keys, BLANK], {**key_of, "": len(keys)}
    if len(keys) < 2:
        return LeftOut(column=column, reason=f"one value only: {keys[0]}" if keys else "no images")
    if not banded and len(values) > MOST_VALUES and not named:
        return LeftOut(column=column, reason=_why_left_out(len(values), sum(map(bool, cells))))
    if len(keys) > MOST_GROUPS:
        raise UsageError(
            f"column {column!r} has {len(keys)} different values, and more than {MOST_GROUPS} groups tell nothing: "
            "name another column, or give --bands if they are numbers"
        )
    members = np.array([key_of[cell] for cell in cells], dtype=np.int64)
    return Grouping(column=column, names=tuple(keys), members=members, banded=banded)


def _why_left_out(values: int, filled: int) -> str:
    if values >= 0.9 * filled:
        return f"looks like an identifier: {values} different values in {filled} images"
    return f"{values} different values that are no numbers: name it to see them"


def _cut(
    numbers: Mapping[str, float], cells: Sequence[str], edges: Sequence[float] | None
) -> tuple[list[str], dict[str, int]]:
    """Return names of the bands, and which one each cell that is a number lies in."""
    values = np.array([numbers[cell] for cell in cells if cell in numbers])
    if edges is None:
        chosen, decimals = _quartiles(values)
        names = _name_quartiles(values, chosen, decimals)
    else:
        chosen = np.unique(np.asarray(edges, dtype=np.float64))
        names = _name_given(values, chosen)
    return names, {cell: int(np.searchsorted(chosen, number, side="right")) for cell, number in numbers.items()}


def _quartiles(values: Floats) -> tuple[Floats, int | None]:
    """Return rounded edges between bands that all hold images, and with how many decimals they are written.

    None stands for whole numbers.
    """
    whole = bool((values == np.round(values)).all())
    raw = np.quantile(values, _QUARTILES)
    decimals = 0 if whole else _decimals(values)
    # A whole number is in the upper band from the quartile on, so the edge is the next one.
    edges = _between((np.ceil(raw) if whole else np.round(raw, decimals)) + 0.0, values)
    if not len(edges):
        # So many images share one value that rounding leaves no edge beside it.
        distinct = np.unique(values)
        edges = distinct[1:2] if raw[1] == distinct[0] else distinct[-1:]
    return edges, None if whole else decimals


def _decimals(values: Floats) -> int:
    """Return with how many decimals the spread of values has two digits."""
    low, high = np.quantile(values, (0.25, 0.75))
    spread = high - low or values.max() - values.min()
    return int(np.clip(1 - math.floor(math.log10(spread)), 0, 12)) if spread > 0 else 0


def _between(edges: Floats, values: Floats) -> Floats:
    """Keep those edges that have values on both sides, and between any two."""
    kept: list[float] = []
    for edge in np.unique(edges):
        if ((values < edge) & (values >= (kept[-1] if kept else -math.inf))).any():
            kept.append(float(edge))
    while kept and not (values >= kept[-1]).any():
        kept.pop()
    return np.array(kept)


def _name_quartiles(values: Floats, edges: Floats, decimals: int | None) -> list[str]:
    """Name bands by where they begin and end: `41 to 57` of whole numbers, else `0.41 to below 0.57`."""
    low, high = float(values.min()), float(values.max())
    if decimals is None:
        begins, ends = [low, *edges], [*(edge - 1 for edge in edges), high]
        pairs = [(f"{begin:.15g}", f"{end:.15g}") for begin, end in zip(begins, ends, strict=True)]
        return [begin if begin == end else f"{begin} to {end}" for begin, end in pairs]
    step = 10.0**-decimals
    begin, end = round(low, decimals), round(high, decimals)
    bounds = [begin - step * (begin > low), *edges, end + step * (end < high)]
    texts = [_write(bound, decimals) for bound in bounds]
    if len(set(texts)) < len(texts) or [float(text) for text in texts[1:-1]] != edges.tolist():
        texts = [repr(float(bound)) for bound in (low, *edges, high)]
    return [*(f"{a} to below {b}" for a, b in pairwise(texts[:-1])), f"{texts[-2]} to {texts[-1]}"]


def _write(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if abs(value) < 1e9 else f"{value:.6g}"


def _name_given(values: Floats, edges: Floats) -> list[str]:
    texts = [f"{edge:.15g}" for edge in edges]
    whole = bool((values == np.round(values)).all() and (edges == np.round(edges)).all())
    if whole:
        inner = [
            text if last == begin else f"{text} to {last:.15g}"
            for text, begin, last in zip(texts[:-1], edges[:-1], edges[1:] - 1, strict=True)
        ]
    else:
        inner = [f"{a} to below {b}" for a, b in pairwise(texts)]
    return [f"below {texts[0]}", *inner, f"{texts[-1]} and above"]
