"""Costs of all candidate cuts before any training: a cut's latency does not depend on its weights."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ttl_deploy.errors import GateError, TargetUnavailableError
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
        exports = []
        for number, spec in enumerate(specs):
            progress("exporting the cuts for timing", number, len(specs))
            exports.append(_export(spec, Path(temporary) / f"{number}.onnx"))
        progress("exporting the cuts for timing", len(specs), len(specs))
        models = [export for export in exports if isinstance(export, ModelToTime)]
        times = profile_models(
            models,
            target=target,
            threads=THREADS,
            seconds=seconds * ROUNDS,
            rounds=ROUNDS,
            progress=lambda done, total: progress(f"timing the cuts on {target}", done, total),
        )
        sizes = {model.name: model.path.stat().st_size for model in models}
    of_cut = {spec.cut: str(export) for spec, export in zip(specs, exports, strict=True)} | dict(
        zip(sizes, times, strict=True)
    )
    measured = [time for time in times if isinstance(time, ModelTime)]
    if not measured:
        why = _why_not_timed(next(iter(of_cut.values())))
        raise TargetUnavailableError(f"no cut could be timed on {target} ({why}): try another --profile-target")
    load = current_load()
    return Profile(
        target=target,
        runtime=measured[0].runtime,
        precision=measured[0].precision,
        threads=THREADS,
        batch=1,
        machine=describe_machine(load_before=load, load_after=load).processor,
        cuts=tuple(_cut_profile(cut, sizes.get(cut.name, 0), of_cut[cut.name]) for cut in cuts),
    )


def _export(spec: ModelSpec, path: Path) -> ModelToTime | GateError:
    """Export one cut; one that cannot be exported goes without a latency, and says why."""
    try:
        export_for_timing(truncation.build(spec), spec.image_size, path)
    except GateError as error:
        return error
    return ModelToTime(name=spec.cut, path=path, height=spec.image_size, width=spec.image_size)


def _why_not_timed(time: ModelTime | Crashed | TimedOut | str) -> str:
    if isinstance(time, ModelTime):
        return ""
    return time if isinstance(time, str) else f"the runtime {time.reason}"


def _cut_profile(cut: Cut, size_bytes: int, time: ModelTime | Crashed | TimedOut | str) -> CutProfile:
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
        note=_why_not_timed(time),
    )
