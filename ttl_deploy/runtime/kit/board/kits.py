"""The kit's own files, read and checked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from .refusals import GATE, RefusedError


def read_kit(folder: Path) -> dict[str, Any]:
    """Read `kit.json`, and check that every file is the one it names."""
    path = folder / "kit" / "kit.json"
    try:
        kit: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files = dict(kit["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RefusedError(GATE, f"{path} cannot be read ({error}): copy the artifact's folder again, whole") from error
    for name, sha256 in files.items():
        if not (folder / name).is_file() or sha256_of(folder / name) != sha256:
            raise RefusedError(GATE, f"{folder / name} is missing or damaged: copy the artifact's folder again, whole")
    kit["folder"] = folder
    return kit


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
