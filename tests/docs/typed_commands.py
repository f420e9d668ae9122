"""Every command that the README and docs/ tell a reader to type, with its page and line."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "commands.md"))
"""`docs/commands.md` is left out: it is the program's own help, which another test compares."""
PROGRAMS = (
    *("ttl-deploy", "make", "pip", "python", "python3", "pytest", "docker", "ray", "sh", "trtexec", "export", "cp"),
    *("chrt", "cpupower", "nvpmodel", "benchmark_app", "/usr/bin/time", "/opt/env/bin/ttl-deploy"),
)
_ASSIGNMENT = re.compile(r"^[A-Z_]+=\S*$")
_FENCE = re.compile(r"^\s*```(\w*)\s*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """A command as it stands in a page; `fenced` where it stands in a block, and not within a sentence."""

    page: str
    line: int
    text: str
    fenced: bool

    @property
    def words(self) -> list[str]:
        """The words behind variables that are set for it; a comment is none of them."""
        words = shlex.split(self.text, comments=True)
        while words and _ASSIGNMENT.match(words[0]):
            words.pop(0)
        return words

    @property
    def program(self) -> str:
        """Its first word."""
        return self.words[0]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def typed_commands() -> tuple[Typed, ...]:
    """Return the commands of all pages in their order: lines of blocks, indented lines, and spans with arguments."""
    return tuple(typed for path in PAGES for typed in _of_page(path))


def distinct_commands() -> tuple[Typed, ...]:
    """Return each command once for each page, where it stands first."""
    first: dict[tuple[str, str], Typed] = {}
    for typed in typed_commands():
        first.setdefault((typed.page, " ".join(typed.words)), typed)
    return tuple(first.values())


def split_as_a_shell(text: str, *, cwd: Path) -> list[str]:
    """Return the words of a command as bash makes them, braces and quotes included; comments are left out."""
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {text}"], cwd=cwd, capture_output=True, text=True, check=True, env=os.environ
    )
    return done.stdout.split("\0")[:-1]


def _of_page(path: Path) -> Iterator[Typed]:
    page = path.relative_to(ROOT).as_posix()
    lines = path.read_text(encoding="utf-8").splitlines()
    language: str | None = None
    kept = list(lines)
    found: list[Typed] = []
    for number, line in enumerate(lines, 1):
        if fence := _FENCE.match(line):
            language = None if language is not None else fence.group(1)
            kept[number - 1] = ""
        elif language is not None or line.startswith("    "):
            kept[number - 1] = ""
            joined = _join(lines, number)
            if language == "sh" or (not language and _is_command(joined)):
                found += [Typed(page=page, line=number, text=text, fenced=True) for text in _commands_in(joined)]
    found += [Typed(page=page, line=number, text=text, fenced=False) for number, text in _spans(kept)]
    yield from sorted(found, key=lambda typed: typed.line)


def _join(lines: list[str], number: int) -> str:
    """Return a line with those that go on with it, as options in brackets do; nothing for such a line itself."""
    if lines[number - 1].lstrip().startswith("[--"):
        return ""
    if number > 1 and lines[number - 2].endswith("\\"):
        return ""
    text = lines[number - 1]
    while text.endswith("\\") or (number < len(lines) and lines[number].lstrip().startswith("[--")):
        text = " ".join((text.rstrip("\\ "), lines[number].strip()))
        number += 1
    return text.strip()


def _commands_in(line: str) -> Iterator[str]:
    """Yield a block's command, and the other one that its comment gives for a checkout."""
    if not line or line.startswith("#"):
        return
    yield line
    if other := re.search(r"#.*: ((?:pip|python) .*)$", line):
        yield other.group(1)


def _is_command(text: str) -> bool:
    try:
        words = shlex.split(text, comments=True)
    except ValueError:  # prose with an apostrophe
        return False
    while words and _ASSIGNMENT.match(words[0]):
        words.pop(0)
    return len(words) > 1 and words[0] in PROGRAMS and (words[0] != "export" or "=" in words[1])


def _spans(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yield the commands within sentences; a span may go on in the next line.

    Two words, such as `docker build`, only name a command; with an option, or `make`'s target, they are one.
    """
    text = "\n".join(lines)
    for span in re.finditer(r"`([^`]+)`", text):
        words = " ".join(span.group(1).split())
        if _is_command(words) and (words.count(" ") > 1 or " -" in words or words.startswith(("make ", "python "))):
            yield text[: span.start()].count("\n") + 1, words
