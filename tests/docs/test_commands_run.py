"""Every command of ours in the README and in docs/ runs: in this process, and a search as its dry run.

`test_commands_as_typed.py` types the same commands into a shell, searches and benchmarks too; that takes minutes.
"""

import shlex
from pathlib import Path

import pytest

from tests.docs import runs
from tests.docs.conftest import Place, TypeIn
from tests.docs.tables import CHECKED, NOT_RUN, STAND_INS, as_typed_here, stand_ins_of, why_not_run
from tests.docs.typed_commands import ROOT, Typed, distinct_commands, split_as_a_shell, typed_commands

OURS = [typed for typed in distinct_commands() if typed.program == "ttl-deploy" and why_not_run(typed) is None]
SHELL_ONLY = ("--install-completion", "--show-completion")
"""What asks which shell it was typed into."""
LONG = (
    *("export --operating-point", "export --cut", "export runs/", "export kermany", "front OUT", "verify runs/NAME"),
    *("bench", "build", "--latency", "--precision", "--format trt", "--format openvino", "--format ort", "--width"),
    *("--speedup", "--image-size 160,224", "--trtexec", "--target tensorrt", "--add", "--cuts all --lesion-px"),
    *("-o kermany", "--out mobilenet", "--embed-images"),
)
"""What takes seconds even on tiny images, or needs what another such command has made."""


def is_long(typed: Typed) -> bool:
    """Tell whether only the slow tests type a command."""
    return any(part in typed.text for part in LONG) or typed.words == ["ttl-deploy", "export"]


SHORT = [typed for typed in OURS if not is_long(typed) and not any(word in typed.text for word in SHELL_ONLY)]
FAST = list({" ".join(typed.words).replace(" --dry-run", ""): typed for typed in reversed(SHORT)}.values())[::-1]
"""Each once, on the page where it stands first; the slow tests type it on every page."""


def test_there_are_commands_of_every_kind() -> None:
    names = {typed.words[1] for typed in FAST}
    assert {"inspect", "probe", "search", "front", "compare", "subgroups", "export", "verify", "predict"} <= names
    assert len(FAST) > 40


def test_the_tutorial_has_a_command_for_every_step() -> None:
    steps = [typed.words[1] for typed in OURS if typed.page == "docs/tutorial.md" and typed.fenced]
    on_the_workstation = [
        "doctor",
        "inspect",
        "cuts",
        "search",
        "front",
        "export",
        "verify",
        "bench",
        "report",
        "predict",
    ]
    assert steps[:10] == on_the_workstation
    assert steps[10:] == ["export", "bench", "build", "verify", "predict"]


@pytest.mark.parametrize("typed", FAST, ids=str)
def test_a_command_runs(typed: Typed, place: Place, in_process: TypeIn, environment: dict[str, str]) -> None:
    here = place(typed.page)
    _, *words = split_as_a_shell(as_typed_here(typed), cwd=here)
    dry = {"TTL_DEPLOY_SEARCH_DRY_RUN": "yes"}
    done = in_process(words, cwd=here, environment=environment | runs.variables_for(typed) | dry)
    assert done.code == 0, done.output
    assert done.output.strip() or words[0] == "predict"
    if "--out" in words and words[0] == "predict":
        assert len((here / words[words.index("--out") + 1]).read_text().splitlines()) == 1 + count_images(here)


def count_images(here: Path) -> int:
    """Count the images that pages predict."""
    return len(list((here / "new_images").iterdir()))


def test_every_command_is_run_or_checked_or_has_a_reason() -> None:
    left = [typed for typed in typed_commands() if typed.program not in ("ttl-deploy", *CHECKED)]
    assert [str(typed) for typed in left if why_not_run(typed) is None] == []


def test_every_reason_is_still_needed_and_names_a_test_that_exists() -> None:
    needed = {why_not_run(typed) for typed in typed_commands()}
    assert [entry for entry in NOT_RUN if entry not in needed] == []
    assert [entry.covered_by for entry in NOT_RUN if not (ROOT / entry.covered_by).is_file()] == []


def test_every_stand_in_is_still_needed_and_changes_what_it_says() -> None:
    used = {entry for typed in OURS for entry in stand_ins_of(typed)}
    assert [entry for entry in STAND_INS if entry not in used] == []
    changed = [typed for typed in OURS if as_typed_here(typed) != typed.text]
    assert all(shlex.split(as_typed_here(typed)) for typed in changed)
    assert {entry.page for entry in STAND_INS} == {typed.page for typed in changed}
