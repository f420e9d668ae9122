"""Live progress on stderr: bars on a terminal, plain lines elsewhere, nothing when switched off."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ttl_deploy.errors import RunInterruptedError
from ttl_deploy.records.candidates import name_candidate

from .verbosity import is_quiet

if TYPE_CHECKING:
    from ttl_deploy.runs.folder import RunFolder
    from ttl_deploy.search.context import Reporter


def say(text: str) -> None:
    """Print one line for people on stderr, unless only results are wanted."""
    if not is_quiet():
        print(text, file=sys.stderr, flush=True)


class Estimate:
    """Time left, from the share of the planned cost that is done; unknown until some of it is."""

    LEAST_SHARE = 0.02

    def __init__(self, costs: Sequence[float], clock: Callable[[], float] = time.monotonic) -> None:
        self._costs = list(costs)
        self._shares = [0.0] * len(costs)
        self._clock, self._started_s = clock, clock()

    def update(self, number: int, share: float) -> None:
        """Set how much of one task is done, 0 to 1."""
        self._shares[number] = share

    @property
    def share(self) -> float:
        """How much of the whole cost is done, 0 to 1."""
        total = sum(self._costs)
        return sum(c * s for c, s in zip(self._costs, self._shares, strict=True)) / total if total else 1.0

    @property
    def left_s(self) -> float | None:
        """Seconds left at the pace so far, or None while too little is done to tell."""
        share = self.share
        if share < self.LEAST_SHARE:
            return None
        return (self._clock() - self._started_s) * (1 - share) / share

    def __str__(self) -> str:
        left_s = self.left_s
        if left_s is None:
            return "estimating the time left"
        from ttl_deploy.report.numbers import format_duration

        return f"about {format_duration(left_s)} left"


_WHAT = {
    "train": "training {} models",
    "probe": "probing all cuts of the frozen backbone",
    "test": "testing {} models on the locked test split",
}
"""What a round of tasks does, by their kind."""


class _Rounds:
    """What both views share: the tasks of a round, their estimate, the best score so far."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []
        self.estimate = Estimate([])
        self.best: tuple[float, str] | None = None
        self._strategies: set[str] = set()

    def begin(self, tasks: Sequence[Any]) -> None:
        self.tasks = list(tasks)
        self._strategies |= {task.trial.strategy for task in tasks}
        self.estimate = Estimate([task.cost for task in tasks])

    def update(self, task: Any, progress: Any) -> None:
        share = progress.epoch if progress.finished else progress.epoch - 1 + 0.9 * progress.done / progress.total
        self.estimate.update(self.tasks.index(task), (share - task.begun) / (task.end - task.begun))
        # A joint training's score is the mean of its exits, which is no candidate's.
        score = progress.finished.val_auroc if progress.finished and not task.trial.model.exits else None
        if score is not None and (self.best is None or score > self.best[0]):
            self.best = (score, name_candidate(task.trial.candidate, several=len(self._strategies) > 1))

    def end(self, task: Any) -> None:
        self.estimate.update(self.tasks.index(task), 1.0)

    @property
    def best_text(self) -> str:
        return f"best so far {self.best[0]:.3f} ({self.best[1]})" if self.best else "no score yet"


def describe_epoch(task: Any, progress: Any) -> str:
    """Render a finished epoch in one line."""
    record = progress.finished
    score = "undefined" if record.val_auroc is None else f"{record.val_auroc:.3f}"
    epochs = task.trial.train.epochs
    mean = " (mean of the exits)" if task.trial.model.exits else ""
    loss = f"loss {record.train_loss:.3f}, validation AUROC {score}{mean}"
    return f"{task.trial.key}: epoch {record.epoch}/{epochs}, {loss}{describe_wait(record)}"


def describe_wait(record: Any) -> str:
    """Render how long an epoch waited for its images, if that is worth a word: above 5 %."""
    return f", waited for images {record.data_wait_share:.0%} of the time" if record.data_wait_share > 0.05 else ""


def describe_end(task: Any, outcome: Any) -> str:
    """Render the end of a task in one line."""
    if outcome is None:
        return "probed all cuts" if task.kind == "probe" else f"{task.trial.key}: tested"
    if hasattr(outcome, "reason"):
        return f"{task.trial.key}: FAILED ({outcome.kind}): {outcome.reason}"
    score = "undefined" if outcome.val_auroc is None else f"{outcome.val_auroc:.3f}"
    if hasattr(outcome, "epoch"):
        return f"{task.trial.key}: rests after epoch {outcome.epoch}, validation AUROC {score}"
    from ttl_deploy.report.numbers import format_duration

    return f"{task.trial.key}: done in {format_duration(outcome.seconds)}, validation AUROC {score}"


class PlainReporter:
    """One line per event: for logs and pipes."""

    def __init__(self) -> None:
        self._rounds = _Rounds()
        self._stage = ""

    def step(self, stage: str, done: int, total: int) -> None:
        """Announce a stage once."""
        if stage != self._stage and done < total:
            self._stage = stage
            say(f"{stage} ({total})")

    def plan(self, tasks: Sequence[Any]) -> None:
        """Announce a round."""
        self._rounds.begin(tasks)
        say(_WHAT[tasks[0].kind].format(len(tasks)))

    def progress(self, task: Any, progress: Any) -> None:
        """Print a line per finished epoch."""
        self._rounds.update(task, progress)
        if progress.finished:
            say(f"{describe_epoch(task, progress)}; {self._rounds.best_text}; {self._rounds.estimate}")

    def ended(self, task: Any, outcome: Any) -> None:
        """Print a line per task."""
        self._rounds.end(task)
        say(describe_end(task, outcome))

    def note(self, text: str) -> None:
        """Print a line."""
        say(text)


