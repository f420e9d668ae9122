"""Records to JSON and back: strict types, a schema number, clear errors."""

import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ttl_deploy.errors import DataError
from ttl_deploy.files import publish_text

SCHEMA = 1
T = TypeVar("T")


def to_builtins(record: Any) -> dict[str, Any]:
    """Turn a record into plain JSON-ready containers, the schema number first."""
    return {"schema": SCHEMA, "record": type(record).__name__, **msgspec.to_builtins(record)}


def to_json(record: Any) -> str:
    """Render a record as indented JSON text."""
    return json.dumps(to_builtins(record), indent=2, ensure_ascii=False, allow_nan=False)


def from_builtins(kind: type[T], content: Any, *, source: str = "record") -> T:
    """Build a record of type `kind`; raises `DataError` naming the field that does not fit."""
    if isinstance(content, dict):
        schema = content.get("schema", SCHEMA)
        if schema != SCHEMA:
            raise DataError(f"{source} has schema {schema}, this version reads {SCHEMA}: use the version that wrote it")
        content = {key: value for key, value in content.items() if key not in ("schema", "record")}
    try:
        return msgspec.convert(content, type=kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise DataError(f"{source} is not a valid {kind.__name__}: {error}") from error


def save(path: Path, record: Any) -> None:
    """Publish a record as a JSON file, atomically."""
    publish_text(path, to_json(record) + "\n")


def load(kind: type[T], path: Path) -> T:
    """Read a record of type `kind` from a JSON file; raises `DataError` when it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    return from_builtins(kind, content, source=str(path))
