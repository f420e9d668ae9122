"""Costs of all candidate cuts before any training: a cut's latency does not depend on its weights."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ttl_deploy.errors import TargetUnavailableError
from ttl_deploy.export.onnx_writer import export_for_timing
from ttl_deploy.models import truncation
from ttl_deploy.processes import Crashed, TimedOut
from ttl_deploy.records.models import Cut, ModelSpec
from ttl_deploy.records.trials import CutProfile, Profile
from ttl_deploy.runtime.bench import ModelTime, ModelToTime, profile_models
from ttl_deploy.runtime.machine import current_load, describe_machine

THREADS = 1
ROUNDS = 3
Step = Callable[[str, int, int], None]


def profile_cuts(
    cuts: Sequence[Cut], specs: Sequence[ModelSpec], *, target: str, seconds: float, progress: Step
) -> Profile:
    """Export every cut with random weights, and time the files on the target, interleaved in fresh processes."""
    with tempfile.TemporaryDirectory(prefix="ttl-deploy-profile-") as temporary:
        models = []
        for number, spec in enumerate(specs):
            progress("exporting the cuts for timing", number, len(specs))
            models.append(_export(spec, Path(temporary) / f"{number}.onnx"))
        progress("exporting the cuts for timing", len(specs), len(specs))
        times = profile_models(
            models,
            target=target,
            threads=THREADS,
            seconds=seconds * ROUNDS,
            rounds=ROUNDS,
            progress=lambda done, total: progress(f"timing the cuts on {target}", done, total),
        )
        sizes = [model.path.stat().st_size for model in models]
    measured = [time for time in times if isinstance(time, ModelTime)]
    if not measured:
        raise TargetUnavailableError(f"no cut could be timed on {target}: {times[0]}; try another --profile-target")
    load = current_load()
    return Profile(
        target=target,
        runtime=measured[0].runtime,
        precision=measured[0].precision,
        threads=THREADS,
        batch=1,
        machine=describe_machine(load_before=load, load_after=load).processor,
        cuts=tuple(map(_cut_profile, cuts, sizes, times)),
    )


def _export(spec: ModelSpec, path: Path) -> ModelToTime:
    export_for_timing(truncation.build(spec), spec.image_size, path)
    return ModelToTime(name=spec.cut, path=path, height=spec.image_size, width=spec.image_size)


def _cut_profile(cut: Cut, size_bytes: int, time: ModelTime | Crashed | TimedOut) -> CutProfile:
    timed = time if isinstance(time, ModelTime) else None
    return CutProfile(
        cut=cut.name,
        params=cut.params,
        macs=cut.macs,
        layers=cut.layers,
        params_share=cut.params_share,
        macs_share=cut.macs_share,
        size_bytes=size_bytes,
        latency_s=timed.median_s if timed else None,
        latency_noise_s=timed.noise_s if timed else None,
        note="" if isinstance(time, ModelTime) else f"not timed: the runtime {time.reason}",
    )
