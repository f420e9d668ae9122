"""`ttl-deploy analyze`: from a finished run to `analysis.json`, the reasons why a depth is enough."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray

from ttl_deploy.analysis import networks, overlays
from ttl_deploy.analysis.features import Network, draw_positions
from ttl_deploy.analysis.layers import compare_layers
from ttl_deploy.analysis.networks import RANDOM_SEEDS, Trained
from ttl_deploy.analysis.similarity import FEWEST_IMAGES, VARIANCE_SHARE
from ttl_deploy.data.cache import PixelCache, open_cache
from ttl_deploy.data.labels import label_array
from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.errors import DataError, NoRunError, UsageError
from ttl_deploy.models.cuts import STAGES, resolve_cuts
from ttl_deploy.plugins import Progress
from ttl_deploy.records import codec
from ttl_deploy.records.analysis import (
    AGAINST,
    ANALYSIS_FILE,
    Against,
    Analysis,
    Cams,
    Convergence,
    Depth,
    LayerSimilarity,
    Pair,
)
from ttl_deploy.records.data import Manifest, Split
from ttl_deploy.records.models import FULL, Cut
from ttl_deploy.records.trials import EpochRecord
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime import stored_predictions, stored_subgroups
from ttl_deploy.runtime.stored_subgroups import WantedModel
from ttl_deploy.training import devices
from ttl_deploy.training.batches import LabelledPixels

IMAGES = 256
CAM_IMAGES = 6
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to analyse.

    Attributes:
        cuts: `stages`, `all` or names, at which networks are compared; the chosen one always is.
        images: at most so many validation images.
        against: what the models are compared with; None for everything there is.
        cams: at most so many images with Grad-CAM maps, of `cam_split`.
        lesion_px: side of the smallest finding in pixels of the network's input.
        command: what was typed; stands in the ledger where the test split is used.
    """

    cut: str | None = None
    strategy: str | None = None
    cuts: tuple[str, ...] = (STAGES,)
    images: int = IMAGES
    against: tuple[Against, ...] | None = None
    cams: int = CAM_IMAGES
    cam_split: Split = "val"
    lesion_px: float | None = None
    command: str = ""


