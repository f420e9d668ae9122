"""The probe of a search's cuts before anything is trained: by itself, or as a stage of the search."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import torch

from ttl_deploy.data.cache import open_cache
from ttl_deploy.errors import WeightsError
from ttl_deploy.models import weights
from ttl_deploy.models.weights.prepared import find_feeding
from ttl_deploy.plugins import Progress
from ttl_deploy.records import codec
from ttl_deploy.records.models import Cut, ModelSpec
from ttl_deploy.records.probe import Probe
from ttl_deploy.records.trials import SearchSettings, Trial
from ttl_deploy.search.caches import Caches
from ttl_deploy.search.candidates import find_cuts, probes
from ttl_deploy.search.context import Study
from ttl_deploy.search.preparation import keep_usable, prepare_data
from ttl_deploy.search.probing import probe_cuts
from ttl_deploy.search.running import make_task, run_with_retries

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLook:
    """A probe, and the cuts it is of."""

    cuts: tuple[Cut, ...]
    probe: Probe


def probe_data(settings: SearchSettings, *, device: torch.device, note: Note, progress: Progress) -> FirstLook:
    """Probe the wanted cuts of a search before it is begun; the full network only where the weights cover it.

    `note` gets what a user should know, a line each. The test split is not opened.
    """
    find_cuts(settings, classes=2)  # names are checked before the images are read
    manifest = prepare_data(settings, progress=progress)
    for warning in manifest.warnings:
        note(f"data: {warning.message}")
    cuts = find_cuts(settings, classes=len(manifest.classes))
    feeding = find_feeding(
        settings.weights, settings.backbone, image_size=settings.decode.image_size, normalise=settings.normalise
    )
    cuts = _covered(settings, cuts, note=note)
    manifest, _ = keep_usable(settings, manifest, progress=progress, note=note)
    cache = open_cache(manifest, settings.decode, progress=progress)
    spec = ModelSpec(
        backbone=settings.backbone,
        cut=cuts[-1].name,
        classes=len(manifest.classes),
        image_size=settings.decode.image_size,
        pool=settings.pool,
        exits=tuple(cut.name for cut in cuts),
    )
    found = probe_cuts(settings, manifest, cache, spec, feeding=feeding, device=device, progress=progress)
    return FirstLook(cuts=cuts, probe=found.probe)


def _covered(settings: SearchSettings, cuts: tuple[Cut, ...], *, note: Note) -> tuple[Cut, ...]:
    used = weights.check_weights(
        settings.weights,
        settings.backbone,
        cuts,
        image_size=settings.decode.image_size,
        normalise=settings.normalise,
    )
    missing = {one.cut: one.reason for one in used.cuts if not one.covered}
    left = tuple(cut for cut in cuts if cut.name not in missing)
    if not left:
        raise WeightsError(missing[cuts[0].name])
    if missing:
        note(f"not probed: {', '.join(missing)}; {next(iter(missing.values()))}")
    return left


def find_probe(
    study: Study, trial: Trial, cuts: Sequence[Cut], caches: Caches, *, images: Mapping[str, int]
) -> Probe | None:
    """Probe the cuts of a search, or read what was probed before.

    Returns None where there are not two, where it is not wanted, and where it failed.

    `trial` is any of the deepest cut: it says how images are brought to the network. `cuts`, shallow to deep, are
    those that the weights cover.
    """
    run = study.run
    if len(cuts) < 2 or not probes(study.settings):
        return None
    if not (run.probe.exists() and run.probe_heads.exists()):
        model = replace(trial.model, cut=cuts[-1].name, exits=tuple(cut.name for cut in cuts))
        cost = float(cuts[-1].macs * (images["train"] + images["val"]))
        task = make_task(study, "probe", replace(trial, model=model), caches, cost=cost, until=1)
        study.reporter.plan([task])
        for _, failed in run_with_retries(study, {0: task}):
            if failed is not None:
                study.reporter.note(f"the probe failed, and is left out: {failed}")
                return None
    probe = codec.load(Probe, run.probe)
    run.ledger.append("probed", study.settings.backbone, msgspec.to_builtins(probe))
    return probe
