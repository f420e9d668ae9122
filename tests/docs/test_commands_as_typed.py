"""Every command of ours in the README and in docs/, typed into a shell as it stands, page by page and in order.

Searches train, benchmarks measure and engines are built: all of it small, by environment variables, and still slow.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs import runs
from tests.docs.shell import Machine
from tests.docs.tables import as_typed_here, why_not_run
from tests.docs.typed_commands import Typed, distinct_commands
from ttl_deploy.runtime.processor import examine_processor

OURS = [typed for typed in distinct_commands() if typed.program == "ttl-deploy" and why_not_run(typed) is None]
BUSY = 7
"""Exit code of a benchmark on a machine with other things to do."""


def made_on_the_page(page: str) -> set[str]:
    """Return the names of runs that the page's own commands make."""
    words = [typed.words for typed in OURS if typed.page == page]
    made = {
        line[line.index(flag) + 1] for line in words for flag in ("-o", "--out") if "search" in line and flag in line
    }
    return made | ({"runs/cxr"} if page == "docs/tutorial.md" else set())


@pytest.fixture(scope="module")
def machine(
    world: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Machine]:
    """Give a page's machine."""
    made: dict[str, Machine] = {}

    def find(page: str) -> Machine:
        if page not in made:
            here = tmp_path_factory.mktemp("page")
            for entry in world.iterdir():
                if entry.name != "base":
                    (here / entry.name).symlink_to(entry)
            mine = [typed for typed in OURS if typed.page == page]
            runs.put_runs(world / "base", here, mine, leave_out=made_on_the_page(page))
            made[page] = Machine(here, environment)
        return made[page]

    return find


@pytest.mark.slow
@pytest.mark.parametrize("typed", OURS, ids=str)
def test_a_command_does_what_it_does_when_it_is_typed(typed: Typed, machine: Callable[[str], Machine]) -> None:
    done = machine(typed.page).type_in(typed, as_typed_here(typed))
    allowed = {0, BUSY} if typed.words[1] == "bench" else {0}
    if "bf16" in typed.text and "avx512_bf16" not in examine_processor().instructions:
        allowed = {2, 6}
    assert done.returncode in allowed, f"{done.stdout}\n{done.stderr}"
    if typed.words[1] == "predict" and "--out" in typed.words:
        rows = (machine(typed.page).here / typed.words[typed.words.index("--out") + 1]).read_text().splitlines()
        assert rows[0].startswith("path,")
        assert len(rows) == 4
