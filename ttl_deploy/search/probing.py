"""The probe: what a linear classifier reads at every cut of the frozen backbone, from one forward pass.

It ranks depths before anything is trained. Alone it misleads where the backbone's features suit the task
badly: shallow cuts gain more from finetuning than deep ones, or the other way round; see docs/search.md.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ttl_deploy.data.cache import PixelCache, open_cache
from ttl_deploy.data.manifest import limit_train
from ttl_deploy.errors import WeightsError
from ttl_deploy.evidence import intervals
from ttl_deploy.evidence.linear_probe import fit_probe
from ttl_deploy.models import truncation, weights
from ttl_deploy.models.input_conventions import Feeding
from ttl_deploy.models.weights.prepared import find_feeding
from ttl_deploy.plugins import Progress
from ttl_deploy.records.data import Manifest, Split
from ttl_deploy.records.models import Cut, ModelSpec
from ttl_deploy.records.probe import Probe, ProbeScore
from ttl_deploy.records.trials import SearchSettings
from ttl_deploy.search.candidates import find_cuts
from ttl_deploy.search.preparation import prepare_data
from ttl_deploy.training import devices
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.exit_features import PooledExits, collect

_SPLITS: tuple[Split, ...] = ("train", "val")
Note = Callable[[str], None]
MOST_TRAIN_IMAGES = 2000
"""More training images hardly change which depth can be read; they are drawn as whole patients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A probe, and the cuts it is of."""

    cuts: tuple[Cut, ...]
    probe: Probe


def probe_data(settings: SearchSettings, *, device: torch.device, note: Note, progress: Progress) -> Probed:
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
    cache = open_cache(manifest, settings.decode, progress=progress)
    probe = probe_cuts(settings, manifest, cache, cuts, feeding=feeding, device=device, progress=progress)
    return Probed(cuts=cuts, probe=probe)


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


def probe_cuts(
    settings: SearchSettings,
    manifest: Manifest,
    cache: PixelCache,
    cuts: Sequence[Cut],
    *,
    feeding: Feeding,
    device: torch.device,
    progress: Progress,
) -> Probe:
    """Probe cuts, shallow to deep: training images of the manifest are fitted, its validation images scored.

    `cache` was opened for this manifest. Raises `WeightsError` where the weights do not cover the deepest cut.
    """
    started = time.perf_counter()
    sample = limit_train(manifest, MOST_TRAIN_IMAGES, seed=settings.split_seed)
    with devices.repeatable(settings.train.threads):
        devices.seed_epoch(settings.seeds[0], 0)
        network = _build(settings, manifest, cuts, feeding)
        pooled = devices.place(PooledExits(network), device)
        data = {split: _pixels(cache, manifest, sample, split) for split in _SPLITS}
        found = {
            split: collect(
                pooled,
                data[split],
                convention=feeding.network,
                device=device,
                progress=partial(progress, f"probing {split} images"),
            )
            for split in _SPLITS
        }
    scores = []
    for number, (cut, train, val) in enumerate(zip(cuts, found["train"], found["val"], strict=True)):
        scores.append(_score(cut, train, val, sample))
        progress("fitting probes", number + 1, len(cuts))
    if device.type == "cuda":
        torch.cuda.empty_cache()  # for the trainings that follow, in processes of their own
    images = {split: len(one) for split, one in data.items()}
    return Probe(
        cuts=tuple(scores),
        train_images=images["train"],
        val_images=images["val"],
        macs=cuts[-1].macs * sum(images.values()),
        seconds=time.perf_counter() - started,
    )


def _build(
    settings: SearchSettings, manifest: Manifest, cuts: Sequence[Cut], feeding: Feeding
) -> truncation.MultiExitModel:
    spec = ModelSpec(
        backbone=settings.backbone,
        cut=cuts[-1].name,
        classes=len(manifest.classes),
        image_size=settings.decode.image_size,
        pool=settings.pool,
        exits=tuple(cut.name for cut in cuts),
    )
    network = truncation.build_exits(spec)
    weights.load_pretrained(network, spec, settings.weights, feeding=feeding)
    return network


def _pixels(cache: PixelCache, manifest: Manifest, sample: Manifest, split: Split) -> LabelledPixels:
    """Find the images of a manifest's sample in the cache that was opened for the manifest."""
    row_of = {one.path: row for one, row in zip(manifest.samples, cache.rows, strict=True)}
    rows = [row_of[sample.samples[position].path] for position in sample.of_split(split)]
    return LabelledPixels(array=cache.array, rows=np.array(rows, dtype=np.int64), labels=_labels(sample, split))


def _score(cut: Cut, train: NDArray[np.float32], val: NDArray[np.float32], manifest: Manifest) -> ProbeScore:
    patients = {split: _patients(manifest, split) for split in _SPLITS}
    fit = fit_probe(train, _labels(manifest, "train"), patients["train"], val, classes=len(manifest.classes))
    scored = intervals.score("auroc", fit.held_out, _labels(manifest, "val"), patients["val"], split="val")
    return ProbeScore(
        cut=cut.name, features=train.shape[1], cv_auroc=fit.cv_auroc, validation=scored, penalty=fit.strength
    )


def _labels(manifest: Manifest, split: Split) -> NDArray[np.int64]:
    return np.array([manifest.samples[position].label for position in manifest.of_split(split)], dtype=np.int64)


def _patients(manifest: Manifest, split: Split) -> NDArray[np.str_]:
    return np.array([manifest.samples[position].patient_id for position in manifest.of_split(split)])
