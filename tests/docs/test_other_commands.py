"""The documents' other commands: make, pip, pytest, the benchmarks, Docker and Ray understand what they are told."""

import ast
import contextlib
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import yaml
from packaging.requirements import Requirement

from tests.docs.typed_commands import ROOT, Typed, distinct_commands
from ttl_deploy_cli.main import app

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COMMAND = typer.main.get_command(app)


def of(program: str) -> list[Typed]:
    """Return the commands of a program, each once."""
    found = [typed for typed in distinct_commands() if program in typed.words and typed.program != "ttl-deploy"]
    return list({" ".join(typed.words): typed for typed in found}.values())


def runs_a_script(typed: Typed) -> bool:
    return typed.program in ("python", "chrt") and any(word.endswith(".py") for word in typed.words)


SCRIPTS = [typed for typed in of("python") if runs_a_script(typed) and "run, of:" not in typed.text]
TESTS = [typed for typed in distinct_commands() if "pytest" in typed.words]


@pytest.mark.parametrize("typed", of("make"), ids=str)
def test_a_make_target_is_there(typed: Typed) -> None:
    done = subprocess.run(["make", "-n", *typed.words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("typed", of("pip"), ids=str)
def test_what_pip_is_told_to_install_is_there(typed: Typed) -> None:
    words = typed.words[2:]
    known = {Requirement(one).name for extra in PROJECT["optional-dependencies"].values() for one in extra}
    for position, word in enumerate(words):
        if word.startswith("-") or words[max(0, position - 1)] == "--extra-index-url":
            continue
        if word.endswith(".txt") or word.startswith("./"):
            assert (ROOT / word).exists()
            continue
        named = Requirement(word.replace(".[", "ttl-deploy[", 1) if word.startswith(".[") else word)
        assert named.name in {PROJECT["name"], *known}
        assert named.extras <= PROJECT["optional-dependencies"].keys()


class ParsedError(Exception):
    """The arguments were understood; nothing is to be measured."""


@contextlib.contextmanager
def stopping_behind_the_parser(words: list[str]) -> Iterator[None]:
    """Run scripts as when they are typed, until their arguments are parsed."""
    import argparse

    parse = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *given: object) -> argparse.Namespace:
        parse(parser, *given)  # type: ignore[call-overload] # as it was called
        raise ParsedError

    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", words)
        patch.syspath_prepend(str(Path(words[0]).parent))
        yield
        for name in set(sys.modules) - before:
            if str(ROOT / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def takes_by_position(script: Path, given: int) -> bool:
    """Tell whether the function `main` of a script without a parser takes so many words."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    functions = {node.name: node.args for node in tree.body if isinstance(node, ast.FunctionDef)}
    if "main" not in functions:
        return given == 0
    arguments = functions["main"]
    most = len(arguments.args)
    return most - len(arguments.defaults) <= given <= most


@pytest.mark.parametrize("typed", SCRIPTS, ids=str)
def test_a_script_is_there_and_understands_its_arguments(typed: Typed) -> None:
    (script,) = [ROOT / word for word in typed.words if word.endswith(".py")]
    arguments = typed.words[1 + next(n for n, word in enumerate(typed.words) if word.endswith(".py")) :]
    if "ArgumentParser" not in script.read_text(encoding="utf-8"):
        assert takes_by_position(script, len(arguments))
        return
    with stopping_behind_the_parser([str(script), *arguments]), pytest.raises(ParsedError):
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("typed", TESTS, ids=str)
def test_the_tests_that_are_named_are_there(typed: Typed) -> None:
    words = typed.words[typed.words.index("pytest") + 1 :]
    paths = [ROOT / word for word in words if word.startswith("tests/")]
    assert paths
    assert [path for path in paths if not path.exists()] == []
    code = "".join(path.read_text(encoding="utf-8") for path in paths if path.is_file())
    if "slow" in words:
        assert "pytest.mark.slow" in code
    if "-k" in words:
        assert words[words.index("-k") + 1] in code


@pytest.mark.slow
@pytest.mark.parametrize("typed", TESTS, ids=str)
def test_pytest_collects_what_is_named(typed: Typed) -> None:
    words = typed.words[typed.words.index("pytest") + 1 :]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"[1-9]\d*(/\d+)? tests? collected", done.stdout)


@pytest.mark.parametrize("typed", of("docker"), ids=str)
def test_what_docker_is_told_is_in_the_repository(typed: Typed) -> None:
    words = typed.words
    named = [words[n + 1] for n, word in enumerate(words) if word == "-f"]
    assert [name for name in named if not (ROOT / name).is_file()] == []
    ours = [n for n, word in enumerate(words) if word.startswith("ttl-deploy:")]
    if "compose" in words:
        services = yaml.safe_load((ROOT / named[0]).read_text(encoding="utf-8"))["services"]
        asked = words[words.index("--rm") + 1 :] if "run" in words else []
        assert set(asked[:1]) <= services.keys()
        parse(asked[1:])
    elif "run" in words and ours:
        parse(words[ours[0] + 1 :])


def parse(words: list[str]) -> None:
    """Let the program parse words that stand behind its name; raises its own errors."""
    if words:
        root = COMMAND.make_context("ttl-deploy", words[:1])
        COMMAND.commands[words[0]].make_context(words[0], words[1:], parent=root)


@pytest.mark.parametrize("typed", of("ray"), ids=str)
def test_ray_has_the_options_that_are_typed(typed: Typed) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts", reason="the extra [ray]")
    name, *arguments = typed.words[1:]
    assert scripts.cli.commands[name].make_context(name, arguments, resilient_parsing=False).params


def test_the_makefile_types_what_the_program_understands() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = [line.partition("||")[0] for line in re.findall(r"^\t\$\(BIN\)/ttl-deploy (.*)", text, flags=re.MULTILINE)]
    assert len(lines) >= 4
    for line in lines:
        parse(shlex.split(line.replace("$(DEMO)", "run")))


def test_a_docstring_that_does_not_fit_the_code_fails_the_site(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("::: wrong\n", encoding="utf-8")
    code = 'def double(value: int) -> int:\n    """Double it.\n\n    Args:\n        size: not there.\n    """\n'
    (tmp_path / "wrong.py").write_text(code, encoding="utf-8")
    (plugin,) = [
        one for one in yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["plugins"] if one != "search"
    ]
    (tmp_path / "mkdocs.yml").write_text(
        yaml.safe_dump({"site_name": "one page", "plugins": [plugin]}), encoding="utf-8"
    )
    (line,) = re.findall(
        r"^\t\$\(BIN\)/(mkdocs .*)", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(line)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "'size' does not appear in the function signature" in done.stderr
    assert "docs" in (ROOT / "Makefile").read_text(encoding="utf-8").partition("\ntest:")[2].splitlines()[0].split()
