"""The built-in demo as a data set: `phantom[:KIND][?patients=N&size=S&seed=K]`."""

import csv
import io
import os
import shutil
from pathlib import Path
from urllib.parse import parse_qsl

from filelock import FileLock
from PIL import Image

from ttl_deploy.data.cache_root import cache_errors, cache_folder
from ttl_deploy.data.phantom import (
    PHANTOM_KINDS,
    PHANTOM_VERSION,
    PhantomKind,
    PhantomSettings,
    draw_phantom,
)
from ttl_deploy.data.readers.table import TABLE_NAMES, TableReader
from ttl_deploy.errors import UnknownNameError, UsageError
from ttl_deploy.files import make_folder, publish_text, sync_folder
from ttl_deploy.plugins import Progress, RawData
from ttl_deploy.records.data import Reading

_OPTIONS = ("patients", "size", "seed")
_COLUMNS = ("path", "label", "patient_id", "split", "view", "sex")


class PhantomReader:
    """Draws the films into the cache folder when first asked, then reads them as a table.

    Examples: `phantom` (the same as `phantom:blob`), `phantom:texture`,
    `phantom:shape?patients=400&size=96&seed=1`. The kinds are told apart in `data/phantom/films.py`.
    """

    def recognises(self, data: str) -> bool:
        """Accept `phantom` and what begins with `phantom:` or `phantom?`; a folder of that name is `./phantom`."""
        return data == "phantom" or data.startswith(("phantom:", "phantom?"))

    def read(self, data: str, reading: Reading, *, progress: Progress | None = None) -> RawData:
        """Draw if need be and read; raises `UsageError` where a kind or an option is unknown."""
        settings = parse_phantom(data)
        folder = materialise(settings, progress=progress)
        raw = TableReader().read(str(folder), reading)
        return RawData(name=f"phantom-{settings.kind}", root=raw.root, samples=raw.samples)


def parse_phantom(data: str) -> PhantomSettings:
    """Read `phantom[:KIND][?option=number&…]`."""
    name, _, query = data.partition("?")
    kind = _kind(name.partition(":")[2] or PhantomSettings().kind)
    numbers: dict[str, int] = {}
    for option, value in parse_qsl(query, keep_blank_values=True):
        if option not in _OPTIONS:
            raise UnknownNameError("phantom option", option, _OPTIONS, f"in {data!r}")
        if not (value.isascii() and value.isdigit()):
            raise UsageError(f"{data!r}: {option} = {value!r} is not a whole number")
        numbers[option] = int(value)
    try:
        return PhantomSettings(kind=kind, **numbers)
    except ValueError as error:
        raise UsageError(f"{data!r}: {error}") from error


def materialise(settings: PhantomSettings, *, progress: Progress | None = None) -> Path:
    """Return the folder with the drawn films and their `labels.csv`; it appears whole or not at all."""
    name = f"{settings.kind}-p{settings.patients}-{settings.size}px-seed{settings.seed}-v{PHANTOM_VERSION}"
    folder = cache_folder("phantom") / name
    if not folder.exists():
        with cache_errors(folder), FileLock(folder.with_name(f".{name}.lock")):
            if not folder.exists():
                _build(folder, settings, progress)
    return folder


def _kind(word: str) -> PhantomKind:
    for kind in PHANTOM_KINDS:
        if kind == word:
            return kind
    raise UnknownNameError("phantom", word, PHANTOM_KINDS)


def _build(folder: Path, settings: PhantomSettings, progress: Progress | None) -> None:
    """Draw into a temporary folder and rename it; the caller holds the lock, so older temporaries are litter."""
    for litter in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(litter)
    temporary = make_folder(folder.parent / f".{folder.name}.{os.getpid()}.tmp")
    try:
        make_folder(temporary / "images")
        _fill(temporary, settings, progress)
        temporary.replace(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(folder: Path, settings: PhantomSettings, progress: Progress | None) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    patients: set[str] = set()
    for film in draw_phantom(settings):
        Image.fromarray(film.pixels).save(folder / film.path)
        table.writerow([getattr(film, column) for column in _COLUMNS])
        if film.patient_id not in patients and progress:
            progress("drawing", len(patients) + 1, settings.patients)
        patients.add(film.patient_id)
    publish_text(folder / TABLE_NAMES[0], text.getvalue())
