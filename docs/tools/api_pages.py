"""Gives the site a page per room of the library, made from the docstrings of its modules (a hook of mkdocs.yml)."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGE = _ROOT / "ttl_deploy"


def find_modules() -> dict[str, list[str]]:
    """Return the names of every room's modules, the room itself first."""
    rooms: dict[str, list[str]] = {}
    for path in sorted(_PACKAGE.rglob("*.py"), key=lambda path: path.with_suffix("").parts):
        parts = path.relative_to(_ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        if name != "ttl_deploy" and path.read_text(encoding="utf-8").strip():
            rooms.setdefault(parts[1], []).append(name)
    return rooms


def on_files(files: Files, *, config: Any) -> Files:
    """Add a page per room, and one that lists them."""
    rooms = find_modules()
    for room, modules in rooms.items():
        told = "\n\n".join(f"::: {name}" for name in modules)
        files.append(File.generated(config, f"api/{room}.md", content=f"# ttl_deploy.{room}\n\n{told}\n"))
    listed = "\n".join(f"* [ttl_deploy.{room}]({room}.md), {len(modules)} modules" for room, modules in rooms.items())
    files.append(File.generated(config, "api/index.md", content=f"# Reference\n\n{listed}\n"))
    return files
