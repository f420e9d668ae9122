"""Parquet with embedded images, as Hugging Face data sets have: `train-00000-of-00001.parquet` and the like."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ttl_deploy import plugins
from ttl_deploy.data.readers.cells import Stated, read_lists
from ttl_deploy.data.readers.columns import find_columns, fold
from ttl_deploy.data.readers.parquet_files import NEED, cells_of, open_parquet, parquet_errors
from ttl_deploy.data.readers.table_files import Source, Table, join_tables
from ttl_deploy.data.readers.table_rows import collect, read_rows
from ttl_deploy.data.readers.unpacked import key_of, room_for, unpack
from ttl_deploy.data.splits import SPLIT_WORDS
from ttl_deploy.errors import DataError, LabelError, UsageError
from ttl_deploy.plugins import Progress, RawData
from ttl_deploy.records.data import DataWarning, Reading, Split

_NAME = re.compile(r"([a-z]+)(?:-\d{5}-of-\d{5}(?:-\w+)?)?\.parquet", re.IGNORECASE)
_FOLDERS = (".", "data", "default")
_PATH = "path in the unpacked folder"
_BATCH = 32
_NO_FINDING = "No Finding"
_MAGIC = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8", ".jpg"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"RIFF", ".webp"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
)


class ParquetImagesReader:
    """Reads a Parquet file, or a folder of them called after splits, whose images are embedded as bytes.

    The column of images is a structure with `bytes`, or bytes. They are unpacked once, unchanged. The label is a
    number whose names are in the schema's `huggingface` metadata, or text, or a list of either, which are findings;
    -1 and nothing stand for an image without a label, which is left out.
    """

    def recognises(self, data: str) -> bool:
        """Accept Parquet whose schema has a column of bytes."""
        for path in _files_of(Path(data))[:1]:
            with parquet_errors(path):
                return bool(_image_columns(open_parquet(path)))
        return False

    def read(self, data: str, reading: Reading, *, progress: Progress | None = None) -> RawData:
        """Unpack the images if need be and read the other columns; raises `DataError` and its kinds."""
        if reading.image_root:
            raise UsageError(f"--image-root {reading.image_root}: the images of {data} lie in it, so leave it out")
        parts = [_read_part(path, reading, number) for number, path in enumerate(_files_of(Path(data)))]
        table = join_tables([part.table for part in parts])
        table, splits, warnings = _labelled(table, _splits(parts), reading)
        columns = find_columns(table, replace(reading, image_col=_PATH))
        rows = read_rows(table, columns, labels=_labels(table, columns.labels, parts))
        if columns.split is None:
            rows = replace(rows, splits=splits)
        root = unpack(
            key_of([part.path for part in parts], progress=progress) + f"-{fold(parts[0].image)}",
            (image for part in parts for image in _images(part)),
            count=sum(part.count for part in parts),
            size_bytes=sum(part.size_bytes for part in parts),
            progress=progress,
        )
        name = Path(data).resolve().name.removesuffix(".parquet")
        return collect(rows, reading, name=name, root=root, warnings=warnings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One file: its column of images, the others as a table, and which of those hold lists or have class names."""

    path: Path
    number: int
    image: str
    table: Table
    lists: frozenset[str]
    named: frozenset[str]
    count: int
    size_bytes: int


def _files_of(data: Path) -> list[Path]:
    """Return the files that belong together: one alone, or those of a folder that are called after splits."""
    if not data.is_dir():
        return [data] if data.suffix.lower() == ".parquet" and data.is_file() else []
    for folder in _FOLDERS:
        files = sorted(path for path in (data / folder).glob("*.parquet") if path.is_file())
        found = [path for path in files if _split_of(path)]
        if found or len(files) == 1:
            return found or files
    return []


def _split_of(path: Path) -> Split | None:
    named = _NAME.fullmatch(path.name)
    return SPLIT_WORDS.get(named.group(1).lower()) if named else None


def _splits(parts: Sequence[_Part]) -> list[Split | None]:
    return [_split_of(part.path) for part in parts for _ in range(part.count)]


def _image_columns(file: Any) -> list[str]:
    """Return the columns that hold bytes, or structures of bytes."""
    return [field.name for field in file.schema_arrow if _is_bytes(field.type) or _is_image(field.type)]


def _is_image(kind: Any) -> bool:
    types = plugins.import_part("pyarrow.types", need=NEED)
    return bool(types.is_struct(kind)) and any(
        kind.field(i).name == "bytes" and _is_bytes(kind.field(i).type) for i in range(kind.num_fields)
    )


def _is_bytes(kind: Any) -> bool:
    types = plugins.import_part("pyarrow.types", need=NEED)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _read_part(path: Path, reading: Reading, number: int) -> _Part:
    file = open_parquet(path)
    with parquet_errors(path):
        return _read_columns(path, file, reading, number)


