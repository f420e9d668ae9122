"""Two thousand generated tables: every row has the label it was written with, or the table is refused by name."""

import codecs
import csv
import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttl_deploy.data.readers.table import TableReader
from ttl_deploy.errors import DataError
from ttl_deploy.records.data import Reading

FILES = tuple(f"{folder}{name}.png" for folder in ("", "one/", "two/") for name in "abcd")
PLAIN_CLASSES = ("cat", "dog", "Mild NPDR", "naïve", "no finding?", "a;b", "x,y", 'say "so"', "two\nlines", "tab\tbed")
GRADES = ("0", "1", "2", "10", "3.0", "1.0")
MARKS = {"1": "present", "1.0": "present", "true": "present", "0": "absent", "0.0": "absent", "-1": "uncertain"}
MARKS |= {"-1.0": "uncertain", "": "blank"}
ODD_CELLS = ("", "NaN", "=1+1", "-", "é", "0x10", " ", '"', "'", "1e400", "​", "#N/A")
BAD_PATHS = ("../a.png", "/etc/passwd", "nowhere.png", "", "one", "~/a.png", "C:\\a.png", "a.png\0")
BAD_MARKS = ("2", "yes", "-2", "1,0", "?", "1.5")
FAULTS = ("path", "label", "mark", "cells", "nul", "long", "quote", "split", "header", "bytes", "contradiction")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the few files that all tables name."""
    made = tmp_path_factory.mktemp("images")
    for file in FILES:
        (made / file).parent.mkdir(exist_ok=True)
        (made / file).write_bytes(b"x")
    return made


@st.composite
def tables(draw):
    """Draw a seed and the few choices that matter, so that a failure names them; the rest follows from the seed."""
    return {
        "seed": draw(st.integers(0, 2**32)),
        "kind": draw(st.sampled_from(("classes", "grades", "marks", "one mark", "lists"))),
        "delimiter": draw(st.sampled_from(",;\t|")),
        "fault": draw(st.one_of(st.none(), st.none(), st.sampled_from(FAULTS))),
    }


class Written:
    """A table as bytes, and what the data it was made of say: the oracle."""

    def __init__(self, *, seed, kind, delimiter, fault):
        self.random = random.Random(seed)
        self.kind, self.delimiter, self.fault = kind, delimiter, fault
        if kind == "lists" and delimiter == "|":
            self.delimiter = ","
        count = self.random.randint(1, len(FILES))
        self.files = self.random.sample(FILES, count)
        self.labels, self.cells = self._labels(count)
        self.splits = [self.random.choice(("train", "val", "test")) for _ in range(count)]
        self.patients = [f"P{self.random.randint(0, 99)}" for _ in range(count)]
        self.notes = [self.random.choice(ODD_CELLS) for _ in range(count)]

    def _labels(self, count):
        """Return what every row means, and the label cells that say so."""
        pick = self.random.choice
        if self.kind in ("classes", "grades"):
            names = [pick(PLAIN_CLASSES if self.kind == "classes" else GRADES) for _ in range(count)]
            means = names if self.kind == "classes" else [str(int(float(name))) for name in names]
            return means, [[name] for name in names]
        if self.kind == "one mark":
            marks = ["-1", *(pick(list(MARKS)) for _ in range(count - 1))]
            return [{"edema": MARKS[mark]} for mark in marks], [[mark] for mark in marks]
        if self.kind == "marks":
            marks = [[pick(list(MARKS)) for _ in range(3)] for _ in range(count)]
            return [dict(zip(self.label_columns, map(MARKS.get, row), strict=True)) for row in marks], marks
        rows = [
            set(self.random.sample(("mass", "edema", "Pleural Other"), self.random.randint(0, 3))) for _ in range(count)
        ]
        rows[0] = {"mass", "edema"}
        every = sorted(set().union(*rows))
        cells = [["|".join(self.random.sample(sorted(row), len(row))) or "No Finding"] for row in rows]
        return [{name: "present" if name in row else "absent" for name in every} for row in rows], cells

    @property
    def label_columns(self):
        return {"marks": ("edema", "mass", "Lung Opacity"), "one mark": ("edema",)}.get(self.kind, ("label",))

    @property
    def label_col(self):
        return ",".join(self.label_columns) if self.kind in ("marks", "one mark") else self.random.choice(("", "LABEL"))

    def content(self):
        """Return the table as bytes: columns in any order, quoted or not, blanks, blank rows, BOM, line ends."""
        columns = {self.random.choice(("path", "Image Path", "FILE_NAME")): [self._path(file) for file in self.files]}
        columns |= {name: [row[i] for row in self.cells] for i, name in enumerate(self.label_columns)}
        columns |= {"Patient ID": self.patients, "note": self.notes}
        if self.random.random() < 0.5:
            columns["split"] = self.splits
        else:
            self.splits = [None] * len(self.files)
        names = self.random.sample(list(columns), len(columns))
        rows = [names, *([columns[name][i] for name in names] for i in range(len(self.files)))]
        self._spoil(rows, names)
        if self.kind == "classes" or self.random.random() < 0.5:
            quoting = self.random.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        else:
            quoting = csv.QUOTE_MINIMAL
            rows = [[self._pad(cell) for cell in row] for row in rows]
        text = io.StringIO()
        writer = csv.writer(
            text, delimiter=self.delimiter, quoting=quoting, lineterminator=self.random.choice(("\n", "\r\n"))
        )
        for row in rows:
            writer.writerow(row)
            if self.random.random() < 0.1:
                text.write("\n")
        return self._spoil_bytes(text.getvalue())

    def _path(self, file):
        return self.random.choice((file, file, f"./{file}", file.replace("/", "\\"), f"one/../{file}"))

    def _pad(self, cell):
        return self.random.choice((cell, f" {cell}", f"{cell} ")) if '"' not in cell else cell

    def _spoil(self, rows, names):
        """Put the fault into a cell."""
        row = self.random.randrange(1, len(rows))
        label = next(i for i, name in enumerate(names) if name in self.label_columns)
        path = next(i for i, name in enumerate(names) if name in ("path", "Image Path", "FILE_NAME"))
        if self.fault == "path":
            rows[row][path] = self.random.choice(BAD_PATHS)
        elif self.fault == "mark" and self.kind == "marks":
            rows[row][label] = self.random.choice(BAD_MARKS)
        elif self.fault == "label" and self.kind in ("classes", "lists"):
            rows[row][label] = "" if self.kind == "classes" else "No Finding|mass"
        elif self.fault == "cells":
            rows[row] = rows[row][:-1] if self.random.random() < 0.5 else [*rows[row], "more"]
        elif self.fault == "long":
            rows[row][path] = "x" * 1_000_000
        elif self.fault == "split" and "split" in names:
            rows[row][names.index("split")] = self.random.choice(("dev", "1", "traintest"))
        elif self.fault == "header":
            rows[0][path] = self.random.choice(("label2", "", rows[0][label]))
        elif self.fault == "contradiction" and self.kind in ("classes", "grades"):
            again = list(rows[row])
            again[label] = "else" if self.kind == "classes" else "99"
            rows.append(again)
        else:
            self.fault = self.fault if self.fault in ("nul", "bytes", "quote") else None

    def _spoil_bytes(self, text):
        content = text.encode()
        if self.fault == "nul":
            content = content[:-3] + b"\0" + content[-3:]
        elif self.fault == "bytes":
            content = content[:-1] + b"\xe4\n"
        elif self.fault == "quote":
            content += b'"never ends' + self.delimiter.encode()
        return codecs.BOM_UTF8 + content if self.random.random() < 0.5 else content


@given(choices=tables())
@settings(max_examples=2000)
def test_no_label_is_changed_and_every_fault_is_refused(folder, choices):
    written = Written(**choices)
    label_col = written.label_col
    (folder / "labels.csv").write_bytes(written.content())
    if written.fault is not None:
        with pytest.raises(DataError) as caught:
            TableReader().read(str(folder), Reading(label_col=label_col))
        assert "labels.csv" in str(caught.value)
        assert len(str(caught.value)) < 2000
        return
    raw = TableReader().read(str(folder), Reading(label_col=label_col))
    assert [sample.path for sample in raw.samples] == written.files
    assert [sample.label for sample in raw.samples] == written.labels
    assert [sample.patient_id for sample in raw.samples] == written.patients
    assert [sample.split for sample in raw.samples] == written.splits
    assert [sample.extra["note"] for sample in raw.samples] == [note.strip() for note in written.notes]


@pytest.mark.slow
def test_five_thousand_changed_tables_are_read_or_refused_by_name(folder):
    """One to three bytes of a good table are changed; what is still read has the labels that a plain split finds."""
    random_ = random.Random(0)
    rows = [(file, random_.choice(("cat", "dog")), f"p{i}") for i, file in enumerate(FILES)]
    good = b"path,label,patient_id\r\n" + b"".join(",".join(row).encode() + b"\r\n" for row in rows)
    refused = compared = 0
    for _ in range(5000):
        changed = change(good, random_)
        (folder / "labels.csv").write_bytes(changed)
        try:
            raw = TableReader().read(str(folder), Reading(max_bad=1.0))
        except DataError:
            refused += 1
            continue
        if b'"' in changed:
            continue
        compared += 1
        cells = [[cell.strip() for cell in line.split(",")] for line in changed.decode("utf-8-sig").splitlines()]
        written = {(row[0].replace("\\", "/").rpartition("/")[2], row[1]) for row in cells[1:] if len(row) > 1}
        labels = {
            (sample.path.rpartition("/")[2], sample.label) for sample in raw.samples if "|" not in changed.decode()
        }
        assert labels <= written
    assert refused > 1000
    assert compared > 1000


def change(good, random_):
    """Return a table with one to three bytes overwritten, left out or put in."""
    changed = bytearray(good)
    for _ in range(random_.randint(1, 3)):
        place = random_.randrange(len(changed))
        kind = random_.randrange(3)
        if kind == 0:
            changed[place] = random_.randrange(256)
        elif kind == 1:
            del changed[place]
        else:
            changed.insert(place, random_.choice(b',;|\t"\r\n\0 x\xff'))
    return bytes(changed)
