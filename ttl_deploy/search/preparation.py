"""Before any training: the data read, checked and split, and the costs of all candidate cuts."""

import time
from collections.abc import Mapping, Sequence

import msgspec

from ttl_deploy.data.cache import Note
from ttl_deploy.data.labels import label_array, name_label
from ttl_deploy.data.manifest import limit_train, prepare, share_train
from ttl_deploy.data.manifest_files import fingerprint, load_manifest, save_manifest
from ttl_deploy.data.quarantine import Unusable, find_unusable, leave_out, load_unusable, save_unusable
from ttl_deploy.errors import DataError, UsageError
from ttl_deploy.files import make_folder
from ttl_deploy.plugins import Progress
from ttl_deploy.records import codec
from ttl_deploy.records.data import ABSENT, PRESENT, Manifest, Split
from ttl_deploy.records.models import Cut, ModelSpec
from ttl_deploy.records.trials import Profile, SearchSettings
from ttl_deploy.runs.folder import differences, refuse_differences
from ttl_deploy.search.context import Study
from ttl_deploy.search.feasibility import keep_feasible, refuse_by_size
from ttl_deploy.search.profile import describe_profile, describe_without_latency, profile_cuts
from ttl_deploy.search.profile_key import ProfilePlan


def read_data(study: Study) -> Manifest:
    """Read, check and split the data; no image is decoded yet.

    Where the run has them already, they are compared with the stored ones, and what does not decode is left out.
    """
    run = study.run
    found = prepare_data(study.settings, progress=study.reporter.step)
    if (run.data / "manifest.csv").exists():
        found = leave_out(found, load_unusable(run.data))
        old, new = fingerprint(load_manifest(run.data)), fingerprint(found)
        refuse_differences(run.path, differences(msgspec.to_builtins(old), msgspec.to_builtins(new), "data."))
    for warning in found.warnings:
        study.reporter.note(f"data: {warning.message}")
    return found


def settle_data(study: Study, manifest: Manifest) -> Manifest:
    """Decode the images, leave out those that do not decode, and store what is left; stored data stay as they are.

    Raises `UnreadableImageError` where too many do not decode, and `DataError` where too little is left.
    """
    run, reporter = study.run, study.reporter
    if (run.data / "manifest.csv").exists():
        return manifest
    left, unusable = keep_usable(study.settings, manifest, progress=reporter.step, note=reporter.note)
    make_folder(run.data)
    save_unusable(run.data, unusable)
    save_manifest(left, run.data)
    return left


def keep_usable(
    settings: SearchSettings, manifest: Manifest, *, progress: Progress, note: Note
) -> tuple[Manifest, tuple[Unusable, ...]]:
    """Decode the images; return the manifest without those that do not decode, and those."""
    unusable = find_unusable(manifest, settings.decode, max_bad=settings.reading.max_bad, progress=progress, note=note)
    left = leave_out(manifest, unusable)
    for warning in left.warnings[len(manifest.warnings) :]:
        note(f"data: {warning.message}")
    _check_learnable(left)
    return left, unusable


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
    if found.multilabel and settings.train.sampling == "balanced":
        raise UsageError(
            "--sampling balanced wants one class per image, and these have several labels: leave it out, positives are "
            "weighed by --class-weights balanced; or search with --label for one finding"
        )
    _check_learnable(found)
    return found


def _check_learnable(manifest: Manifest) -> None:
    """Refuse data that nothing can be learned or chosen on: a split with a single class has no AUROC."""
    for split in ("train", "val"):
        if manifest.multilabel:
            _check_findings(manifest, split)
            continue
        present = {manifest.samples[position].label for position in manifest.of_split(split)}
        if len(present) < 2:
            named = ", ".join(repr(name_label(label, manifest.classes)) for label in present) or "no images"
            raise DataError(
                f"the split {split!r} of {manifest.name} holds only {named}: training and validation need at least two "
                "classes each; add images, or leave out the splits so that they are made here"
            )


def _check_findings(manifest: Manifest, split: Split) -> None:
    """Refuse a split in which no class is present in some images and absent in others."""
    marks = label_array([manifest.samples[position] for position in manifest.of_split(split)])
    if not (len(marks) and ((marks == PRESENT).any(axis=0) & (marks == ABSENT).any(axis=0)).any()):
        raise DataError(
            f"in the split {split!r} of {manifest.name} no finding is present in some images and absent in others: "
            "training and validation need both; add images, or leave out the splits so that they are made here"
        )


def count_images(manifest: Manifest) -> Mapping[str, int]:
    """Return the number of images of each split."""
    return {split: len(manifest.of_split(split)) for split in ("train", "val", "test")}


def find_costs(
    study: Study, manifest: Manifest, cuts: Sequence[Cut], specs: Sequence[ModelSpec]
) -> tuple[tuple[Cut, ...], Manifest]:
    """Find what every cut costs, as far as that is not known yet; return those to train, shallow to deep,
    and the data without the images that do not decode.

    Where no cut meets the limits, no image is decoded; and until the data are settled, nothing stands in the ledger,
    so the run may begin anew with other settings.
    """
    run, settings, note = study.run, study.settings, study.reporter.note
    refuse_by_size(settings, cuts)
    known = run.profile.exists()
    started = time.perf_counter()
    profile = codec.load(Profile, run.profile) if known else _measure(study, cuts, specs)
    seconds = round(time.perf_counter() - started, 1)
    wanted = keep_feasible(settings, profile, cuts, note=note)
    manifest = settle_data(study, manifest)
    run.ledger.append("data_prepared", manifest.name, msgspec.to_builtins(fingerprint(manifest)))
    if not known:
        codec.save(run.profile, profile)
    run.ledger.append("profiled", settings.profile_target, {"cuts": [cut.name for cut in cuts], "seconds": seconds})
    return wanted, manifest


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