def _read_columns(path: Path, file: Any, reading: Reading, number: int) -> _Part:
    image = _choose_image(path, _image_columns(file), reading.image_col)
    classes = _class_names(path, file.schema_arrow.metadata or {})
    columns = {field.name: field.type for field in file.schema_arrow if field.name != image and _is_kept(field.type)}
    read = file.read(columns=list(columns))
    count = file.metadata.num_rows
    if columns and read.num_rows != count:
        raise DataError(f"{path} announces {count} rows and has {read.num_rows}: it is damaged; write it anew")
    cells = [[_place(number, row) for row in range(count)]]
    cells += [_cells(path, name, read.column(name), classes.get(name)) for name in columns]
    source = Source(path=path, start=0, numbers=range(1, count + 1))
    table = Table(header=(_PATH, *columns), rows=list(zip(*cells, strict=True)), sources=(source,))
    return _Part(
        path=path,
        number=number,
        image=image,
        table=table,
        lists=frozenset(name for name, kind in columns.items() if _is_list(kind)),
        named=frozenset(classes),
        count=count,
        size_bytes=_image_bytes(file, image) + room_for(count, 1),
    )


def _choose_image(path: Path, found: Sequence[str], given: str) -> str:
    chosen = [name for name in found if fold(name) == fold(given)] if given else list(found)
    if len(chosen) != 1:
        names = ", ".join(found) or "none"
        raise LabelError(f"{path} has columns of bytes: {names}. Choose the one of the images with --image-col")
    return chosen[0]


def _is_list(kind: Any) -> bool:
    types = plugins.import_part("pyarrow.types", need=NEED)
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_kept(kind: Any) -> bool:
    """Tell whether a column can be a label or be kept beside: plain values, or lists of them."""
    types = plugins.import_part("pyarrow.types", need=NEED)
    inner = kind.value_type if _is_list(kind) or types.is_dictionary(kind) else kind
    return not (types.is_nested(inner) or _is_bytes(inner))


def _class_names(path: Path, metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Return the names of the columns' numbers, as the `huggingface` metadata of the schema have them."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        names = {name: _names_in(feature) for name, feature in features.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: the schema's huggingface metadata cannot be read: {error}") from error
    for name, found in names.items():
        if len(set(found)) < len(found):
            raise LabelError(f"{path}, column {name!r}: two classes have one name: {', '.join(found)}")
    return {name: found for name, found in names.items() if found}


def _names_in(feature: Any) -> list[str]:
    if isinstance(feature, list):
        return _names_in(feature[0]) if feature else []
    if not isinstance(feature, dict):
        return []
    names = feature.get("names")
    return [str(name) for name in names] if isinstance(names, list) else _names_in(feature.get("feature"))


def _cells(path: Path, name: str, column: Any, names: Sequence[str] | None) -> list[str]:
    """Return a column as text: numbers by their names, lists as JSON, nothing for a label of -1."""
    if not _is_list(column.type):
        values = column.to_pylist() if names else None
        return [_name(path, name, value, names or ()) for value in values] if values is not None else cells_of(column)
    found = []
    for value in column.to_pylist():
        items = [_name(path, name, item, names or ()) if names else str(item) for item in value or ()]
        found.append("" if value is None else json.dumps([item for item in items if item]))
    return found


def _name(path: Path, column: str, number: Any, names: Sequence[str]) -> str:
    if number is None or number == -1:
        return ""
    if not isinstance(number, int) or not 0 <= number < len(names):
        raise LabelError(f"{path}, column {column!r} has the label {number!r}; there are {len(names)} names of classes")
    return names[number]


def _labelled(
    table: Table, splits: list[Split | None], reading: Reading
) -> tuple[Table, list[Split | None], list[DataWarning]]:
    """Leave out the rows without any label."""
    labels = find_columns(table, replace(reading, image_col=_PATH)).labels
    kept = [i for i, row in enumerate(table.rows) if len(labels) > 1 or row[labels[0]]]
    if len(kept) == len(table.rows) or not kept:
        return table, splits, []
    text = f"{len(table.rows) - len(kept)} images have no label and are left out"
    told = [DataWarning(kind="images-without-labels", message=text)]
    return table.keep(kept), [splits[i] for i in kept], told


def _labels(table: Table, columns: Sequence[int], parts: Sequence[_Part]) -> list[Stated] | None:
    """Return what lists and named numbers state; None where the cells are to be read as in any table."""
    name = table.header[columns[0]]
    if len(columns) > 1:
        return None
    if name in parts[0].lists:
        lists = {cell: json.loads(cell) or [_NO_FINDING] for cell in set(table.column(columns[0])) if cell}
        return read_lists(table, columns[0], lists)
    return list(table.column(columns[0])) if all(name in part.named for part in parts) else None


def _image_bytes(file: Any, image: str) -> int:
    """Return the size of the column of images before compression."""
    groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
    chunks = (group.column(i) for group in groups for i in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] == image)


def _images(part: _Part) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of the images that are there, some of them in memory at a time."""
    file = open_parquet(part.path)
    row = 0
    with parquet_errors(part.path):
        for batch in file.iter_batches(batch_size=_BATCH, columns=[part.image]):
            column = batch.column(0)
            contents = column if _is_bytes(column.type) else column.field("bytes")
            for content in contents.to_pylist():
                if content is not None:
                    yield f"{_place(part.number, row)}{_suffix(content)}", content
                row += 1


def _place(number: int, row: int) -> str:
    """Return an image's path below the unpacked folder, without its suffix."""
    return f"{number:05d}/{row:07d}"


def _suffix(content: bytes) -> str:
    """Return what the first bytes tell; what is no image at all is found out when it is decoded."""
    if content[128:132] == b"DICM":
        return ".dcm"
    return next((suffix for magic, suffix in _MAGIC if content.startswith(magic)), ".png")
