"""The documents' world with a finished search in it, once for the tests of a process, and copied for each page."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs import runs
from tests.docs.in_process import Answer, stay_in_process, type_in
from tests.docs.typed_commands import distinct_commands
from tests.docs.world import make_world

Place = Callable[[str], Path]
TypeIn = Callable[..., Answer]


@pytest.fixture(scope="package")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for all pages."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="package")
def environment(cache: Path) -> dict[str, str]:
    """The variables that the finished search is made under."""
    return runs.SMALL | {"TTL_DEPLOY_CACHE": str(cache)}


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The folder with the data and with the finished search `base`, whose choice is exported."""
    here = make_world(tmp_path_factory.mktemp("world"))
    with pytest.MonkeyPatch.context() as patch:
        stay_in_process(patch)
        for words in (runs.SEARCH, ["export", "base"]):
            done = type_in(words, cwd=here, environment=environment)
            assert done.code == 0, done.output
    return here


@pytest.fixture(scope="module")
def place(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Give the folder of a page: the world's data, and runs under the names that the page uses."""
    made: dict[str, Path] = {}

    def find(page: str) -> Path:
        if page not in made:
            here = made[page] = tmp_path_factory.mktemp("page")
            for entry in world.iterdir():
                if entry.name != "base":
                    (here / entry.name).symlink_to(entry)
            mine = [one for one in distinct_commands() if one.page == page and one.program == "ttl-deploy"]
            runs.put_runs(world / "base", here, mine)
        return made[page]

    return find


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> TypeIn:
    """Run a command in this process."""
    stay_in_process(monkeypatch)
    return type_in
