"""A search that is killed or interrupted goes on where it was, and ends with the same ledger."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def facts(run: Path) -> list[dict[str, object]]:
    """Return the ledger without clock times and typed commands."""
    found = []
    for line in (run / "ledger.jsonl").read_text().splitlines():
        entry = json.loads(line)
        for name in ("time", "check"):
            del entry[name]
        for name in ("seconds", "command"):
            entry["content"].pop(name, None)
        for exit_ in entry["content"].get("exits", ()):
            del exit_["seconds"]
        found.append(entry)
    return found


@pytest.fixture
def start(cache: Path, tmp_path: Path, search_arguments: list[str]) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Start the search of the finished run again, in a folder of its own; what is left of it is killed at the end."""
    started = []

    def begin() -> "subprocess.Popen[str]":
        command = ["ttl-deploy", *search_arguments, "-o", "run"]
        code = f"import sys; sys.argv = {command!r}; from ttl_deploy_cli.main import main; main()"
        environment = os.environ | {"TTL_DEPLOY_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for(path: Path, pattern: str, *, process: "subprocess.Popen[str]") -> None:
    """Wait until a file matching the pattern appears."""
    deadline = time.monotonic() + 120
    while not list(path.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("profile.json", marks=pytest.mark.slow),
        "trials/*/last.ckpt",
        pytest.param("trials/*/result.json", marks=pytest.mark.slow),
        pytest.param("trials/*/predictions_test.npz", marks=pytest.mark.slow),
    ],
)
def test_a_killed_search_ends_with_the_ledger_of_an_uninterrupted_one(
    moment: str, start: Callable[[], "subprocess.Popen[str]"], tmp_path: Path, run_folder: Path
) -> None:
    process = start()
    wait_for(tmp_path / "run", moment, process=process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    again = start()
    _, said = again.communicate(timeout=300)
    assert again.returncode == 0, said
    assert facts(tmp_path / "run") == facts(run_folder)
    assert not list((tmp_path / "run").rglob("*.tmp"))
    for trial in (tmp_path / "run" / "trials").iterdir():
        weights = (trial / "best.safetensors").read_bytes()
        assert weights == (run_folder / "trials" / trial.name / "best.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_an_interrupted_search_says_how_to_resume(
    number: signal.Signals, code: int, start: Callable[[], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    process = start()
    wait_for(tmp_path / "run", "trials/*/trial.json", process=process)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert "To resume, type:\n  ttl-deploy search --backbone shufflenet_v2_x0_5" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_worker_that_is_killed_is_started_again(
    start: Callable[[], "subprocess.Popen[str]"], tmp_path: Path, run_folder: Path
) -> None:
    process = start()
    wait_for(tmp_path / "run", "trials/*/last.ckpt", process=process)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert facts(tmp_path / "run") == facts(run_folder)


@pytest.mark.slow
@pytest.mark.parametrize("lines", [pytest.param(1, marks=pytest.mark.slow), 3, -1])
def test_a_ledger_that_ends_early_is_completed_without_training_again(
    lines: int, ttl_deploy: Run, search_arguments: list[str], run_folder: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run_folder, tmp_path / "run")
    whole = (copy / "ledger.jsonl").read_text().splitlines(keepends=True)
    (copy / "ledger.jsonl").write_text("".join(whole[:lines]))
    weights = {path: path.stat().st_mtime_ns for path in copy.glob("trials/*/best.safetensors")}
    done = ttl_deploy(*search_arguments, "-o", copy)
    assert done.returncode == 0, done.stderr
    assert facts(copy) == facts(run_folder)
    assert {path: path.stat().st_mtime_ns for path in weights} == weights
