"""Draws docs/architecture.svg from what the rooms really import: `python docs/tools/floors.py`."""

import ast
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "architecture.svg"
_WIDE, _HIGH, _GAP, _LEFT, _TOP = 118, 34, 14, 14, 20
_APART = 92
"""Pixels from one floor to the next."""


def find_rooms() -> dict[str, set[str]]:
    """Return, for every room, the rooms that its modules import."""
    found: dict[str, set[str]] = {}
    for folder, prefix in (("ttl_deploy", None), ("cli", "cli"), ("benchmarks", "benchmarks")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            room = prefix or path.relative_to(ROOT / folder).parts[0].removesuffix(".py")
            if room != "__init__":
                found.setdefault(room, set()).update(_imports(path))
    return {room: (imported & set(found)) - {room} for room, imported in sorted(found.items())}


def _imports(path: Path) -> set[str]:
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            rooms.update(name.name.split(".")[1] for name in node.names if name.name.startswith("ttl_deploy."))
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            parts = node.module.split(".")
            if parts[0] == "ttl_deploy":
                rooms.update(parts[1:2] or {name.name for name in node.names})
            elif parts[0] == "ttl_deploy_cli":
                rooms.add("cli")
    return rooms


def find_floors(rooms: dict[str, set[str]]) -> dict[str, int]:
    """Return each room's floor: one above the highest that it imports; raises `ValueError` for a circle."""
    floors: dict[str, int] = {}
    while len(floors) < len(rooms):
        ready = [room for room in rooms if room not in floors and rooms[room] <= floors.keys()]
        if not ready:
            raise ValueError(f"rooms import each other in a circle: {', '.join(sorted(rooms.keys() - floors.keys()))}")
        for room in ready:
            floors[room] = max((floors[below] + 1 for below in rooms[room]), default=0)
    return floors


def render(rooms: dict[str, set[str]]) -> str:
    """Return the picture: a row per floor, a line per import that no chain of other imports implies."""
    floors = find_floors(rooms)
    height = max(floors.values())
    rows = [[room for room in rooms if floors[room] == floor] for floor in range(height + 1)]
    widest = max(map(len, rows))
    width, tall = _LEFT + widest * (_WIDE + _GAP) + _GAP, _TOP + height * _APART + _HIGH + 20
    places = {
        room: (
            _LEFT + (widest - len(row)) * (_WIDE + _GAP) / 2 + index * (_WIDE + _GAP),
            _TOP + (height - floor) * _APART,
        )
        for floor, row in enumerate(rows)
        for index, room in enumerate(row)
    }
    lines = [_line(places[room], places[below]) for room in rooms for below in sorted(_direct(rooms, room))]
    boxes = [_box(room, *places[room]) for room in rooms]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {tall:g}" font-family="sans-serif" '
        f'font-size="13" role="img" aria-label="rooms of ttl-deploy and their imports">\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join([*lines, *boxes]) + "\n</svg>\n"
    )


def _direct(rooms: dict[str, set[str]], room: str) -> set[str]:
    return {below for below in rooms[room] if not any(below in _below(rooms, other) for other in rooms[room])}


def _below(rooms: dict[str, set[str]], room: str) -> set[str]:
    return rooms[room].union(*(_below(rooms, other) for other in rooms[room]))


def _line(upper: tuple[float, float], lower: tuple[float, float]) -> str:
    ends = f'x1="{upper[0] + _WIDE / 2:g}" y1="{upper[1] + _HIGH:g}" x2="{lower[0] + _WIDE / 2:g}" y2="{lower[1]:g}"'
    return f'<line {ends} stroke="#9ab" stroke-width="1.3"/>'


def _box(room: str, left: float, top: float) -> str:
    return (
        f'<rect x="{left:g}" y="{top:g}" width="{_WIDE}" height="{_HIGH}" rx="5" fill="#eef3f8" stroke="#345"/>'
        f'<text x="{left + _WIDE / 2:g}" y="{top + 22:g}" text-anchor="middle" fill="#123">{escape(room)}</text>'
    )


if __name__ == "__main__":
    PICTURE.write_text(render(find_rooms()), encoding="utf-8")
