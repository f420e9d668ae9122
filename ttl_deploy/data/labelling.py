"""From what a source says of each image to its label: classes chosen and grouped, uncertain findings decided on."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ttl_deploy.errors import DataError, UnknownNameError, UsageError
from ttl_deploy.plugins import RawSample
from ttl_deploy.records.data import ABSENT, PRESENT, UNKNOWN, DataWarning, Finding, Label, Reading

# Of two classes the one called so is class 0, which leaves the finding as the positive class.
_NORMAL_NAMES = frozenset(
    (
        "normal",
        "negative",
        "neg",
        "no",
        "none",
        "0",
        "false",
        "absent",
        "benign",
        "healthy",
        "control",
        "controls",
        "no finding",
        "nofinding",
        "uninfected",
    )
)
_MARKS: Mapping[Finding, int] = {"present": PRESENT, "absent": ABSENT}
_STRENGTH: Mapping[Finding, int] = {"blank": 0, "absent": 1, "uncertain": 2, "present": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """The rows that have a label: `labels[i]` is that of `rows[i]`, by the classes' order."""

    rows: tuple[RawSample, ...]
    labels: tuple[Label, ...]
    classes: tuple[str, ...]
    multilabel: bool
    warnings: tuple[DataWarning, ...] = ()


def label_rows(rows: Sequence[RawSample], reading: Reading, *, source: str) -> Labelled:
    """Apply a reading to rows as their source states them.

    Raises `UnknownNameError` for a label or an old class name that no row has, `UsageError` where the options do
    not go with the data, and `DataError` where no task of at least two classes is left.
    """
    if not any(isinstance(row.label, Mapping) for row in rows):
        return _label_classes(rows, reading, source=source)
    return _label_findings(rows, reading, source=source)


