"""The probe: what a linear classifier reads at every cut of the frozen backbone, from one forward pass.

It ranks depths before anything is trained. Alone it misleads where the backbone's features suit the task
badly: shallow cuts gain more from finetuning than deep ones, or the other way round; see docs/search.md.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ttl_deploy.data.cache import PixelCache
from ttl_deploy.data.labels import label_array
from ttl_deploy.data.manifest import limit_train
from ttl_deploy.evidence import intervals
from ttl_deploy.evidence.linear_probe import fit_probe
from ttl_deploy.models import truncation, weights
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.input_conventions import Feeding
from ttl_deploy.plugins import Progress
from ttl_deploy.records.data import Manifest, Split
from ttl_deploy.records.models import ModelSpec
from ttl_deploy.records.probe import Probe, ProbeScore
from ttl_deploy.records.trials import SearchSettings
from ttl_deploy.training import devices
from ttl_deploy.training.batches import LabelledPixels
from ttl_deploy.training.exit_features import PooledExits, collect
from ttl_deploy.training.joint import LinearHead

_SPLITS: tuple[Split, ...] = ("train", "val")
MOST_TRAIN_IMAGES = 2000
"""More training images hardly change which depth can be read; they are drawn as whole patients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """A probe, and its classifiers by cut."""

    probe: Probe
    heads: Mapping[str, LinearHead]


def probe_cuts(
    settings: SearchSettings,
    manifest: Manifest,
    cache: PixelCache,
    spec: ModelSpec,
    *,
    feeding: Feeding,
    device: torch.device,
    progress: Progress,
) -> Probed:
    """Probe a network's exits: training images of the manifest are fitted, its validation images scored.

    `cache` was opened for this manifest. Raises `WeightsError` where the weights do not cover the deepest cut.
    """
    started = time.perf_counter()
    sample = limit_train(manifest, MOST_TRAIN_IMAGES, seed=settings.split_seed)
    with devices.repeatable(settings.train.threads):
        devices.seed_epoch(settings.seeds[0], 0)
        network = truncation.build_exits(spec)
        weights.load_pretrained(network, spec, settings.weights, feeding=feeding)
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
    fits = []
    for number, (cut, train, val) in enumerate(zip(spec.exits, found["train"], found["val"], strict=True)):
        fits.append(_fit(cut, train, val, sample))
        progress("fitting probes", number + 1, len(spec.exits))
    if device.type == "cuda":
        torch.cuda.empty_cache()  # for the trainings that follow, in processes of their own
    images = {split: len(one) for split, one in data.items()}
    probe = Probe(
        cuts=tuple(score for score, _ in fits),
        train_images=images["train"],
        val_images=images["val"],
        macs=_macs(spec) * sum(images.values()),
        seconds=time.perf_counter() - started,
    )
    return Probed(probe=probe, heads={score.cut: head for score, head in fits})


def _macs(spec: ModelSpec) -> int:
    cuts = list_cuts(spec.backbone, image_size=spec.image_size, classes=spec.classes, pool=spec.pool)
    return next(cut.macs for cut in cuts if cut.name == spec.cut)


def _pixels(cache: PixelCache, manifest: Manifest, sample: Manifest, split: Split) -> LabelledPixels:
    """Find the images of a manifest's sample in the cache that was opened for the manifest."""
    row_of = {one.path: row for one, row in zip(manifest.samples, cache.rows, strict=True)}
    rows = [row_of[sample.samples[position].path] for position in sample.of_split(split)]
    return LabelledPixels(array=cache.array, rows=np.array(rows, dtype=np.int64), labels=_labels(sample, split))


def _fit(
    cut: str, train: NDArray[np.float32], val: NDArray[np.float32], manifest: Manifest
) -> tuple[ProbeScore, LinearHead]:
    patients = {split: _patients(manifest, split) for split in _SPLITS}
    fit = fit_probe(train, _labels(manifest, "train"), patients["train"], val, classes=len(manifest.classes))
    scored = intervals.score("auroc", fit.held_out, _labels(manifest, "val"), patients["val"], split="val")
    score = ProbeScore(cut=cut, features=train.shape[1], cv_auroc=fit.cv_auroc, validation=scored, penalty=fit.strength)
    return score, LinearHead(weight=torch.from_numpy(fit.weights).float(), bias=torch.from_numpy(fit.bias).float())


def _labels(manifest: Manifest, split: Split) -> NDArray[np.int64]:
    return label_array([manifest.samples[position] for position in manifest.of_split(split)])


def _patients(manifest: Manifest, split: Split) -> NDArray[np.str_]:
    return np.array([manifest.samples[position].patient_id for position in manifest.of_split(split)])
