"""The installed command, and one small finished search that tests share."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from filelock import FileLock

SEARCH = shlex.split(
    "search --backbone shufflenet_v2_x0_5 --weights none --data 'phantom:texture?patients=30&size=32&seed=1' "
    "--image-size 32 --cuts stage2.3,stage3.7 --epochs 2 --batch-size 16 --workers 2 --profile-seconds 0.05"
)
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def call(arguments: Sequence[str], *, cwd: Path, blocked: Sequence[str] = (), **environment: str) -> Done:
    """Run the console script's function in a fresh process, with warnings as errors and some modules blocked."""
    (point,) = entry_points(group="console_scripts", name="ttl-deploy")
    code = (
        "import sys\n"
        f"for name in {list(blocked)!r}: sys.modules[name] = None\n"
        f"sys.argv = ['ttl-deploy', *{list(map(str, arguments))!r}]\n"
        f"from {point.module} import {point.attr} as main\nmain()\n"
    )
    return subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:ttl_deploy", "-c", code],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def kill_when(arrived: Callable[[], object], arguments: Sequence[str], *, cwd: Path, cache: Path) -> None:
    """Start the command, and kill it with SIGKILL as soon as `arrived` says so."""
    code = f"import sys; sys.argv = {['ttl-deploy', *arguments]!r}\nfrom ttl_deploy_cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=os.environ | {"TTL_DEPLOY_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 240
        while not arrived():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)


@pytest.fixture(scope="session")
def search_arguments() -> list[str]:
    """The command line of the finished search."""
    return list(SEARCH)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the whole test run."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def ttl_deploy(cache: Path, tmp_path: Path) -> Run:
    """Run `ttl-deploy` in an empty folder; keyword arguments: `cwd`, `blocked` modules, environment variables."""

    def run(*arguments: object, cwd: Path = tmp_path, blocked: Sequence[str] = (), **environment: str) -> Done:
        return call([str(a) for a in arguments], cwd=cwd, blocked=blocked, TTL_DEPLOY_CACHE=str(cache), **environment)

    return run


@pytest.fixture(scope="session")
def finished(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a search and an export have run: `runs/…` below it."""
    here = tmp_path_factory.mktemp("finished")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return search_and_export(here, cache)
    shared = tmp_path_factory.getbasetemp().parent / "finished"  # one for all of pytest's processes, each has a copy
    with FileLock(shared.with_suffix(".lock")):
        if not shared.exists():
            made = shared.with_suffix(".making")
            made.mkdir()
            search_and_export(made, cache).replace(shared)
    return shutil.copytree(shared, here, dirs_exist_ok=True)


def search_and_export(here: Path, cache: Path) -> Path:
    """Run a search and an export in a folder, and return it."""
    for arguments in (SEARCH, ["export"]):
        done = call(arguments, cwd=here, TTL_DEPLOY_CACHE=str(cache))
        assert done.returncode == 0, done.stderr
    return here


@pytest.fixture(scope="session")
def run_folder(finished: Path) -> Path:
    """The run folder of the finished search."""
    (run,) = (finished / "runs").iterdir()
    return run