def analyse(run: RunFolder, wanted: Wanted, *, device: torch.device, progress: Progress) -> Analysis:
    """Analyse a run's chosen or named model beside its full network, and write `analysis.json` and the pictures.

    Raises `NoRunError` for a run that is not finished, `UnknownNameError` for a cut that was not trained or is not
    there, `UsageError` for a comparison that the run does not allow, and `DataError` for too few images.
    """
    started = time.perf_counter()
    if not run.chosen.is_file():
        raise NoRunError(f"{run.path} is not finished, so nothing is chosen yet: resume it by {run.command}")
    plan = _plan(run, wanted)
    _check_opened(run, wanted, plan)
    with run.owned():
        # That it is in use is told now and not after minutes. Pictures of an earlier analysis go with its record.
        (run.path / ANALYSIS_FILE).unlink(missing_ok=True)
        overlays.remove_pictures(run.path)
    settings = run.settings()
    manifest = load_manifest(run.data)
    decode = replace(settings.decode, image_size=plan.model.trial.model.image_size)
    cache = open_cache(manifest, decode, progress=progress)
    split_images = len(manifest.of_split("val"))
    data = _draw_images(manifest, cache, most=wanted.images)
    with devices.repeatable(settings.train.threads), torch.random.fork_rng(devices=[]):
        positions = {cut.name: draw_positions(cut, images=len(data), seed=_SEED) for cut in plan.cuts}
        found = compare_layers(
            _build_networks(plan),
            plan.pairs,
            plan.cuts,
            data,
            positions=positions,
            device=device,
            progress=lambda done, total: progress("networks", done, total),
        )
        _refuse_nothing(found, images=len(data), split_images=split_images)
        cams, note = _draw_cams(run, wanted, plan, manifest, cache, device)
    analysis = Analysis(
        backbone=settings.backbone,
        weights=settings.weights,
        image_size=decode.image_size,
        cut=plan.model.trial.cut,
        model=plan.wanted.key,
        reference=None if plan.reference is None else plan.reference.trial.key,
        split="val",
        images=len(data),
        split_images=split_images,
        image_seed=_SEED,
        position_seed=_SEED,
        random_seeds=RANDOM_SEEDS if any("random" in pair for pair in plan.pairs) else (),
        variance_share=VARIANCE_SHARE,
        lesion_px=wanted.lesion_px,
        depths=tuple(_describe(cut, len(positions[cut.name])) for cut in plan.cuts),
        similarities=found,
        curves=tuple(_read_curves(run)),
        cams=cams,
        notes=tuple(one for one in (*plan.notes, note) if one),
        device=str(device),
        seconds=time.perf_counter() - started,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with run.owned():
        codec.save(run.path / ANALYSIS_FILE, analysis)
    return analysis


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Which trained models, pairs and cuts are looked at; no reference where it cannot be compared."""

    wanted: WantedModel
    model: Trained
    reference: Trained | None
    pairs: dict[Pair, tuple[str, str]]
    cuts: tuple[Cut, ...]
    notes: tuple[str, ...]

    @property
    def widest(self) -> Trained:
        """The deepest trained model, whose network random ones are drawn of."""
        return self.reference or self.model


def _plan(run: RunFolder, wanted: Wanted) -> _Plan:
    model, instead = _find_model(run, wanted)
    own = networks.load_trained(run, model.key)
    reference, why = _find_reference(run, model, own)
    if reference is None and wanted.against is not None and "full" in wanted.against:
        raise UsageError(f"--against full: {why}. Leave it out, or name another --cut")
    against = AGAINST if wanted.against is None else wanted.against
    known = networks.cuts_of((reference or own).trial)
    chosen = resolve_cuts((*wanted.cuts, own.trial.model.cut, known[-1].name), known)
    return _Plan(
        wanted=model,
        model=own,
        reference=reference,
        pairs=_choose_pairs(against, full=reference is not None),
        cuts=chosen,
        notes=tuple(note for note in (instead, why) if note),
    )


def _find_model(run: RunFolder, wanted: Wanted) -> tuple[WantedModel, str]:
    """Return the named or chosen model; in place of a chosen full network the best smaller one, with a note."""
    model = stored_subgroups.find_model(run, cut=wanted.cut, strategy=wanted.strategy)
    points = [
        point for point in run.read_front().points if point.cut != FULL and wanted.strategy in (None, point.strategy)
    ]
    if wanted.cut is not None or model.candidate.cut != FULL or not points:
        return model, ""
    best = max(points, key=lambda point: sum(value or 0.0 for value in point.seed_values) / len(point.seeds)).candidate
    note = (
        f"the search chose the full network itself, so this is of {best.cut}, the smaller one that is best on "
        "validation; --cut names another, and --cut full looks at the full network alone"
    )
    return stored_subgroups.find_model(run, cut=best.cut, strategy=best.strategy), note


def _find_reference(run: RunFolder, model: WantedModel, own: Trained) -> tuple[Trained | None, str]:
    """Return the run's trained full network, of the same seed where there is one; or why there is none to compare."""
    front = run.read_front()
    if front.reference is None:
        return None, "the full network was not trained in this run"
    point = front.point(front.reference)
    if own.trial.model.cut == FULL:
        return None, f"{model.candidate.cut} is the full network itself"
    seed = model.seed if model.seed in point.seeds else point.seeds[0]
    key = WantedModel(candidate=point.candidate, seed=seed).key
    sizes = networks.read_trial(run, key).model.image_size, own.trial.model.image_size
    if sizes[0] != sizes[1]:
        return None, (
            f"the full network was trained at {sizes[0]} px and {model.candidate.cut} at {sizes[1]} px, so their "
            "positions do not correspond"
        )
    return networks.load_trained(run, key), ""


def _choose_pairs(against: Sequence[Against], *, full: bool) -> dict[Pair, tuple[str, str]]:
    """Return the pairs of networks by what they show; with a full network, that is what is set beside random ones."""
    pairs: dict[Pair, tuple[str, str]] = {}
    if "initial" in against and full:
        pairs["full-start"] = ("full", "start")
    if "initial" in against:
        pairs["cut-start"] = ("cut", "start")
    if "full" in against and full:
        pairs["cut-full"] = ("cut", "full")
    if "random" in against:
        pairs["full-random" if full else "cut-random"] = ("full" if full else "cut", "random 1")
        pairs["random-random"] = ("random 1", "random 2")
    return pairs


def _build_networks(plan: _Plan) -> dict[str, Network]:
    used = {name for pair in plan.pairs.values() for name in pair}
    first, second = RANDOM_SEEDS
    trial = plan.widest.trial
    builders: dict[str, Callable[[], Network]] = {
        "full": lambda: plan.widest.network,
        "cut": lambda: plan.model.network,
        "start": lambda: networks.build_start(trial),
        "random 1": lambda: networks.build_random(trial, first),
        "random 2": lambda: networks.build_random(trial, second),
    }
    return {name: build() for name, build in builders.items() if name in used}


def _draw_images(manifest: Manifest, cache: PixelCache, *, most: int) -> LabelledPixels:
    """Draw validation images, in the manifest's order."""
    known = np.array(manifest.of_split("val"))
    if len(known) < FEWEST_IMAGES:
        raise DataError(
            f"{len(known)} validation images: similarity is measured on {FEWEST_IMAGES} or more; search with a larger "
            "validation split (--val-fraction)"
        )
    drawn = np.sort(np.random.default_rng(_SEED).permutation(len(known))[:most])
    positions = known[drawn]
    labels = label_array([manifest.samples[position] for position in positions])
    return LabelledPixels(array=cache.array, rows=cache.rows[positions], labels=labels)


def _refuse_nothing(found: Sequence[LayerSimilarity], *, images: int, split_images: int) -> None:
    """Raise where SVCCA says nothing at any cut; where single cuts have too few samples, they say so themselves."""
    if any(one.svcca is not None for one in found):
        return
    why = found[0].svcca_reason
    if images < split_images:
        raise UsageError(f"--images {images} is too few for SVCCA at every cut ({why}): give up to {split_images}")
    raise DataError(
        f"the {images} validation images are too few for SVCCA at every cut ({why}): compare at shallower ones, "
        "which have more positions (--cuts all), or search with a larger validation split (--val-fraction)"
    )


def _check_opened(run: RunFolder, wanted: Wanted, plan: _Plan) -> None:
    """Raise `UsageError` where Grad-CAM maps are wanted on images that the search did not open for both models."""
    if plan.reference is None or not wanted.cams or wanted.cam_split != "test":
        return
    keys = plan.reference.trial.key, plan.wanted.key
    missing = [key for key in keys if not (run.trial(key) / "predictions_test.npz").is_file()]
    if missing:
        raise UsageError(
            f"--gradcam-split test: the test split was not opened for {' and '.join(missing)}; only `ttl-deploy "
            "search` opens it, for the reference and the members of the front. Use --gradcam-split val"
        )


def _draw_cams(
    run: RunFolder, wanted: Wanted, plan: _Plan, manifest: Manifest, cache: PixelCache, device: torch.device
) -> tuple[Cams | None, str]:
    """Draw Grad-CAM maps where two models can be set side by side; returns a note where they cannot."""
    if not wanted.cams:
        return None, ""
    if plan.reference is None:
        return None, "no Grad-CAM: there is no full network to set beside the model"
    keys, split = (plan.reference.trial.key, plan.wanted.key), wanted.cam_split
    full, cut = stored_predictions.read([run.trial(key) for key in keys], split=split)
    picked = overlays.pick_images(full, cut, most=wanted.cams, seed=_SEED)
    stored_predictions.record_openings([full, cut], split=split, command=wanted.command, by="analyze")
    positions = np.array(manifest.of_split(split))

    def pixels(chosen: Sequence[int]) -> NDArray[np.uint8]:
        return cache.pixels(positions[np.array(chosen, dtype=np.int64)])

    with run.owned():
        drawn = overlays.draw_overlays(
            run.path,
            (plan.reference, plan.model),
            (full, cut),
            picked,
            split=split,
            pixels=pixels,
            seed=_SEED,
            device=device,
        )
    return drawn, "" if drawn else "no Grad-CAM: no image that either model gets right, or features that are no maps"


def _describe(cut: Cut, positions: int) -> Depth:
    return Depth(
        cut=cut.name,
        depth=cut.depth,
        channels=cut.channels,
        height=cut.height,
        width=cut.width,
        positions=positions,
        macs_share=cut.macs_share,
        receptive_field=cut.receptive_field,
        global_context=cut.global_context,
    )


def _read_curves(run: RunFolder) -> Iterator[Convergence]:
    for path in sorted(run.path.glob("trials/*/metrics.jsonl")):
        lines = path.read_text(encoding="utf-8").splitlines()
        epochs = [codec.from_builtins(EpochRecord, json.loads(line), source=str(path)) for line in lines]
        yield Convergence(
            key=path.parent.name,
            epochs=tuple(one.epoch for one in epochs),
            val_auroc=tuple(one.val_auroc for one in epochs),
        )
