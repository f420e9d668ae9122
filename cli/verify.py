"""`ttl-deploy verify`: is the file still the model that was trained?"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .reading_options import read_reading

if TYPE_CHECKING:
    from ttl_deploy.records.trials import SearchSettings

NAME = "verify"


def run(
    artifact: Annotated[Path | None, typer.Argument(help="Artifact, or run folder with one [the newest].")] = None,
    data: Annotated[str | None, typer.Option(help="Labelled images to verify with [the run's own data].")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="train, val, test or all [test of the data it was trained on, val where test was never opened; all of "
            "other data]."
        ),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Runtime and device to run on [the artifact's own].")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    **reading: Any,
) -> None:
    """Check that an exported model decides as the trained one.

    Probabilities, flipped decisions, scores side by side.

    The trained model's probabilities were recorded at export, by content of the image, so this needs no
    torch. Exit code 4 if they differ by more than the limit or a decision flips; below fp32, if the gate that the
    artifact carries does not hold (docs/precision.md).
    """
    import platform
    import re

    from ttl_deploy.errors import GateError, UsageError
    from ttl_deploy.files import make_folder
    from ttl_deploy.records import codec
    from ttl_deploy.runtime.artifact import open_artifact
    from ttl_deploy.runtime.verify import verify

    from .progress import say, show_steps
    from .runs import artifact_path, run_of_artifact
    from .tables import print_verification

    path = artifact_path(artifact)
    opened = open_artifact(path)
    owner = run_of_artifact(path)
    settings = owner.settings() if owner else None
    source = data or (settings.data if settings else None)
    if source is None:
        raise UsageError(f"{path} does not lie in a run folder: say with --data which labelled images to verify with")
    if target is None and opened.target_note:
        say(opened.target_note)
    with show_steps(f"verifying {opened.manifest.name} with {source}") as update:
        images = _labelled_images(opened, source, split=split, reading=reading, settings=settings, update=update)
        report = verify(opened, images, target=target, threads=threads)
    if owner:
        folder = make_folder(owner.bench(re.sub(r"[^A-Za-z0-9.-]+", "_", platform.node() or "unknown")))
        codec.save(folder / f"verify-{path.name}-{report.split}.json", report)
    if as_json:
        print(codec.to_json(report))
    else:
        print_verification(report)
    if not report.passed:
        raise GateError(f"{opened.manifest.name} does not make the trained model's decisions on {report.target}")


def _labelled_images(
    artifact: Any,
    source: str,
    *,
    split: str | None,
    reading: Mapping[str, Any],
    settings: "SearchSettings | None",
    update: Any,
) -> Any:
    """Read the data as the run did, and decode the wanted split as the artifact prescribes."""
    from ttl_deploy.data.manifest import prepare
    from ttl_deploy.errors import UnknownNameError
    from ttl_deploy.runtime.verify import LabelledImages

    if split not in (None, "train", "val", "test", "all"):
        raise UnknownNameError("split", split, ("train", "val", "test", "all"))
    same: Mapping[str, Any] = (
        {
            "val_fraction": settings.val_fraction,
            "test_fraction": settings.test_fraction,
            "split_seed": settings.split_seed,
            "fold": settings.fold,
        }
        if settings
        else {}
    )
    reading = read_reading(reading, like=settings.reading if settings else None)
    manifest = prepare(source, reading=reading, **same)
    known = artifact.references()
    if split is None:
        recorded = {sample.split for sample in manifest.samples if sample.sha256 in known}
        split = next((one for one in ("test", "val") if one in recorded), "all")
    chosen = [sample for sample in manifest.samples if split in ("all", sample.split)]
    chosen = _leave_out_unreadable(manifest, chosen, known, artifact.manifest.decode, max_bad=reading.max_bad)
    return LabelledImages(
        images=_decoded(manifest.root, chosen, artifact.manifest, update),
        labels=[sample.label for sample in chosen],
        patients=[sample.patient_id for sample in chosen],
        sha256s=[sample.sha256 for sample in chosen],
        classes=manifest.classes,
        split=split,  # type: ignore[arg-type] # checked above
    )


def _leave_out_unreadable(manifest: Any, samples: Any, known: Any, decode: Any, *, max_bad: float) -> Any:
    """Return the images that decode, as a search leaves out the others; those with a recorded answer do."""
    from ttl_deploy.data.quarantine import name_unusable, refuse_many, try_decoding

    from .progress import say

    found = try_decoding(Path(manifest.root), [sample for sample in samples if sample.sha256 not in known], decode)
    refuse_many(found, len(manifest.samples), max_bad=max_bad)
    if not found:
        return samples
    say(f"{len(found)} of {len(samples)} images do not decode and are left out: {name_unusable(found)}")
    gone = {one.path for one in found}
    return [sample for sample in samples if sample.path not in gone]


def _decoded(root: str, samples: Any, manifest: Any, update: Any) -> Any:
    """Yield the images in batches, decoded one by one."""
    import numpy as np

    from ttl_deploy.pixels import decode

    size = min(32, manifest.input.max_batch)
    for start in range(0, len(samples), size):
        batch = samples[start : start + size]
        yield np.stack([decode(Path(root) / sample.path, manifest.decode) for sample in batch])
        update(start + len(batch), len(samples))
