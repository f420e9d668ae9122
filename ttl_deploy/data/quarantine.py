"""Images that do not decode: left out by name where they are few, a reason to stop where they are many."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ttl_deploy.data.cache import Note, decode_images, summarise
from ttl_deploy.data.labels import classes_of
from ttl_deploy.errors import DataError, UnreadableImageError
from ttl_deploy.files import escape_cell, publish_text, unescape_cell
from ttl_deploy.pixels import decode_bytes, read_bytes
from ttl_deploy.plugins import Progress
from ttl_deploy.records.data import SPLITS, DataWarning, DecodeSettings, Manifest, Sample

NAME = "quarantine.csv"
_COLUMNS = ("path", "reason", "sha256")
_NAMED = 3
_PLACE = "the file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """An image that does not decode, and why; known by its content as well, for it may be replaced by a good one."""

    path: str
    reason: str
    sha256: str


def find_unusable(
    manifest: Manifest,
    settings: DecodeSettings,
    *,
    max_bad: float,
    progress: Progress | None = None,
    note: Note | None = None,
) -> tuple[Unusable, ...]:
    """Decode a manifest's images, as far as nobody has yet, and return those that do not decode.

    Raises `UnreadableImageError` that names the first ten where their share is above `max_bad`, and `StorageError`
    where the cache has no room.
    """
    failures = decode_images(manifest, settings, progress=progress, note=note)
    found = tuple(
        Unusable(path=sample.path, reason=failures[sample.sha256], sha256=sample.sha256)
        for sample in manifest.samples
        if sample.sha256 in failures
    )
    refuse_many(found, len(manifest.samples), max_bad=max_bad)
    return found


def try_decoding(root: Path, samples: Sequence[Sample], settings: DecodeSettings) -> tuple[Unusable, ...]:
    """Decode images here, keep nothing, and return those that do not decode."""
    found = []
    for sample in samples:
        try:
            decode_bytes(read_bytes(root / sample.path), settings, name=_PLACE)
        except UnreadableImageError as error:
            reason = str(error).removeprefix(_PLACE).strip()
            found.append(Unusable(path=sample.path, reason=reason, sha256=sample.sha256))
    return tuple(found)


def refuse_many(found: Sequence[Unusable], images: int, *, max_bad: float) -> None:
    """Raise `UnreadableImageError` naming the first ten if more than this share of so many images do not decode."""
    if len(found) > max_bad * images:
        named = summarise([f"{one.path} {one.reason}" for one in found], images)
        raise UnreadableImageError(
            f"{named}\n{len(found) / images:.1%} of the images do not decode, and --max-bad allows {max_bad:.1%}: "
            "replace them, take them out, or raise --max-bad to leave them out"
        )


def leave_out(manifest: Manifest, unusable: Sequence[Unusable]) -> Manifest:
    """Return the manifest without these images, and with a warning that names the first of them.

    All else stays as it was, so an image that is mended later changes nobody's split. Raises `DataError` where a class
    has no training images left, or a split no images.
    """
    gone = {(one.path, one.sha256) for one in unusable}
    kept = tuple(sample for sample in manifest.samples if (sample.path, sample.sha256) not in gone)
    if len(kept) == len(manifest.samples):
        return manifest
    left = replace(manifest, samples=kept)
    lost, named = len(manifest.samples) - len(kept), name_unusable(unusable)
    for split in SPLITS:
        if manifest.of_split(split) and not left.of_split(split):
            raise DataError(f"the split {split!r} is empty without the {lost} images that do not decode: {named}")
    trained = {number for position in left.of_split("train") for number in classes_of(kept[position].label)}
    for number, name in enumerate(manifest.classes):
        if number not in trained:
            raise DataError(f"class {name!r} has no training images without the {lost} that do not decode: {named}")
    message = f"{lost} of {len(manifest.samples)} images do not decode and are left out: {named}"
    return replace(left, warnings=(*manifest.warnings, DataWarning(kind="unreadable-images", message=message)))


def save_unusable(folder: Path, unusable: Sequence[Unusable]) -> None:
    """Write `quarantine.csv` into a run's data folder, where there is anything to write."""
    path = folder / NAME
    if not unusable:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    writer.writerows([escape_cell(cell) for cell in (one.path, one.reason, one.sha256)] for one in unusable)
    publish_text(path, text.getvalue())


def load_unusable(folder: Path) -> tuple[Unusable, ...]:
    """Read what `save_unusable` wrote; raises `DataError` where it was changed into something else."""
    path = folder / NAME
    if not path.exists():
        return ()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = ([unescape_cell(cell) for cell in row] for row in csv.reader(file))
        if tuple(header) != _COLUMNS:
            raise ValueError(f"its columns are not {', '.join(_COLUMNS)}")
        return tuple(Unusable(**dict(zip(_COLUMNS, row, strict=True))) for row in rows)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def name_unusable(unusable: Sequence[Unusable]) -> str:
    """Name the first of them with their reasons, and count the rest."""
    more = len(unusable) - _NAMED
    named = [f"{one.path} {one.reason}" for one in unusable[:_NAMED]]
    return "; ".join((*named, *([f"and {more} more"] if more > 0 else [])))
