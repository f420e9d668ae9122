"""The pages that are made from the program are those of this program, and quote what it says."""

import ast
import re
import shlex
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import typer.main
import yaml

from ttl_deploy_cli.main import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
COMMAND = typer.main.get_command(app)


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "tools"))
    yield
    for name in ("commands", "floors", "api_pages"):
        sys.modules.pop(name, None)


def test_the_page_of_commands_is_the_help_of_this_program(tools):
    import commands

    written = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert written == commands.render_commands(), "run: python docs/tools/commands.py"


def test_the_page_of_commands_has_every_option_of_every_command():
    sections = (DOCS / "commands.md").read_text(encoding="utf-8").split("\n## ")[1:]
    told = {section.split("\n", 1)[0]: section for section in sections}
    assert told.keys() == COMMAND.commands.keys()
    for name, command in COMMAND.commands.items():
        flags = {
            flag for parameter in command.params if parameter.param_type_name == "option" for flag in parameter.opts
        }
        assert {flag for flag in flags if flag not in told[name]} == set()


def test_the_picture_of_the_architecture_is_that_of_the_imports(tools):
    import floors

    picture = (DOCS / "architecture.svg").read_text(encoding="utf-8")
    assert picture == floors.render(floors.find_rooms()), "run: python docs/tools/floors.py"
    tags = [element.text for element in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    rooms = {path.name.removesuffix(".py") for path in (ROOT / "ttl_deploy").iterdir() if not path.name.startswith("_")}
    assert sorted(tags) == sorted({*(room for room in rooms if room != "py.typed"), "cli", "benchmarks"})


def test_the_picture_puts_a_room_above_all_that_it_imports_and_draws_no_implied_line(tools):
    import floors

    rooms = {"a": set(), "b": {"a"}, "c": {"a", "b"}, "d": {"a"}}
    assert floors.find_floors(rooms) == {"a": 0, "b": 1, "c": 2, "d": 1}
    assert floors.render(rooms).count("<line") == 3
    with pytest.raises(ValueError, match="in a circle: a, b"):
        floors.find_floors({"a": {"b"}, "b": {"a"}, "c": set()})


def test_the_reference_has_every_module_with_something_in_it(tools):
    import api_pages

    listed = {module for modules in api_pages.find_modules().values() for module in modules}
    assert {"ttl_deploy.errors", "ttl_deploy.plugins", "ttl_deploy.search.policies"} <= listed
    paths = [path for path in (ROOT / "ttl_deploy").rglob("*.py") if path.name != "__init__.py"]
    assert len(listed) >= len(paths)


def said_by_the_program():
    """Yield every text in the program, with … for what is put in when it runs."""
    for path in (*ROOT.glob("ttl_deploy/**/*.py"), *ROOT.glob("cli/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_troubleshooting_quotes_what_the_program_says():
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    symptoms = re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)
    assert len(symptoms) >= 20
    said = "\n".join(said_by_the_program())
    missing = [
        symptom for symptom in symptoms if not all(part.strip() in said for part in symptom.split("…") if part.strip())
    ]
    # Two symptoms are put together from words that stand apart.
    assert set(missing) <= {"unknown environment variable"}


@pytest.mark.parametrize("page", ["settings.md", "tutorial.md"])
def test_a_config_file_in_the_documents_is_one_that_the_program_takes(page, tmp_path):
    blocks = re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.toml"
        path.write_text(block, encoding="utf-8")
        named = set(tomllib.loads(block)) & set(COMMAND.commands)
        for name in {"cuts", *named}:
            root = COMMAND.make_context("ttl-deploy", [name])
            context = COMMAND.commands[name].make_context(name, ["--config", str(path)], parent=root)
            assert context.obj.settings


def test_every_page_is_reached_from_the_index():
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8")))
    pages = {path.name for path in DOCS.glob("*.md")} - {"index.md"}
    told_elsewhere = {
        page for page in pages - linked if any(f"]({page})" in other.read_text() for other in DOCS.glob("*.md"))
    }
    assert pages == linked | told_elsewhere


def test_variables_in_the_documents_are_known():
    known = {
        f"TTL_DEPLOY_{prefix}{max(parameter.opts, key=len).lstrip('-').replace('-', '_').upper()}"
        for name, command in COMMAND.commands.items()
        for prefix in ("", f"{name.upper()}_")
        for parameter in command.params
    }
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        named = set(re.findall(r"TTL_DEPLOY_[A-Z_]+[A-Z]\b", page.read_text(encoding="utf-8")))
        assert named <= known | {"TTL_DEPLOY_CACHE"}, page.name


def test_a_shell_reads_every_block_of_commands():
    for page in (ROOT / "README.md", *DOCS.glob("*.md")):
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            assert shlex.split(block, comments=True)


def test_every_page_of_the_navigation_exists_and_every_page_of_the_index_is_in_it():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    groups = [entry for entry in settings["nav"] if isinstance(entry, dict)]
    pages = {page for group in groups for pages in group.values() for page in pages if isinstance(page, str)}
    assert [page for page in pages if not (DOCS / page).is_file()] == []
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert linked == pages
