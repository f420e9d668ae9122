"""What a search would do, and what that takes, told without training anything and without a run folder.

What decides the plan is read and checked as in a real search, and the policy is asked what it would do in made-up
worlds (`imagined.py`): the cheapest and the dearest of them are the forecast's ends. Costs are those by which a search
counts its own (`costs.py`); times come from a few steps that are timed here and now (`pace.py`).
"""

import shutil
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import torch

from ttl_deploy.data.cache import find_cache
from ttl_deploy.data.cache_root import cache_folder
from ttl_deploy.plugins import Progress
from ttl_deploy.records.forecast import DiskForecast, Forecast, Span, StageForecast, TimeForecast
from ttl_deploy.records.models import FULL
from ttl_deploy.records.trials import SearchSettings, Trial
from ttl_deploy.search import forecast_time
from ttl_deploy.search.costs import cut_macs
from ttl_deploy.search.executors import Place, Where
from ttl_deploy.search.executors.local import pick_devices
from ttl_deploy.search.executors.memory import estimate_task, find_places
from ttl_deploy.search.forecast_time import Clock
from ttl_deploy.search.imagined import Course
from ttl_deploy.search.pace import MOST_AT_ONCE, Pace, measure_pace
from ttl_deploy.search.preparation import profile_plan
from ttl_deploy.search.prospect import Note, Prospect, look_ahead, tested_cuts

_NAMED = 5
_GENERATIONS = 2
_STATE_COPIES = 3
"""Weights and the optimiser's two moments of each."""
_VALUE_BYTES = 4


def make_forecast(
    settings: SearchSettings,
    out: Path,
    *,
    where: Where,
    note: Note,
    progress: Progress,
) -> Forecast:
    """Tell what a search into `out` would do here; `note` gets what a user should know, a line each.

    Raises `TtlDeployError` as the search would, for what the user must mend.
    """
    devices = pick_devices(where)
    ahead = look_ahead(settings, note=note, progress=progress)
    decoded = find_cache(ahead.manifest, settings.decode) is not None
    side_by_side = _count_workers(ahead, find_places(devices, where.workers))
    return Forecast(
        policy=settings.policy,
        cuts=tuple(cut.name for cut in ahead.cuts),
        to_profile=len(ahead.unmeasured),
        images=dict(ahead.images),
        stages=tuple(describe_plan(ahead)),
        trainings=ahead.span(lambda course, _: len({part.trial.key for part in course.parts})),
        macs=_all_macs(ahead),
        full_macs=settings.train.epochs * cut_macs(ahead.macs[FULL], ahead.images),
        exhaustive_macs=ahead.exhaustive_macs,
        patience=ahead.patience if ahead.patience + 1 < settings.train.epochs else 0,
        time=estimate_time(ahead, devices[0], workers=side_by_side, decoded=decoded, progress=progress),
        disk=estimate_disk(ahead, out, workers=side_by_side, decoded=decoded),
        resumes=(out / "ledger.jsonl").exists(),
    )


def describe_plan(ahead: Prospect) -> Iterator[StageForecast]:
    """Yield the stages that a search has in some world, in their order."""
    none, skip = Span(least=0, most=0), ahead.settings.skip
    if "profile" not in skip:
        told = f"{len(ahead.unmeasured)} of {len(ahead.cuts)} cuts are not timed on {ahead.settings.profile_target} yet"
        yield StageForecast(stage="profile", trainings=none, macs=none, told=told)
    if any(course.probed for course in ahead.courses):
        told = f"{len(ahead.possible.covered)} cuts of the frozen backbone, on {ahead.probe_images:,} images"
        macs = ahead.span(lambda course, _: ahead.probe_macs(course))
        yield StageForecast(stage="probe", trainings=none, macs=macs, told=told)
    joint = _training_stage(ahead, joint=True)
    if joint.most:
        told = f"{len(ahead.possible.covered)} cuts as one network"
        macs = ahead.span(partial(ahead.trainings_macs, joint=True))
        yield StageForecast(stage="joint", trainings=joint, macs=macs, told=told)
    alone = _training_stage(ahead, joint=False)
    if alone.most:
        macs = ahead.span(partial(ahead.trainings_macs, joint=False))
        yield StageForecast(stage="confirm", trainings=alone, macs=macs, told=_name_cuts(ahead))
    if "test" not in skip:
        told = f"the reference and the front, {ahead.images['test']:,} images; at most all that is trained"
        macs = _hull([ahead.test_macs(course) for course in ahead.courses])
        yield StageForecast(stage="test", trainings=none, macs=macs, told=told)


