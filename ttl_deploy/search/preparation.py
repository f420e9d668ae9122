"""Before any training: the data read, checked and split, and the costs of all candidate cuts."""

import time
from collections.abc import Mapping, Sequence

import msgspec

from ttl_deploy.data.labels import name_label
from ttl_deploy.data.manifest import limit_train, prepare, share_train
from ttl_deploy.data.manifest_files import fingerprint, load_manifest, save_manifest
from ttl_deploy.errors import DataError
from ttl_deploy.plugins import Progress
from ttl_deploy.records import codec
from ttl_deploy.records.data import Manifest
from ttl_deploy.records.models import Cut, ModelSpec
from ttl_deploy.records.trials import Profile, SearchSettings
from ttl_deploy.runs.folder import differences, refuse_differences
from ttl_deploy.search.context import Study
from ttl_deploy.search.feasibility import keep_feasible, refuse_by_size
from ttl_deploy.search.profile import describe_profile, describe_without_latency, profile_cuts
from ttl_deploy.search.profile_key import ProfilePlan


def read_data(study: Study) -> Manifest:
    """Read, check and split the data, or compare them with the stored ones; no image is decoded yet."""
    run = study.run
    found = prepare_data(study.settings, progress=study.reporter.step)
    if (run.data / "manifest.csv").exists():
        old, new = fingerprint(load_manifest(run.data)), fingerprint(found)
        refuse_differences(run.path, differences(msgspec.to_builtins(old), msgspec.to_builtins(new), "data."))
    else:
        save_manifest(found, run.data)
    for warning in found.warnings:
        study.reporter.note(f"data: {warning.message}")
    return found


def prepare_data(settings: SearchSettings, *, progress: Progress) -> Manifest:
    """Read, check and split the data of a search; raises `DataError` where nothing can be learned from them."""
    found = prepare(
        settings.data,
        reading=settings.reading,
        val_fraction=settings.val_fraction,
        test_fraction=settings.test_fraction,
        split_seed=settings.split_seed,
        fold=settings.fold,
        progress=progress,
    )
    if settings.limit_train is not None:
        found = limit_train(found, settings.limit_train, seed=settings.split_seed)
    if settings.train_fraction is not None:
        found = share_train(found, settings.train_fraction, seed=settings.split_seed)
    _check_learnable(found)
    return found


def _check_learnable(manifest: Manifest) -> None:
    """Refuse data that nothing can be learned or chosen on: a split with a single class has no AUROC."""
    for split in ("train", "val"):
        present = {manifest.samples[position].label for position in manifest.of_split(split)}
        if len(present) < 2:
            named = ", ".join(repr(name_label(label, manifest.classes)) for label in present) or "no images"
            raise DataError(
                f"the split {split!r} of {manifest.name} holds only {named}: training and validation need at least two "
                "classes each; add images, or leave out the splits so that they are made here"
            )


def count_images(manifest: Manifest) -> Mapping[str, int]:
    """Return the number of images of each split."""
    return {split: len(manifest.of_split(split)) for split in ("train", "val", "test")}


def find_costs(study: Study, manifest: Manifest, cuts: Sequence[Cut], specs: Sequence[ModelSpec]) -> tuple[Cut, ...]:
    """Find what every cut costs, as far as that is not known yet; return those to train, shallow to deep.

    Where no cut meets the limits, nothing stands in the ledger yet, so the run may begin anew with others.
    """
    run, settings, note = study.run, study.settings, study.reporter.note
    refuse_by_size(settings, cuts)
    known = run.profile.exists()
    started = time.perf_counter()
    profile = codec.load(Profile, run.profile) if known else _measure(study, cuts, specs)
    seconds = round(time.perf_counter() - started, 1)
    wanted = keep_feasible(settings, profile, cuts, note=note)
    run.ledger.append("data_prepared", manifest.name, msgspec.to_builtins(fingerprint(manifest)))
    if not known:
        codec.save(run.profile, profile)
    run.ledger.append("profiled", settings.profile_target, {"cuts": [cut.name for cut in cuts], "seconds": seconds})
    return wanted


def profile_plan(settings: SearchSettings) -> ProfilePlan:
    """Return how a search measures latencies."""
    return ProfilePlan(target=settings.profile_target, seconds=settings.profile_seconds)


def _measure(study: Study, cuts: Sequence[Cut], specs: Sequence[ModelSpec]) -> Profile:
    if "profile" in study.settings.skip:
        return describe_without_latency(
            cuts, target=study.settings.profile_target, image_size=study.settings.decode.image_size
        )
    by_name = {spec.cut: spec for spec in specs}
    profile = profile_cuts(cuts, by_name, plan=profile_plan(study.settings), progress=study.reporter.step)
    for text in describe_profile(profile):
        study.reporter.note(text)
    return profile
