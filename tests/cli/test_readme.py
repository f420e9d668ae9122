"""What the README, the documents and the Makefile tell people to type is understood by the program."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from ttl_deploy_cli.main import app

ROOT = Path(__file__).resolve().parents[2]
COMMAND = typer.main.get_command(app)


def typed_commands() -> list[str]:
    """Return every command line of ours in code blocks of the README and of docs/, and in the Makefile."""
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))]
    blocks = re.findall(r"```sh\n(.*?)```", "".join(pages), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += [line.replace("$(DEMO)", "run") for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()]
    found = [re.search(r"^(?:\t\$\(BIN\)/|\$ )?(ttl-deploy .*)", line) for line in lines]
    return [match.group(1) for match in found if match]


def test_there_are_commands_to_check() -> None:
    assert len(typed_commands()) >= 8


@pytest.fixture
def described_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder with the config files that the documents show."""
    for page, name in (("settings.md", "settings.toml"), ("tutorial.md", "search.toml")):
        (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.DOTALL)
        (tmp_path / name).write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("described_files")
@pytest.mark.parametrize("line", typed_commands())
def test_a_command_in_the_documents_parses(line: str) -> None:
    _, name, *arguments = shlex.split(line.partition("||")[0], comments=True)
    command = COMMAND.commands[name]
    context = command.make_context(name, arguments, parent=COMMAND.make_context("ttl-deploy", [name]))
    assert context.params


def test_links_between_the_documents_lead_somewhere() -> None:
    for page in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    wanted = re.findall(r"^make (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert wanted
    assert all(re.search(rf"^{target}:", makefile, flags=re.MULTILINE) for target in wanted)


def test_the_exit_codes_of_the_readme_are_those_of_the_errors() -> None:
    from ttl_deploy import errors

    codes = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.TtlDeployError) and hasattr(error, "exit_code")
    }
    (line,) = re.findall(r"0 ok ·[^#]*", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert codes <= {int(code) for code in re.findall(r"\b\d+\b", line)}
