"""`ttl-deploy predict`: probabilities for images."""

from pathlib import Path
from typing import Annotated

import typer

NAME = "predict"


def run(
    artifact: Annotated[Path, typer.Argument(help="Artifact, or a run folder with one.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="CSV table to write.")] = Path("predictions.csv"),
    target: Annotated[str | None, typer.Option(help="Runtime and device to run on [the artifact's own].")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or int8 [the artifact's own].")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per call.")] = 8,
    threads: Annotated[
        int, typer.Option(min=1, help="CPU threads of the runtime; as many decode images meanwhile.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts and the speed as JSON.")] = False,
) -> None:
    """Predict images with an exported model.

    Path, class and one probability per class, as CSV.

    Folders of any size stream through, in order. An image that cannot be read gets a row with the reason; the
    exit code is then 3.
    """
    import json
    import time

    from ttl_deploy.errors import UnreadableImageError
    from ttl_deploy.runtime.artifact import open_artifact
    from ttl_deploy.runtime.predict import predict, write_predictions

    from .progress import say, show_steps
    from .runs import artifact_path

    opened = open_artifact(artifact_path(artifact))
    if target is None and opened.target_note:
        say(opened.target_note)
    if precision not in (None, opened.manifest.precision):
        say(f"{opened.manifest.name} was checked in {opened.manifest.precision} at its export, not in {precision}")
    with show_steps(f"predicting with {opened.manifest.name}") as update:
        stream = predict(
            opened, images, target=target, precision=precision, threads=threads, batch=batch, progress=update
        )
        started = time.perf_counter()
        counts = write_predictions(out, stream, classes=opened.manifest.classes)
        seconds = time.perf_counter() - started
    say(f"{counts.predicted} images predicted, {counts.failed} not readable: {out}")
    # The model is open by then; reading and decoding the files, the model and the table are in it.
    say(f"{stream.images / seconds:.1f} images/s from file to table ({stream.runtime}, {stream.precision})")
    if as_json:
        told = {"table": str(out), "predicted": counts.predicted, "failed": counts.failed, "seconds": seconds}
        print(json.dumps(told | {"runtime": stream.runtime, "precision": stream.precision}, indent=2))
    if counts.failed:
        raise UnreadableImageError(f"{counts.failed} images could not be read: see the column `error` of {out}")
