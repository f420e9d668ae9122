"""A round of trainings: who runs when, what stands in the ledger in which order, what a resumed round does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.records.models import FULL
from ttl_deploy.records.trials import SearchSettings, Trial, TrialResult
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import running
from ttl_deploy.search.context import Study
from ttl_deploy.search.executors import Done
from ttl_deploy.search.findings import Outcome
from ttl_deploy.search.rounds import train
from ttl_deploy.search.tasks import Task, failure
from ttl_deploy.training.loop import TrialError

MakeTrial = Callable[..., Trial]
Finish = Callable[[Trial], TrialResult]
CUTS = tuple(replace(list_cuts("resnet18", image_size=32, classes=2)[-1], name=name) for name in ("a", FULL))
IMAGES = {"train": 10, "val": 2, "test": 2}


@dataclass
class LastFirst:
    """Stands for an executor: does the last task first, and keeps what it was given; `fails` says why, by key."""

    finish: Finish
    fails: dict[str, list[TrialError]] = field(default_factory=dict)
    given: list[list[str]] = field(default_factory=list)

    def run(self, tasks: Sequence[Task], *, report: Any) -> Iterator[Done]:
        self.given.append([task.trial.key for task in tasks])
        for position, task in reversed(list(enumerate(tasks))):
            errors = self.fails.get(task.trial.key)
            yield Done(position, failure(task.trial, errors.pop(0)) if errors else self.finish(task.trial))

    def close(self) -> None:
        pass


@dataclass
class Listener:
    """Stands for a reporter: keeps what it hears."""

    planned: list[list[str]] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def step(self, stage: str, done: int, total: int) -> None:
        pass

    def plan(self, tasks: Sequence[Task]) -> None:
        self.planned.append([task.trial.key for task in tasks])

    def ended(self, task: Task, outcome: Outcome | None) -> None:
        self.ends.append(task.trial.key)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def executor(finish: Finish) -> LastFirst:
    return LastFirst(finish)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def learn(
    tmp_path: Path, executor: LastFirst, listener: Listener, make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Mapping[str, Outcome]]:
    """Train two cuts by a pupil, whose teacher was not asked for, and by itself."""
    monkeypatch.setattr(running, "estimate_task", lambda kind, trial, device: 0)
    settings = SearchSettings(backbone="resnet18", data="images", strategies=("pupil", "l2-sp"), policy="exhaustive")
    trials = {(cut, "l2-sp", 0): make_trial(cut, "l2-sp") for cut in ("a", FULL)}
    trials |= {(cut, "pupil", 0): make_trial(cut, "pupil", teacher="full__full__s0") for cut in ("a", FULL)}
    trials |= {(FULL, "full", 0): make_trial(FULL)}
    study = Study(
        settings=settings,
        run=RunFolder(tmp_path),
        command="ttl-deploy search",
        device=torch.device("cpu"),
        executor=executor,
        reporter=listener,  # type: ignore[arg-type] # what training says is enough here
    )

    def run() -> Mapping[str, Outcome]:
        caches = SimpleNamespace(of=lambda size: SimpleNamespace(path=tmp_path))  # only its path is used
        return train(study, CUTS, trials, caches, images=IMAGES)  # type: ignore[arg-type] # the same

    return run


def ledger(folder: Path) -> list[tuple[str, str]]:
    return [(entry.event, entry.key) for entry in RunFolder(folder).ledger.entries()]


PLAN = ["full__full__s0", "full__pupil__s0", "full__l2-sp__s0", "a__pupil__s0", "a__l2-sp__s0"]


def test_the_teacher_runs_first_and_the_ledger_keeps_the_order_of_the_plan(
    learn: Callable[[], Mapping[str, Outcome]], executor: LastFirst, listener: Listener, tmp_path: Path
) -> None:
    known = learn()
    assert executor.given == [
        ["full__full__s0", "full__l2-sp__s0", "a__l2-sp__s0"],
        ["full__pupil__s0", "a__pupil__s0"],
    ]
    assert ledger(tmp_path) == [("trial_finished", key) for key in PLAN]
    assert set(known) == set(PLAN)
    assert listener.planned == [PLAN]
    assert sorted(listener.ends) == sorted(PLAN)


def test_a_failed_teacher_fails_its_pupils_and_nobody_else(
    learn: Callable[[], Mapping[str, Outcome]], executor: LastFirst, listener: Listener, tmp_path: Path
) -> None:
    executor.fails["full__full__s0"] = [TrialError("memory", "too large")]
    known = learn()
    assert executor.given == [["full__full__s0", "full__l2-sp__s0", "a__l2-sp__s0"]]
    failed = {key: outcome for key, outcome in known.items() if not isinstance(outcome, TrialResult)}
    assert {key: outcome.kind for key, outcome in failed.items()} == {
        "full__full__s0": "memory",
        "full__pupil__s0": "error",
        "a__pupil__s0": "error",
    }
    assert failed["a__pupil__s0"].reason == "its teacher full__full__s0 failed: too large"
    events = dict.fromkeys(PLAN, "trial_finished") | dict.fromkeys(failed, "trial_failed")
    assert ledger(tmp_path) == [(events[key], key) for key in PLAN]
    assert sorted(listener.ends) == sorted(PLAN)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("lines", range(len(PLAN) + 1))
def test_a_round_that_was_cut_short_goes_on_and_ends_with_the_same_ledger(
    learn: Callable[[], Mapping[str, Outcome]], executor: LastFirst, tmp_path: Path, lines: int, fails: bool
) -> None:
    def errors() -> dict[str, list[TrialError]]:
        return {"full__full__s0": [TrialError("numerical", "not a number")]} if fails else {}

    executor.fails = errors()
    whole = learn()
    path = RunFolder(tmp_path).ledger.path
    expected = ledger(tmp_path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))
    executor.fails, executor.given = errors(), []
    assert learn() == whole
    assert ledger(tmp_path) == expected
    assert not {key for keys in executor.given for key in keys} & set(PLAN[:lines])


def test_a_teacher_whose_process_died_is_tried_again_before_anyone_learns_from_it(
    learn: Callable[[], Mapping[str, Outcome]], executor: LastFirst, listener: Listener, tmp_path: Path
) -> None:
    executor.fails["full__full__s0"] = [TrialError("crash", "signal 9")]
    learn()
    assert executor.given == [
        ["full__full__s0", "full__l2-sp__s0", "a__l2-sp__s0"],
        ["full__full__s0"],
        ["full__pupil__s0", "a__pupil__s0"],
    ]
    assert ledger(tmp_path) == [("trial_finished", key) for key in PLAN]
    assert listener.planned == [PLAN, ["full__full__s0", "full__pupil__s0", "a__pupil__s0"]]
    assert listener.notes == ["full__full__s0: signal 9; trying again from its checkpoint"]
