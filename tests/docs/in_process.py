"""The program without processes of its own: what it starts them for is done here, so that a command takes no second.

That children are started, crash alone and are stopped is what other tests show; those of the documents that are
marked slow start them too.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ttl_deploy import processes
from ttl_deploy.errors import TtlDeployError
from ttl_deploy.export import formats, lowering, tensorrt_format, writer
from ttl_deploy.runtime import diagnosis
from ttl_deploy.search import forecast, measuring
from ttl_deploy.search.executors import Done
from ttl_deploy.search.executors import memory as memory_of_tasks
from ttl_deploy.search.executors.local import LocalExecutor
from ttl_deploy.search.executors.worker import Refusal, do_task
from ttl_deploy.search.pace import Pace, Timed
from ttl_deploy.search.tasks import Task
from ttl_deploy_cli.main import app

_STARTERS = (formats, lowering, tensorrt_format, writer, diagnosis, measuring, memory_of_tasks)
_STEP = Timed(image_s=0.01, validation_s=0.01, begin_s=0.1, save_s=0.1, precision="fp32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a command ended with: its exit code, and what it printed."""

    code: int
    output: str


def stay_in_process(patch: pytest.MonkeyPatch) -> None:
    """Have trainings, exports and looks at runtimes done in this process, and dry runs not take times."""
    patch.setattr(LocalExecutor, "run", _run_tasks)
    for module in _STARTERS:
        patch.setattr(module, "run_isolated", _call)
    patch.setattr(forecast, "measure_pace", _take_no_time)
    patch.setattr(forecast.forecast_time, "time_profile", lambda specs, plan: 1.0)


def type_in(words: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> Answer:
    """Run the program with these words behind its name, in a folder."""
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ttl-deploy", *words])
        patch.syspath_prepend(str(cwd))
        os.chdir(cwd)
        try:
            done = CliRunner().invoke(app, list(words), env=dict(environment))
        finally:
            os.chdir(before)
    error = done.exception
    if error is not None and not isinstance(error, TtlDeployError | SystemExit):
        raise error
    code = error.exit_code if isinstance(error, TtlDeployError) else done.exit_code
    return Answer(code=code, output=f"{done.output}{error or ''}")


def _run_tasks(executor: LocalExecutor, tasks: Sequence[Task], *, report: Callable[..., None]) -> Iterator[Done]:
    for position, task in enumerate(tasks):
        outcome = do_task(replace(task, device="cpu"), lambda progress, position=position: report(position, progress))
        if isinstance(outcome, Refusal):
            raise outcome.restore()
        yield Done(position, outcome)


def _call(
    function: Callable[..., Any], *arguments: Any, timeout_s: float, environment: Mapping[str, str] | None = None
) -> processes.Finished[Any]:
    return processes.Finished(value=function(*arguments))


def _take_no_time(full: Any, shallow: Any, *, macs: Any, params: Any, device: Any, at_once: int) -> Pace:
    return Pace(full=_STEP, shallow=_STEP, macs=macs, params=params, start_s=1.0)
