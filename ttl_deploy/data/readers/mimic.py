"""MIMIC-CXR and MIMIC-CXR-JPG: labels of studies joined with the list of images and their splits."""

from dataclasses import dataclass, replace
from pathlib import Path

from ttl_deploy.data.readers.chexpert import OBSERVATIONS, choose_observations, read_observations
from ttl_deploy.data.readers.columns import find_columns, require_columns
from ttl_deploy.data.readers.table_files import Source, Table, read_table
from ttl_deploy.data.readers.table_rows import collect, image_root, read_rows
from ttl_deploy.errors import LabelError
from ttl_deploy.plugins import Progress, RawData
from ttl_deploy.records.data import DataWarning, Reading

_STUDY = ("subject_id", "study_id")
_RELEASES = ("2.1.0", "2.0.0")
_SUFFIXES = (".jpg", ".dcm", ".png")


class MimicReader:
    """Reads the folder with `mimic-cxr-2.0.0-chexpert.csv`, `-split.csv` and perhaps `-metadata.csv`, or `.csv.gz`.

    Images are `files/p10/p10000032/s50414267/<dicom_id>.jpg` (or `.dcm`, `.png`). The split `validate` is val. All
    images of a study have the study's labels; studies without labels are left out. Of the metadata
    the ViewPosition is kept.
    """

    def recognises(self, data: str) -> bool:
        """Accept a folder with both tables."""
        folder = Path(data)
        return folder.is_dir() and _files_of(folder) is not None

    def read(self, data: str, reading: Reading, *, progress: Progress | None = None) -> RawData:
        """Read and join the tables; raises `DataError` and its kinds with row and column."""
        files = _files_of(Path(data))
        if files is None:
            raise LabelError(f"{data} lacks mimic-cxr-2.0.0-chexpert.csv or mimic-cxr-2.0.0-split.csv")
        table, warnings = _join(files)
        columns = find_columns(table, _choose(reading))
        columns = choose_observations(table, columns, chosen=bool(reading.label_col))
        rows = read_rows(table, columns, labels=read_observations(table, columns.labels))
        if not reading.image_col:
            suffix = _suffix_of(rows.images[0], image_root(reading, Path(data)))
            rows = replace(rows, images=[image + suffix for image in rows.images])
        return collect(rows, reading, name="MIMIC-CXR", root=Path(data), warnings=warnings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """The tables of the data set; `metadata` need not be there."""

    labels: Path
    splits: Path
    metadata: Path | None


def _files_of(folder: Path) -> _Files | None:
    """Return the tables of a folder, told by their names; CheXpert's labeller goes before NegBio's."""
    labels = _one_of(folder, "chexpert") or _one_of(folder, "negbio")
    splits = _one_of(folder, "split")
    if labels is None or splits is None:
        return None
    return _Files(labels=labels, splits=splits, metadata=_one_of(folder, "metadata"))


def _one_of(folder: Path, kind: str) -> Path | None:
    names = (f"mimic-cxr-{release}-{kind}.csv{end}" for release in _RELEASES for end in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _choose(reading: Reading) -> Reading:
    return replace(
        reading,
        image_col=reading.image_col or "path",
        label_col=reading.label_col or OBSERVATIONS[0],
        patient_col=reading.patient_col or "subject_id",
        split_col=reading.split_col or "split",
    )


def _join(files: _Files) -> tuple[Table, list[DataWarning]]:
    """Return a table with a row per image of a labelled study; it counts rows as the table of splits does."""
    images, studies = read_table(files.splits), read_table(files.labels)
    dicom, subject, study, split = require_columns(images, ("dicom_id", *_STUDY, "split"))
    labels = _labels_by_study(studies)
    views = _views(files.metadata)
    rows, kept = [], []
    for position, row in enumerate(images.rows):
        found = labels.get((row[subject], row[study]))
        if found is not None:
            path = f"files/p{row[subject][:2]}/p{row[subject]}/s{row[study]}/{row[dicom]}"
            view = [views.get(row[dicom], "")] if views else []
            rows.append((path, row[subject], row[study], _split_word(row[split]), *view, *found))
            kept.append(images.sources[0].numbers[position])
    header = ("path", *_STUDY, "split", *(("ViewPosition",) if views else ()), *OBSERVATIONS)
    if not rows:
        raise LabelError(f"{files.labels} has a label of no study in {files.splits}: take both of one release")
    table = Table(header=header, rows=rows, sources=(Source(path=files.splits, start=0, numbers=kept),))
    return table, _tell_unlabelled(len(images.rows) - len(rows))


def _labels_by_study(studies: Table) -> dict[tuple[str, str], list[str]]:
    subject, study, *observed = require_columns(studies, (*_STUDY, *OBSERVATIONS))
    labels: dict[tuple[str, str], list[str]] = {}
    first: dict[tuple[str, str], int] = {}
    for position, row in enumerate(studies.rows):
        key, cells = (row[subject], row[study]), [row[i] for i in observed]
        if labels.setdefault(key, cells) != cells:
            before = studies.where(first[key], beside=position)
            raise LabelError(f"{studies.where(position)} labels study {key[1]} otherwise than {before}: keep one")
        first.setdefault(key, position)
    return labels


def _views(metadata: Path | None) -> dict[str, str]:
    """Return the view of each image, where it is told."""
    if metadata is None:
        return {}
    table = read_table(metadata)
    dicom, view = require_columns(table, ("dicom_id", "ViewPosition"))
    return {row[dicom]: row[view] for row in table.rows}


def _split_word(word: str) -> str:
    return "val" if word == "validate" else word


def _suffix_of(image: str, root: Path) -> str:
    """Return the suffix by which the first image is found; the JPEGs' where it is not."""
    return next((suffix for suffix in _SUFFIXES if (root / f"{image}{suffix}").is_file()), _SUFFIXES[0])


def _tell_unlabelled(images: int) -> list[DataWarning]:
    if not images:
        return []
    text = f"{images} images belong to studies without labels and are left out"
    return [DataWarning(kind="images-without-labels", message=text)]
