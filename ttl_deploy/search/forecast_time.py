"""How long a search would take: what is measured in a few seconds, times how often it would be done."""

import heapq
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ttl_deploy import pixels
from ttl_deploy.data.decoding import WORTH_PROCESSES
from ttl_deploy.data.labels import label_array
from ttl_deploy.evidence.linear_probe import fit_probe
from ttl_deploy.records.data import DecodeSettings, Manifest
from ttl_deploy.records.models import FULL, Cut, ModelSpec
from ttl_deploy.records.trials import Trial
from ttl_deploy.runtime.measurement import Measurement
from ttl_deploy.search.imagined import Course, Part
from ttl_deploy.search.pace import Pace
from ttl_deploy.search.profile_key import ProfilePlan

_DECODED = 8
_TIMING_S = 0.1
_WARMUP = 1.25
"""Seconds that a second of timing takes, with what warms up."""


def time_decoding(manifest: Manifest, settings: DecodeSettings) -> float:
    """Decode a handful of images, evenly spread, and return the seconds that all distinct ones would take.

    Raises `UnreadableImageError` where one of the handful cannot be decoded.
    """
    first = {sample.sha256: sample.path for sample in reversed(manifest.samples)}
    paths = list(first.values())
    chosen = paths[:: max(1, len(paths) // _DECODED)][:_DECODED]
    began = time.perf_counter()
    for path in chosen:
        pixels.decode(Path(manifest.root) / path, settings)
    each_s = (time.perf_counter() - began) / len(chosen)
    workers = (os.cpu_count() or 1) if len(paths) >= WORTH_PROCESSES else 1
    return each_s * len(paths) / workers


def time_profile(specs: Sequence[ModelSpec], plan: ProfilePlan) -> float:
    """Export and time one or two cuts shortly, and return the seconds that all of these would take.

    Raises `TargetUnavailableError` where the target cannot run.
    """
    # Needs the exporters, which take a second to load.
    from ttl_deploy.search.measuring import Job, measure_jobs

    if not specs:
        return 0.0
    short = replace(plan, seconds=min(plan.seconds, _TIMING_S), rounds=2)
    some = [specs[0], *specs[len(specs) // 2 : len(specs) // 2 + 1]] if len(specs) > 1 else [specs[0]]
    ends = [time.perf_counter()]

    def keep(measurement: Measurement, size_bytes: int) -> None:
        ends.append(time.perf_counter())

    reasons = measure_jobs(
        [Job(spec=spec, rounds_done=0, keep=keep) for spec in some], short, progress=lambda stage, done, total: None
    )
    if reasons:
        return 0.0
    # Each is exported in the first round, the last of them when the exporter is warm; then rounds go backwards.
    taken = np.diff(ends)
    first_s, again_s = float(taken[len(some) - 1]), float(taken[len(some)])
    round_s = again_s + _WARMUP * (plan.seconds - short.seconds)
    return len(specs) * (max(0.0, first_s - again_s) + plan.rounds * round_s)


def time_fits(cuts: Sequence[Cut], manifest: Manifest) -> float:
    """Fit one linear probe to numbers drawn at random, and return the seconds that those of all cuts would take."""
    rng, width = np.random.default_rng(0), sorted(cut.channels for cut in cuts)[len(cuts) // 2]
    train, val = ([manifest.samples[position] for position in manifest.of_split(split)] for split in ("train", "val"))
    began = time.perf_counter()
    fit_probe(
        rng.normal(size=(len(train), width)),
        label_array(train),
        np.array([sample.patient_id for sample in train]),
        rng.normal(size=(len(val), width)),
        classes=len(manifest.classes),
    )
    return len(cuts) * (time.perf_counter() - began)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Knows how long trainings and passes take, by a pace and by every cut's costs.

    `macs` and `params` are the cuts', `images` the numbers of images by split.
    """

    pace: Pace
    macs: Mapping[str, int]
    params: Mapping[str, int]
    images: Mapping[str, int]

    def epoch_s(self, trial: Trial) -> float:
        """Return the seconds of one of a trial's epochs, with what is saved after it."""
        macs = self.macs[trial.model.cut]
        taught_s = self.pace.validation_s(self.macs[FULL]) if trial.teacher is not None else 0.0
        return (
            self.images["train"] * (self.pace.image_s(macs) + taught_s)
            + self.images["val"] * self.pace.validation_s(macs)
            + self.pace.save_s(self.params[trial.model.cut])
        )

    def pass_s(self, cut: str, images: int) -> float:
        """Return the seconds in which a model is built and sees so many images."""
        macs = self.macs[cut]
        return self.pace.begin_s(macs) + images * self.pace.validation_s(macs)

    def trainings_s(self, course: Course, *, workers: int, patience: int) -> float:
        """Return the seconds that all rounds of a course take on so many workers.

        With a `patience` above 0 every training stops as early as it may.
        """
        return sum(self._round_s(parts, workers=workers, patience=patience) for parts in course.rounds)

    def _round_s(self, parts: Sequence[Part], *, workers: int, patience: int) -> float:
        """Give each training in turn to the worker that is free first; it waits for what it needs."""
        free, ended = [0.0] * workers, dict[str, float]()
        for part in parts:
            ready_s = max((ended.get(key, 0.0) for key in part.trial.needs), default=0.0)
            began_s = max(heapq.heappop(free), ready_s)
            begin_s = self.pace.begin_s(self.macs[part.trial.model.cut])
            ended[part.trial.key] = began_s + begin_s + part.epochs(patience) * self.epoch_s(part.trial)
            heapq.heappush(free, ended[part.trial.key])
        return max(ended.values(), default=0.0)
