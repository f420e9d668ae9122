"""What the README and the documents tell people to type is understood by the program; `tests/docs/` lets it run."""

import re
from pathlib import Path

import pytest
import typer.main

from tests.docs.runs import variables_for
from tests.docs.tables import as_typed_here
from tests.docs.typed_commands import PAGES, ROOT, Typed, split_as_a_shell, typed_commands
from ttl_deploy_cli.main import app

COMMAND = typer.main.get_command(app)
OURS = [typed for typed in typed_commands() if typed.program == "ttl-deploy"]
ONCE = list({" ".join(typed.words): typed for typed in reversed(OURS)}.values())[::-1]
FOREIGN = {
    "--num-cpus": "ray start",
    "--num-gpus": "ray start",
    "--user": "docker run",
    "--runtime": "docker run",
    "--system-site-packages": "python3 -m venv",
    "--show": "jetson_clocks",
    "--interval": "tegrastats",
    "--way": "build_on_target.sh",
    "--fp16": "trtexec",
    "--int8": "trtexec",
    "--exportTimes": "trtexec",
    "--loadInputs": "trtexec",
}
"""Options of other programs, which sentences name by themselves."""


def test_there_are_commands_to_check() -> None:
    assert len(ONCE) >= 80


@pytest.fixture
def described_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder with the config files that the documents show."""
    for page, name in (("settings.md", "settings.toml"), ("tutorial.md", "search.toml")):
        (block,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.DOTALL)
        (tmp_path / name).write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("described_files")
@pytest.mark.parametrize("typed", ONCE, ids=str)
def test_a_command_in_the_documents_parses(typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in variables_for(typed).items():
        monkeypatch.setenv(variable, value)
    _, name, *arguments = split_as_a_shell(as_typed_here(typed), cwd=tmp_path)
    if name in ("--install-completion", "--show-completion"):
        return  # typed into a real shell by another test
    command = COMMAND.commands[name]
    context = command.make_context(name, arguments, parent=COMMAND.make_context("ttl-deploy", [name]))
    assert context.params


def test_every_option_that_a_sentence_names_is_one_of_ours_or_of_a_named_program() -> None:
    parameters = [parameter for command in COMMAND.commands.values() for parameter in command.params]
    known = {flag for one in parameters for flag in (*one.opts, *one.secondary_opts)}
    known |= {"--version", "--install-completion", "--show-completion", "--help", *FOREIGN}
    others = {word for typed in typed_commands() if typed.program != "ttl-deploy" for word in typed.words}
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        named = {
            flag for span in re.findall(r"`([^`]+)`", text) for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)
        }
        assert named <= known | others, page.name


def test_links_between_the_documents_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_exit_codes_of_the_readme_are_those_of_the_errors() -> None:
    from ttl_deploy import errors

    codes = {
        error.exit_code
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.TtlDeployError) and hasattr(error, "exit_code")
    }
    (line,) = re.findall(r"0 ok ·[^#]*", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert codes <= {int(code) for code in re.findall(r"\b\d+\b", line)}
