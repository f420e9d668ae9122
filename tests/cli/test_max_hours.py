"""A search whose time is over: it stops with the best so far, and the same command goes on to the same end."""

import json
import math
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import context
from ttl_deploy.search.executors import Where
from ttl_deploy.search.findings import Found
from ttl_deploy.search.study import run_study
from ttl_deploy.search.tasks import Outcome, Task

from .test_interruption import facts

Run = Callable[..., subprocess.CompletedProcess[str]]


class Clock:
    """Stands for a reporter, and lets the time run out as soon as a training has ended."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.notes: list[str] = []

    def monotonic(self) -> float:
        return self.now_s

    def step(self, stage: str, done: int, total: int) -> None:
        pass

    def plan(self, tasks: Sequence[Task]) -> None:
        pass

    def progress(self, task: Task, progress: object) -> None:
        pass

    def ended(self, task: Task, outcome: Outcome | None) -> None:
        self.now_s = math.inf

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def stop_early(
    run_folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[RunFolder], tuple[Found, Clock]]:
    """Search as the finished run did until one training has ended, whose time is then over."""

    def run(folder: RunFolder) -> tuple[Found, Clock]:
        clock = Clock()
        monkeypatch.setenv("TTL_DEPLOY_CACHE", str(cache))
        monkeypatch.setattr(context, "time", SimpleNamespace(monotonic=clock.monotonic))
        settings = RunFolder(run_folder).settings()
        return run_study(
            settings, folder, command="typed", where=Where(workers=1), max_hours=1.0, reporter=clock
        ), clock

    return run


def test_without_any_time_nothing_is_chosen_and_the_error_says_how_to_go_on(
    ttl_deploy: Run, search_arguments: list[str], tmp_path: Path
) -> None:
    done = ttl_deploy(*search_arguments, "-o", "run", "--max-hours", "0")
    assert done.returncode == 5
    assert "Type the same command again" in done.stderr
    assert not (tmp_path / "run" / "chosen.json").exists()


@pytest.mark.slow
def test_a_search_that_ran_out_of_time_chooses_on_validation_and_goes_on_to_the_same_end(
    stop_early: Callable[[RunFolder], tuple[Found, Clock]],
    ttl_deploy: Run,
    search_arguments: list[str],
    tmp_path: Path,
    run_folder: Path,
) -> None:
    found, clock = stop_early(RunFolder(tmp_path / "run"))
    assert found.choice is not None
    assert len(found.front.points) < len(RunFolder(run_folder).read_front().points)
    assert all(point.test == () for point in found.front.points)
    assert "--max-hours is over" in clock.notes[-1]
    assert not {"test_opened", "chosen"} & {str(fact["event"]) for fact in facts(tmp_path / "run")}
    assert json.loads(ttl_deploy("front", "run", "--json").stdout)["choice"]["cut"] == found.choice.cut
    assert ttl_deploy("report", "run").returncode == 0
    ended = ttl_deploy(*search_arguments, "-o", "run")
    assert ended.returncode == 0, ended.stderr
    assert facts(tmp_path / "run") == facts(run_folder)