def order_classes(labels: set[str], *, source: str = "the data set") -> tuple[str, ...]:
    """Sort the class names, numbers as numbers; of two, a name such as `normal` or `0` comes first."""
    if len(labels) < 2:
        found = f"only the class {next(iter(labels))!r}" if labels else "no class"
        raise DataError(f"{source} has {found}: a classifier needs images of at least two classes")
    if all(label.isascii() and label.isdigit() for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    ordered = sorted(labels)
    normal = [name for name in ordered if name.casefold().replace("_", " ").replace("-", " ") in _NORMAL_NAMES]
    if len(ordered) == 2 and len(normal) == 1:
        ordered.sort(key=lambda name: name != normal[0])
    return tuple(ordered)


def _label_classes(rows: Sequence[RawSample], reading: Reading, *, source: str) -> Labelled:
    """One class per image."""
    names = [str(row.label) for row in rows]
    _check_known(reading.classes, set(names), what="class to rename")
    names = [reading.classes.get(name, name) for name in names]
    kept = [i for i, name in enumerate(names) if name]
    warnings = [_tell_left_out(len(rows) - len(kept), "by the class map")] if len(kept) < len(rows) else []
    present = {names[i] for i in kept}
    _check_known(reading.labels, present, what="label")
    if len(reading.labels) == 1:
        chosen = reading.labels[0]
        classes: tuple[str, ...] = (f"not {chosen}", chosen)
        names = [name if not name or name == chosen else classes[0] for name in names]
    elif reading.labels:
        warnings.append(_tell_left_out(sum(names[i] not in reading.labels for i in kept), "by --label"))
        kept = [i for i in kept if names[i] in reading.labels]
        classes = reading.labels
    else:
        classes = order_classes(present, source=source)
    if len({names[i] for i in kept}) < 2:
        raise DataError(f"{source} leaves images of one class only: a classifier needs at least two")
    number = {name: i for i, name in enumerate(classes)}
    return Labelled(
        rows=tuple(rows[i] for i in kept),
        labels=tuple(number[names[i]] for i in kept),
        classes=classes,
        multilabel=False,
        warnings=tuple(warnings),
    )


def _label_findings(rows: Sequence[RawSample], reading: Reading, *, source: str) -> Labelled:
    """Several findings per image, each marked; with one label chosen, two classes."""
    stated = [_stated(row, source=source) for row in rows]
    names = tuple(dict.fromkeys(name for findings in stated for name in findings))
    _check_known(reading.classes, set(names), what="finding to rename")
    if reading.classes:
        stated = [_group(findings, reading.classes) for findings in stated]
        names = tuple(dict.fromkeys(name for findings in stated for name in findings))
    _check_known(reading.labels, set(names), what="label")
    chosen = reading.labels or names
    if not chosen:
        raise DataError(f"{source} has no finding left: let the class map keep at least one")
    marked = _mark(stated, chosen, reading)
    if len(chosen) == 1:
        return _label_presence(rows, marked, chosen[0], source=source)
    kept = [i for i, label in enumerate(marked.labels) if any(mark != UNKNOWN for mark in label)]
    warnings = list(marked.warnings)
    if len(kept) < len(rows):
        warnings.append(_tell_left_out(len(rows) - len(kept), "as nothing is known of any of their findings"))
    return Labelled(
        rows=tuple(rows[i] for i in kept),
        labels=tuple(marked.labels[i] for i in kept),
        classes=chosen,
        multilabel=True,
        warnings=tuple(warnings),
    )


def _stated(row: RawSample, *, source: str) -> Mapping[str, Finding]:
    if isinstance(row.label, str):
        raise DataError(f"{source} gives {row.path} one class, and others several findings: use one kind of label")
    return row.label


def _label_presence(rows: Sequence[RawSample], marked: "_Marked", name: str, *, source: str) -> Labelled:
    """Tell images with a finding from images without it; where it is not known the image is left out."""
    marks = [label[0] for label in marked.labels]
    kept = [i for i, mark in enumerate(marks) if mark != UNKNOWN]
    if len({marks[i] for i in kept}) < 2:
        raise DataError(f"{source} leaves no two classes for {name!r}: it is present, or absent, in all known images")
    warnings = list(marked.warnings)
    if len(kept) < len(rows):
        warnings.append(_tell_left_out(len(rows) - len(kept), f"as {name!r} is not known for them"))
    return Labelled(
        rows=tuple(rows[i] for i in kept),
        labels=tuple(marks[i] for i in kept),
        classes=(f"not {name}", name),
        multilabel=False,
        warnings=tuple(warnings),
    )


def _group(findings: Mapping[str, Finding], new_names: Mapping[str, str]) -> dict[str, Finding]:
    """Rename and merge findings: of a group the strongest statement counts, present before uncertain before absent."""
    grouped: dict[str, Finding] = {}
    for name, finding in findings.items():
        new = new_names.get(name, name)
        if new and _STRENGTH[finding] >= _STRENGTH[grouped.get(new, "blank")]:
            grouped[new] = finding
    return grouped


@dataclass(frozen=True, slots=True)
class _Marked:
    """Marks of all rows, and what became of the findings that are neither present nor absent."""

    labels: tuple[tuple[int, ...], ...]
    warnings: tuple[DataWarning, ...] = field(default=())


def _mark(stated: Sequence[Mapping[str, Finding]], chosen: Sequence[str], reading: Reading) -> _Marked:
    marks: dict[Finding, int] = dict(_MARKS)
    marks["uncertain"] = {"ones": PRESENT, "zeros": ABSENT, "ignore": UNKNOWN}[reading.uncertain]
    marks["blank"] = {"zeros": ABSENT, "ignore": UNKNOWN}[reading.blank]
    labels = tuple(tuple(marks[findings.get(name, "blank")] for name in chosen) for findings in stated)
    counts = Counter(findings.get(name, "blank") for findings in stated for name in chosen)
    return _Marked(labels, tuple(_tell_policy(counts, reading)))


def _tell_policy(counts: Mapping[Finding, int], reading: Reading) -> Iterator[DataWarning]:
    became = {"ones": "count as present", "zeros": "count as absent", "ignore": "are masked: they count for nothing"}
    if counts.get("uncertain"):
        text = f"{counts['uncertain']} uncertain findings {became[reading.uncertain]} (--uncertain {reading.uncertain})"
        yield DataWarning(kind="uncertain-labels", message=text)
    if counts.get("blank"):
        text = f"{counts['blank']} blank findings {became[reading.blank]} (--blank {reading.blank})"
        yield DataWarning(kind="blank-labels", message=text)


def _check_known(given: Collection[str], present: set[str], *, what: str) -> None:
    for name in given:
        if not name:
            raise UsageError(f"an empty {what} was given: name one of {', '.join(sorted(present))}")
        if name not in present:
            raise UnknownNameError(what, name, tuple(sorted(present)))


def _tell_left_out(images: int, why: str) -> DataWarning:
    return DataWarning(kind="left-out-labels", message=f"{images} images are left out {why}")