def _training_stage(ahead: Prospect, *, joint: bool) -> Span:
    return ahead.span(
        lambda course, _: len({part.trial.key for part in course.parts if bool(part.trial.model.exits) == joint})
    )


def _name_cuts(ahead: Prospect) -> str:
    """Say which cuts are trained by themselves whatever comes, and which perhaps."""
    trained = [{part.trial.model.cut for part in one.parts if not part.trial.model.exits} for one in ahead.courses]
    always, ever = set.intersection(*trained), set.union(*trained)
    names = [cut.name for cut in ahead.possible.cuts]
    sure, perhaps = ([name for name in names if name in some] for some in (always, ever - always))
    most = max(len(cuts - always) for cuts in trained)
    told = [_list(sure)] if sure else []
    if perhaps:
        told.append(f"at most {most} of {_list(perhaps)}")
    return "; ".join(told)


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _hull(spans: list[Span]) -> Span:
    return Span(least=min(span.least for span in spans), most=max(span.most for span in spans))


def _all_macs(ahead: Prospect) -> Span:
    """Return what everything costs: the ends are those of whole worlds, not of each stage by itself."""

    def all_but_test(course: Course, patience: int) -> float:
        trainings = (ahead.trainings_macs(course, patience, joint=joint) for joint in (True, False))
        return ahead.probe_macs(course) + sum(trainings)

    ends = []
    for course in ahead.courses:
        test = ahead.test_macs(course)
        ends.append(
            Span(
                least=min(all_but_test(course, 0), all_but_test(course, ahead.patience)) + test.least,
                most=all_but_test(course, 0) + test.most,
            )
        )
    return _hull(ends)


def _longest(ahead: Prospect) -> Trial:
    """Return the deepest trial that may be trained by itself."""
    settings, covered = ahead.settings, ahead.possible.covered
    return ahead.possible.trial_of[covered[-1].name, settings.strategies[0], settings.seeds[0]]


