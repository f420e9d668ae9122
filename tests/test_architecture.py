"""The rules of the house: floors, wings, packaging, file sizes."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ttl_deploy"

FLOOR = {
    "errors": 0,
    "records": 1,
    "files": 1,
    "processes": 1,
    "plugins": 2,
    "options": 2,
    "pixels": 2,
    "runs": 2,
    "data": 3,
    "models": 3,
    "evidence": 3,
    "runtime": 4,
    "training": 4,
    "export": 5,
    "analysis": 5,
    "search": 6,
    "report": 7,
}
TORCH_FREE = (
    "errors",
    "records",
    "files",
    "processes",
    "plugins",
    "options",
    "pixels",
    "runs",
    "data",
    "evidence",
    "runtime",
    "report",
)
HEAVY = ("torch", "torchvision", "sklearn", "scipy", "plotly", "matplotlib", "onnx", "safetensors")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Return the dotted names a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_folder_imports_only_from_lower_floors(path: Path) -> None:
    room = room_of(path)
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "ttl_deploy" and len(parts) > 1 and parts[1] in FLOOR and parts[1] != room:
            allowed = FLOOR[parts[1]] < FLOOR[room] or FLOOR[room] == 1 == FLOOR[parts[1]]
            assert allowed, f"{room} (floor {FLOOR[room]}) imports {name} (floor {FLOOR[parts[1]]})"


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in SOURCES} == set(FLOOR)


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if room_of(p) in TORCH_FREE], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_the_target_wing_never_names_torch(path: Path) -> None:
    heavy = {name.partition(".")[0] for name in imports_of(path)} & {"torch", "torchvision", "safetensors", "onnx"}
    assert not heavy


def test_the_target_wing_loads_with_torch_blocked() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if room_of(path) in TORCH_FREE
    ]
    code = (
        "import sys\n"
        f"for name in {HEAVY!r}: sys.modules[name] = None\n"
        f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_package_is_shipped() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    on_disk = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert declared == on_disk | {"ttl_deploy_cli"}


def test_nobody_imports_a_module_called_cli() -> None:
    for path in [*ROOT.glob("cli/*.py"), *ROOT.glob("tests/**/*.py"), *SOURCES]:
        assert not any(name.partition(".")[0] == "cli" for name in imports_of(path)), path


def test_no_file_is_too_long_to_have_one_subject() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for folder in ("ttl_deploy", "cli", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 420
    }
    assert not long