class LiveReporter:
    """Bars: one for the whole round, one per running trial."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._rounds = _Rounds()
        self._stages: dict[str, Any] = {}
        self._trials: dict[str, Any] = {}
        self._whole: Any = None

    def step(self, stage: str, done: int, total: int) -> None:
        """Move a stage's bar."""
        if stage not in self._stages:
            self._stages[stage] = self._bars.add_task(stage, total=total, note="")
        self._bars.update(self._stages[stage], completed=done, total=total)

    def plan(self, tasks: Sequence[Any]) -> None:
        """Start the bar of a round."""
        self._rounds.begin(tasks)
        what = _WHAT[tasks[0].kind].format(len(tasks))
        self._whole = self._bars.add_task(what, total=1.0, note=str(self._rounds.estimate))

    def progress(self, task: Any, progress: Any) -> None:
        """Move a trial's bar and the round's."""
        self._rounds.update(task, progress)
        key = task.trial.key
        if key not in self._trials:
            self._trials[key] = self._bars.add_task(f"  {key}", total=task.trial.train.epochs, note="")
        score = progress.finished.val_auroc if progress.finished else None
        wait = describe_wait(progress.finished) if progress.finished else ""
        note = {} if score is None else {"note": f"epoch {progress.epoch}: AUROC {score:.3f}{wait}"}
        completed = progress.epoch if progress.finished else progress.epoch - 1 + progress.done / progress.total
        self._bars.update(self._trials[key], completed=completed, **note)
        self._refresh()

    def ended(self, task: Any, outcome: Any) -> None:
        """Replace a trial's bar by a line."""
        self._rounds.end(task)
        bar = self._trials.pop(task.trial.key, None)
        if bar is not None:
            self._bars.remove_task(bar)
        if outcome is not None:
            self.note(describe_end(task, outcome))
        self._refresh()

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(text, markup=False, highlight=False)

    def _refresh(self) -> None:
        self._bars.update(
            self._whole,
            completed=self._rounds.estimate.share,
            note=f"{self._rounds.estimate}; {self._rounds.best_text}",
        )


class SilentReporter:
    """Shows nothing but notes that matter: failures."""

    def step(self, stage: str, done: int, total: int) -> None:
        """Nothing."""

    def plan(self, tasks: Sequence[Any]) -> None:
        """Nothing."""

    def progress(self, task: Any, progress: Any) -> None:
        """Nothing."""

    def ended(self, task: Any, outcome: Any) -> None:
        """Print failures only."""
        if hasattr(outcome, "reason"):
            say(describe_end(task, outcome))

    def note(self, text: str) -> None:
        """Print a line."""
        say(text)


@contextmanager
def show_study(run: "RunFolder", command: str, *, enabled: bool) -> "Iterator[Reporter]":
    """Show a study while it runs; an interruption ends with the command that resumes it."""
    try:
        if not enabled or is_quiet():
            yield SilentReporter()
        elif not sys.stderr.isatty():
            yield PlainReporter()
        else:
            with live_bars() as bars:
                yield LiveReporter(bars)
    except RunInterruptedError as error:
        resume = run.command.read_text(encoding="utf-8").strip() if run.command.exists() else command
        raise RunInterruptedError(
            f"{error}. To resume, type:\n  {resume}", signal_number=error.exit_code - 128
        ) from None


@contextmanager
def live_bars() -> Iterator[Any]:
    """Open rich's bars on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as bars:
        yield bars


@contextmanager
def show_steps(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show one bar with time left for a job of countable units; yields `update(done, total)`."""
    if is_quiet() or not sys.stderr.isatty():
        say(title)
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


@contextmanager
def show_stages(*, enabled: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Show jobs of countable units with the time left; yields `step(stage, done, total)`."""
    if not enabled or is_quiet():
        yield lambda stage, done, total: None
    elif sys.stderr.isatty():
        with live_bars() as bars:
            yield _BarPerStage(bars).step
    else:
        yield _LinePerStage().step


class _BarPerStage:
    """One bar for every stage."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._stages: dict[str, tuple[Any, Estimate]] = {}

    def step(self, stage: str, done: int, total: int) -> None:
        if stage not in self._stages:
            self._stages[stage] = (self._bars.add_task(stage, total=total, note=""), Estimate([1.0]))
        bar, estimate = self._stages[stage]
        estimate.update(0, done / total)
        note = f"{done} of {total}, {estimate}" if done < total else ""
        self._bars.update(bar, completed=done, total=total, note=note)


class _LinePerStage:
    """A line when a stage begins, and every ten seconds while it goes on."""

    EVERY_S = 10.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._said_s = clock, clock()
        self._estimates: dict[str, Estimate] = {}

    def step(self, stage: str, done: int, total: int) -> None:
        if stage not in self._estimates:
            self._estimates[stage] = Estimate([1.0], self._clock)
            say(f"{stage} ({total})")
            return
        self._estimates[stage].update(0, done / total)
        if done < total and self._clock() - self._said_s >= self.EVERY_S:
            self._said_s = self._clock()
            say(f"{stage}: {done} of {total}, {self._estimates[stage]}")


@contextmanager
def spinner(title: str) -> Iterator[None]:
    """Show that a job without countable units is under way."""
    if is_quiet() or not sys.stderr.isatty():
        say(title)
        yield
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(title)):
        yield