def _count_workers(ahead: Prospect, places: Iterable[Place]) -> int:
    """Return how many trainings of the deepest cut run side by side, as many as memory allows."""

    def fitting(place: Place) -> int:
        if place.memory_bytes is None:
            return place.workers
        needed = estimate_task("train", _longest(ahead), torch.device(place.device))
        return max(1, min(place.workers, place.memory_bytes // max(1, needed)))

    return sum(map(fitting, places))


def estimate_time(
    ahead: Prospect, device: torch.device, *, workers: int, decoded: bool, progress: Progress
) -> TimeForecast:
    """Time what a search does, and estimate how long it takes with so many trainings side by side."""
    settings, probed = ahead.settings, any(course.probed for course in ahead.courses)
    steps = 4
    decoding_s = 0.0 if decoded else forecast_time.time_decoding(ahead.manifest, settings.decode)
    progress("timing what the search would do", 1, steps)
    profile_s = forecast_time.time_profile(ahead.unmeasured, profile_plan(settings))
    progress("timing what the search would do", 2, steps)
    fits_s = forecast_time.time_fits(ahead.possible.covered, ahead.probed) if probed else 0.0
    progress("timing what the search would do", 3, steps)
    pace = _measure_pace(ahead, device, at_once=min(workers, MOST_AT_ONCE))
    progress("timing what the search would do", 4, steps)
    clock = Clock(
        pace=pace,
        macs=ahead.macs,
        params={cut.name: cut.params for cut in ahead.cuts},
        images=ahead.images,
    )
    probe_s = clock.pass_s(ahead.possible.covered[-1].name, ahead.probe_images) + fits_s if probed else 0.0
    before_s = decoding_s + profile_s + pace.start_s

    def whole(course: Course, patience: int) -> float:
        trainings_s = clock.trainings_s(course, workers=workers, patience=patience)
        return before_s + (probe_s if course.probed else 0.0) + trainings_s

    tests_s = [_test_seconds(ahead, course, clock, workers) for course in ahead.courses]
    trained_s = ahead.span(whole)
    return TimeForecast(
        seconds=trained_s + _hull(tests_s),
        decoding_s=decoding_s,
        profile_s=profile_s,
        probe_s=probe_s,
        device=str(device),
        precision=pace.full.precision,
        workers=workers,
        deepest=_longest(ahead).model.cut,
        image_s=pace.full.image_s,
        shallow=_cheapest(ahead).model.cut,
        shallow_image_s=pace.shallow.image_s,
    )


def _test_seconds(ahead: Prospect, course: Course, clock: Clock, workers: int) -> Span:
    if "test" in ahead.settings.skip:
        return Span(least=0, most=0)
    each_s = [clock.pass_s(cut, ahead.images["test"]) for cut in tested_cuts(course)]
    longest_s = max(each_s, default=0.0)
    return Span(least=longest_s, most=max(longest_s, sum(each_s) / workers))


def _cheapest(ahead: Prospect) -> Trial:
    settings, cut = ahead.settings, min(ahead.possible.cuts, key=lambda cut: cut.macs)
    return ahead.possible.trial_of[cut.name, settings.strategies[0], settings.seeds[0]]


def _measure_pace(ahead: Prospect, device: torch.device, *, at_once: int) -> Pace:
    """Time the deepest cut and the cheapest."""
    pair, costs = (_longest(ahead), _cheapest(ahead)), {cut.name: cut for cut in ahead.cuts}
    full, shallow = (costs[trial.model.cut] for trial in pair)
    return measure_pace(
        *pair, macs=(full.macs, shallow.macs), params=(full.params, shallow.params), device=device, at_once=at_once
    )


def estimate_disk(ahead: Prospect, out: Path, *, workers: int, decoded: bool) -> DiskForecast:
    """Count what a search writes into its run folder and the cache, and look how much is free there."""
    cache = cache_folder("pixels")
    folder = _nearest_existing(out.absolute())
    side, distinct = ahead.settings.decode.image_size, len({sample.sha256 for sample in ahead.manifest.samples})
    return DiskForecast(
        cache=0 if decoded else distinct * side * side * 3,
        trials=ahead.span(lambda course, _: _kept_bytes(ahead, course)),
        checkpoints=max(_checkpoint_bytes(ahead, course, workers) for course in ahead.courses),
        cache_folder=str(cache),
        run_folder=str(out),
        cache_free=shutil.disk_usage(cache).free,
        run_free=shutil.disk_usage(folder).free,
        same_disk=cache.stat().st_dev == folder.stat().st_dev,
    )


def _nearest_existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _kept_bytes(ahead: Prospect, course: Course) -> int:
    """Return the size of weights and predictions: of every trial once, and of a joint training's exits too."""
    weights = {cut.name: cut.weights_bytes for cut in ahead.cuts}
    predicted = (ahead.images["val"] + ahead.images["test"]) * len(ahead.manifest.classes) * _VALUE_BYTES
    trials = {part.trial.key: part.trial for part in course.parts}.values()
    cuts = [cut for trial in trials for cut in (trial.model.cut, *trial.model.exits)]
    return sum(weights[cut] + predicted for cut in cuts)


def _checkpoint_bytes(ahead: Prospect, course: Course, workers: int) -> int:
    """Return the size of the checkpoints that can lie there at once: of trials that rest, and of those that run."""
    copies = _GENERATIONS * (_STATE_COPIES + (ahead.settings.train.ema > 0))
    weights = {cut.name: cut.weights_bytes for cut in ahead.cuts}
    all_parts = course.parts
    resting = {part.trial.key: part.trial for part in all_parts if part.end < part.trial.train.epochs}
    running = sorted(
        (
            weights[trial.model.cut]
            for key, trial in {part.trial.key: part.trial for part in all_parts}.items()
            if key not in resting
        ),
        reverse=True,
    )
    return copies * (sum(weights[trial.model.cut] for trial in resting.values()) + sum(running[:workers]))
