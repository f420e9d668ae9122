"""Exporting and timing what a profile still lacks: one fresh process per cut and round.

Rounds go through the cuts forwards, then backwards (ABBA), so that a slow drift of the machine does
not become a rank. A cut that already has some rounds is skipped in them: the order is that of an
uninterrupted measurement with a pause in it.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ttl_deploy import plugins
from ttl_deploy.errors import ArtifactError, GateError
from ttl_deploy.export.onnx_writer import export_for_timing
from ttl_deploy.models import truncation
from ttl_deploy.processes import Finished, run_isolated
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.runtime.measurement import Measurement, ProcessPlan, measure
from ttl_deploy.runtime.timing import TimingPlan
from ttl_deploy.search.profile_key import ProfilePlan

Step = Callable[[str, int, int], None]
_WARMUP_SHARE = 0.25
_LEAST_WARMUP_S = 0.1
_START_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A cut to be timed, in the rounds from `rounds_done` on; `keep` gets each measurement and the file's size."""

    spec: ModelSpec
    rounds_done: int
    keep: Callable[[Measurement, int], None]


def measure_jobs(jobs: Sequence[Job], plan: ProfilePlan, *, progress: Step) -> dict[int, str]:
    """Export the cuts with random weights and time them; returns why, by position, for those that could not be.

    A cut is exported when its first measurement comes, so an early interruption keeps something too, and
    the pace so far tells the time left. Raises `TargetUnavailableError` where the target cannot run at all.
    """
    plugins.load("targets", plan.target)
    reasons: dict[int, str] = {}
    steps = list(_missing_rounds(jobs, plan.rounds))
    stage = f"timing {len(jobs)} cuts on {plan.target}"
    with tempfile.TemporaryDirectory(prefix="ttl-deploy-profile-") as temporary:
        for done, (number, position) in enumerate(steps):
            progress(stage, done, len(steps))
            if position not in reasons:
                path = Path(temporary) / f"{position}.onnx"
                if reason := _measure_round(jobs[position], path, plan, number):
                    reasons[position] = reason
    progress(stage, len(steps), len(steps))
    return reasons


def _measure_round(job: Job, path: Path, plan: ProfilePlan, number: int) -> str:
    """Make one measurement; returns why where that is not possible."""
    if not path.exists() and (reason := _export(job.spec, path)):
        return reason
    outcome = measure_once(path, job.spec, plan, number)
    if not isinstance(outcome, Measurement):
        return outcome
    job.keep(outcome, path.stat().st_size)
    return ""


def _export(spec: ModelSpec, path: Path) -> str:
    """Export one cut; returns why where that is not possible."""
    try:
        export_for_timing(_build_random(spec), spec.image_size, path)
    except GateError as error:
        return str(error)
    return ""


@torch.no_grad()
def _build_random(spec: ModelSpec) -> nn.Module:
    """Build a cut in which no tensor is zero, as after training.

    timm begins residual branches with a scale of zero. The exporter would multiply it into the convolution
    before it, and store weights that are equal only once: a smaller file that needs less of the processor's cache.
    """
    model = truncation.build(spec)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


def _missing_rounds(jobs: Sequence[Job], rounds: int) -> Iterator[tuple[int, int]]:
    """Yield round and position of every measurement: forwards in even rounds, backwards in odd ones."""
    for number in range(rounds):
        order = range(len(jobs))
        for position in order if number % 2 == 0 else reversed(order):
            if jobs[position].rounds_done <= number:
                yield number, position


def measure_once(path: Path, spec: ModelSpec, plan: ProfilePlan, number: int) -> Measurement | str:
    """Time one file with one image in a fresh process; returns why where the runtime refuses it, crashes or hangs."""
    timing = TimingPlan(seconds=plan.seconds, warmup_seconds=max(_LEAST_WARMUP_S, _WARMUP_SHARE * plan.seconds))
    images = np.random.default_rng(0).integers(0, 256, (1, spec.image_size, spec.image_size, 3), dtype=np.uint8)
    timeout_s = _START_S + 20 * (timing.seconds + timing.warmup_seconds)
    process = ProcessPlan(
        target=plan.target, model=path, threads=plan.threads, images=images, timing=timing, round_number=number
    )
    try:
        outcome = run_isolated(measure, process, time.monotonic(), timeout_s=timeout_s)
    except ArtifactError as error:
        return str(error)
    return outcome.value if isinstance(outcome, Finished) else f"the runtime {outcome.reason}"
